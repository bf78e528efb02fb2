"""PyTorch's functions among what takes turns: on the same numbers, its tensors being views of the same arrays."""

import importlib
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

    def call(self, turn: int) -> Any:
        """Runs to the end."""
        result = self.function(*self.inputs[turn % len(self.inputs)])
        self._wait(result)
        return jax.dlpack.from_dlpack(result.contiguous()) if turn == 0 else None

    def queue(self, calls: int) -> None:
        """See `timing.Queued`."""
        for turn in range(calls):
            result = self.function(*self.inputs[turn % len(self.inputs)])
        self._wait(result)

    def _wait(self, result: Any) -> None:
        if result.is_cuda:
            self.torch.cuda.synchronize()
