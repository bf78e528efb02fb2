"""PyTorch's functions among what takes turns: on the same numbers, its tensors being views of the same arrays."""

import importlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax


class Torch:
    """A function of tensors, called as its user would; see `timing.Prepared`.

    Args:
        name: What it is called in the results.
        function: The function.
        inputs: JAX's arrays for each turn.
    """

    def __init__(self, name: str, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> None:
        self.name, self.function, self.torch = name, function, importlib.import_module("torch")
        self.inputs = [tuple(self.torch.from_dlpack(array) for array in arrays) for arrays in inputs]
        self.spent: list[float] = []

    def call(self, turn: int) -> Any:
        """Runs to the end; keeps what a GPU took, between two events in its stream."""
        tensors = self.inputs[turn % len(self.inputs)]
        result = self._timed(tensors) if tensors[0].is_cuda else self.function(*tensors)
        return jax.dlpack.from_dlpack(result.contiguous()) if turn == 0 else None

    def _timed(self, tensors: tuple[Any, ...]) -> Any:
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = self.function(*tensors)
        end.record()
        self.torch.cuda.synchronize()
        self.spent.append(begin.elapsed_time(end) * 1e-3)
        return result

    @property
    def device_seconds(self) -> float | None:
        """The median, without the first call, which compiles; None on a CPU."""
        return statistics.median(self.spent[1:]) if len(self.spent) > 1 else None
