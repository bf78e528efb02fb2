"""Times calls side by side: variants take turns, inputs are not in the cache, and results land in donated memory.

Memory that is fresh to a process costs more in page faults than a quantization does in arithmetic, so a program is
given the buffers that its results go to. It is compiled and called once before it is timed.
"""

import dataclasses
import importlib
import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

Arrays, Function = tuple[Any, ...], Callable[..., Any]


class Prepared(Protocol):
    """Something that can be called again and again on inputs that were made before."""

    name: str

    def call(self, turn: int) -> Any:
        """Runs to the end on the inputs of a turn; returns the results."""
        ...


@dataclasses.dataclass
class Spares:
    """Buffers for results, by their shapes and dtypes: programs that never run at once share them."""

    held: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def take(self, avals: Any) -> Any:
        kind = self._kind(avals)
        return self.held.pop(kind, None) or [jnp.zeros(shape, dtype) for shape, dtype in kind]

    def give(self, results: Any) -> None:
        self.held[self._kind(results)] = jax.tree.leaves(results)

    @staticmethod
    def _kind(arrays: Any) -> tuple[Any, ...]:
        return tuple((a.shape, jnp.dtype(a.dtype)) for a in jax.tree.leaves(arrays))


class Jitted:
    """A function compiled ahead of its calls, whose results go to donated buffers.

    It has arrays for each turn, takes its buffers from `spares`, and is called `label` in a profile.
    """

    def __init__(self, name: str, function: Function, inputs: Sequence[Arrays], spares: Spares, label: str) -> None:
        self.name, self.inputs, self.spares, self.label = name, inputs, spares, label
        self.avals = jax.eval_shape(function, *inputs[0])
        buffers = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jax.tree.leaves(self.avals)]

        def program(buffers: Any, *arrays: Any) -> Any:
            return function(*arrays)

        program.__name__ = program.__qualname__ = label
        jitted = jax.jit(program, donate_argnums=0, keep_unused=True)
        self.compiled = jitted.lower(buffers, *inputs[0]).compile()

    def results(self, turn: int) -> Any:
        """The results for the inputs of a turn; the caller gives them back to the spares after use."""
        return self.compiled(self.spares.take(self.avals), *self.inputs[turn % len(self.inputs)])

    def call(self, turn: int) -> Any:
        results = jax.block_until_ready(self.results(turn))
        self.spares.give(results)
        return results

    def queue(self, calls: int) -> None:
        """Begins so many calls one after the other, and waits for the last."""
        for turn in range(calls):
            results = self.results(turn)
            self.spares.give(results)
        jax.block_until_ready(results)


class Torch:
    """A function of PyTorch's tensors, called as its user would; its tensors are views of JAX's arrays."""

    def __init__(self, name: str, function: Function, inputs: Sequence[Arrays]) -> None:
        self.name, self.function, self.torch = name, function, importlib.import_module("torch")
        self.inputs = [tuple(self.torch.from_dlpack(array) for array in arrays) for arrays in inputs]

    def call(self, turn: int) -> Any:
        result = self._run(turn)
        return jax.dlpack.from_dlpack(result.contiguous()) if turn == 0 else None

    def queue(self, calls: int) -> None:
        """As that of `Jitted`."""
        self._run(*range(calls))

    def _run(self, *turns: int) -> Any:
        for turn in turns:
            result = self.function(*self.inputs[turn % len(self.inputs)])
        if result.is_cuda:
            self.torch.cuda.synchronize()
        return result


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to measure: `most` rounds, or as many as fit in `seconds`, but `least` at least."""

    least: int = 7
    most: int = 31
    seconds: float = 3.0


def alternate(variants: Sequence[Prepared], patience: Patience, between: Callable[[], Any]) -> list[list[float]]:
    """Wall time of each call in seconds, by variant; in each round they take turns, after what empties the caches."""
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
    """Reads and writes four times the bytes of a cache, so that nothing else is left in it."""

    def __init__(self, cache: int) -> None:
        self.buffer = jnp.zeros(cache, jnp.uint32)
        self.program = jax.jit(lambda a: a + jnp.uint32(1), donate_argnums=0)

    def __call__(self) -> None:
        self.buffer = jax.block_until_ready(self.program(self.buffer))
