"""Times calls side by side: variants take turns, inputs are not in the cache, and results land in donated memory.

Memory that is fresh to a process costs more in page faults than a quantization does in arithmetic, so a program is
given the buffers that its results go to. It is compiled before, and called once before it counts.
"""

import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

Arrays = tuple[Any, ...]


class Prepared(Protocol):
    """Something that can be called again and again on inputs that were made before."""

    name: str

    def call(self, turn: int) -> Any:
        """Runs to the end on the inputs of a turn; returns the results."""
        ...


@runtime_checkable
class Queued(Prepared, Protocol):
    """Something that can be called without waiting for the call before."""

    def queue(self, calls: int) -> None:
        """Begins so many calls one after the other, and waits for the last."""
        ...


@dataclasses.dataclass
class Spares:
    """Buffers for results, by their shapes and dtypes: programs that never run at once share them."""

    held: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def take(self, avals: Any) -> Any:
        """Buffers of the shapes and dtypes of `avals`."""
        kind = self._kind(avals)
        return self.held.pop(kind, None) or [jnp.zeros(shape, dtype) for shape, dtype in kind]

    def give(self, results: Any) -> None:
        """Takes results back."""
        self.held[self._kind(results)] = jax.tree.leaves(results)

    @staticmethod
    def _kind(arrays: Any) -> tuple[Any, ...]:
        return tuple((a.shape, jnp.dtype(a.dtype)) for a in jax.tree.leaves(arrays))


class Jitted:
    """A function compiled ahead of its calls, whose results go to donated buffers.

    Args:
        name: What it is called in the results.
        function: The function of arrays.
        inputs: Arrays for each turn.
        spares: Where the buffers come from.
        label: What the program is called in a profile.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], inputs: Sequence[Arrays], spares: Spares, label: str
    ) -> None:
        self.name, self.inputs, self.spares, self.label = name, inputs, spares, label
        self.avals = jax.eval_shape(function, *inputs[0])
        buffers = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jax.tree.leaves(self.avals)]

        def program(buffers: Any, *arrays: Any) -> Any:
            return function(*arrays)

        program.__name__ = program.__qualname__ = label
        jitted = jax.jit(program, donate_argnums=0, keep_unused=True)
        self.compiled = jitted.lower(buffers, *inputs[0]).compile()

    def results(self, turn: int) -> Any:
        """The results for the inputs of a turn; whoever has done with them gives them back to the spares."""
        return self.compiled(self.spares.take(self.avals), *self.inputs[turn % len(self.inputs)])

    def call(self, turn: int) -> Any:
        """See `Prepared`."""
        results = jax.block_until_ready(self.results(turn))
        self.spares.give(results)
        return results

    def queue(self, calls: int) -> None:
        """See `Queued`."""
        for turn in range(calls):
            results = self.results(turn)
            self.spares.give(results)
        jax.block_until_ready(results)


class Eager:
    """A function called as it is, an operation at a time where nothing in it is under jit."""

    def __init__(self, name: str, function: Callable[..., Any], inputs: Sequence[Arrays]) -> None:
        self.name, self.function, self.inputs = name, function, inputs

    def call(self, turn: int) -> Any:
        """See `Prepared`."""
        return jax.block_until_ready(self.function(*self.inputs[turn % len(self.inputs)]))


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to measure: `most` rounds, or as many as fit in `seconds`, but `least` at least."""

    least: int = 7
    most: int = 31
    seconds: float = 3.0


def alternate(variants: Sequence[Prepared], patience: Patience, between: Callable[[], Any]) -> list[list[float]]:
    """Wall time of each call, in seconds, by variant.

    Args:
        variants: What takes turns, in a random order in each round, each call with the next of the inputs.
        patience: How many rounds there are.
        between: What is called before each round: it empties the caches.
    """
    order, shuffle = list(range(len(variants))), random.Random(0).shuffle
    times: list[list[float]] = [[] for _ in variants]
    for variant in variants:
        variant.call(0)
    begin, turns = time.perf_counter(), itertools.count()
    for done in range(patience.most):
        if done >= patience.least and time.perf_counter() - begin > patience.seconds:
            break
        between()
        shuffle(order)
        for i in order:
            turn, start = next(turns), time.perf_counter()
            variants[i].call(turn)
            times[i].append(time.perf_counter() - start)
    return times


class Sweep:
    """Reads and writes so many bytes that nothing else is left in a cache.

    Args:
        cache: Bytes of the cache; four times as many are gone over.
    """

    def __init__(self, cache: int) -> None:
        self.buffer = jnp.zeros(cache, jnp.uint32)
        self.program = jax.jit(lambda a: a + jnp.uint32(1), donate_argnums=0)

    def __call__(self) -> None:
        """Goes over them."""
        self.buffer = jax.block_until_ready(self.program(self.buffer))
