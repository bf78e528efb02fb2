"""The operations of `kernels/jax_triton` on a CPU: Triton's interpreter runs the kernels, one program after another.

Triton decides when it is imported whether it interprets: TRITON_INTERPRET=1 must be set then; `make test-triton` sets
it.
"""

import functools
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import ml_dtypes
import numpy as np

from intnumerics.kernels.jax_triton import operations as jax_triton

FLOATS = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32}
NAMES = {"uint8": "u8", "int8": "i8", "int16": "i16", "int32": "i32", "uint32": "u32"}
NAMES |= {np.dtype(dtype).name: name for name, dtype in FLOATS.items()}
ONE_AT_A_TIME = threading.Lock()  # JAX runs callbacks side by side, and the interpreter has one grid


def reason_to_skip() -> str | None:
    """Why nothing can be interpreted, or None if it can."""
    if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
        return "needs triton and TRITON_INTERPRET=1; `make test-triton` has both"
    return None


class Pointer:
    """What the interpreter asks of a tensor of PyTorch, of an array of NumPy: memory that is on the CPU already."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.dtype = array, NAMES[array.dtype.name]

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def itself(self, *_: Any, **__: Any) -> "Pointer":
        return self

    untyped_storage = cpu = new_empty = set_ = copy_ = storage_offset = size = stride = itself


def convert(x: np.ndarray, source: Any, target: Any, _: Any) -> np.ndarray:
    """A cast between floats, in bits: the interpreter's own does not round to the nearest."""
    cast = x.reshape(-1).view(FLOATS[source.name]).astype(FLOATS[target.name])
    return cast.view(f"u{cast.dtype.itemsize}").reshape(x.shape)


def interpret(kernel: str, plan: jax_triton.Plan, outputs: Sequence[Any], *inputs: Any) -> list[np.ndarray]:
    """Runs a kernel for every block. What it does not write is 0xA5 in each byte."""
    body = importlib.import_module("intnumerics.kernels.jax_triton.kernels")
    results = [np.full(a.size * a.dtype.itemsize, 0xA5, np.uint8).view(a.dtype) for a in outputs]
    pointers = [Pointer(np.array(array)) for array in inputs] + [Pointer(result) for result in results]
    with ONE_AT_A_TIME, np.errstate(all="ignore"), mock.patch("triton.runtime.interpreter._convert_float", convert):
        getattr(body, kernel)[(plan.examples * plan.blocks,)](*pointers, plan=plan)
    return results


def run(kernel: str, inputs: Sequence[Any], outputs: Sequence[Any], plan: jax_triton.Plan) -> list[jax.Array]:
    """What `run` does on a GPU."""
    return jax.pure_callback(functools.partial(interpret, kernel, plan, outputs), list(outputs), *inputs)


def operations() -> Any:
    """The module's operations, interpreted."""

    def interpreted(operation: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operation)
        def call(*arguments: Any) -> Any:
            with mock.patch.object(jax_triton, "run", run):
                return operation(*arguments)

        return call

    names = ("quantize", "clip_gradient_from_mask", "clip_gradient_from_x")
    return SimpleNamespace(**{name: interpreted(getattr(jax_triton, name)) for name in names})
