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
from typing import Any

import jax
import jax.numpy as jnp

Arrays, Function = tuple[Any, ...], Callable[..., Any]


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
    """A function compiled ahead of its calls, with arrays for each turn; a profile calls it `label`."""

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

    def call(self, *turns: int) -> Any:
        """Begins a call for each turn, one after the other, and waits for the last; returns its results."""
        for turn in turns:
            results = self.results(turn)
            self.spares.give(results)
        return jax.block_until_ready(results)


class Torch:
    """A function of PyTorch's tensors, called as its user would; its tensors are views of JAX's arrays."""

    label = ""  # JAX's profiler does not see it

    def __init__(self, name: str, function: Function, inputs: Sequence[Arrays]) -> None:
        self.name, self.function, self.torch = name, function, importlib.import_module("torch")
        self.inputs = [tuple(self.torch.from_dlpack(array) for array in arrays) for arrays in inputs]

    def call(self, *turns: int) -> Any:
        """As that of `Jitted`; only the results of turn 0 are returned, as arrays of JAX."""
        for turn in turns:
            result = self.function(*self.inputs[turn % len(self.inputs)])
        if any(one.is_cuda for one in jax.tree.leaves(result)):
            self.torch.cuda.synchronize()
        return jax.tree.map(lambda one: jax.dlpack.from_dlpack(one.contiguous()), result) if turns == (0,) else None


Prepared = Jitted | Torch


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to measure: `most` rounds, or as many as fit in `seconds`, but `least` at least."""

    least: int = 7
    most: int = 31
    seconds: float = 3.0


def alternate(calls: Sequence[Callable[[int], Any]], patience: Patience, between: Function) -> list[list[float]]:
    """Wall time in seconds of what is called with a turn; in each round all take turns, after `between`."""
    order, shuffle = list(range(len(calls))), random.Random(0).shuffle
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call(0)
    begin, turns = time.perf_counter(), itertools.count()
    for done in range(patience.most):
        if done >= patience.least and time.perf_counter() - begin > patience.seconds:
            break
        between()
        shuffle(order)
        for i in order:
            turn, start = next(turns), time.perf_counter()
            calls[i](turn)
            times[i].append(time.perf_counter() - start)
    return times


class Sweep:
    """Reads and writes four times the bytes of a cache, so that nothing else is left in it."""

    def __init__(self, cache: int) -> None:
        self.buffer = jnp.zeros(cache, jnp.uint32)
        self.program = jax.jit(lambda a: a + jnp.uint32(1), donate_argnums=0)

    def __call__(self) -> None:
        self.buffer = jax.block_until_ready(self.program(self.buffer))
