"""Which compiler `implementation="pallas"` uses for CUDA: Pallas' Triton lowering, or Mosaic GPU."""

import importlib
from typing import Literal

import jax

from .tuning import device_kind

Compiler = Literal["pallas_triton", "pallas_mosaic_gpu"]

FIRST_WITH_A_CHOICE = (0, 11)  # before this JAX, which deprecated the Triton lowering, it is always Triton

# The devices, as JAX's `device_kind` names them, on which the kernels of Mosaic GPU were measured to be faster than
# those of Triton: `make gpu` compares the two, and says what to write here.
MOSAIC_IS_FASTER: tuple[str, ...] = ()


def has_triton() -> bool:
    """Whether this JAX has the Triton lowering, which JAX has deprecated."""
    try:
        module = importlib.import_module("jax.experimental.pallas.triton")
    except ImportError:
        return False
    return all(hasattr(module, name) for name in ("CompilerParams", "load", "store"))


def compiler() -> Compiler:
    """The implementation that `"pallas"` is on CUDA: that of Triton, unless JAX has removed it or Mosaic is faster."""
    if jax.__version_info__ < FIRST_WITH_A_CHOICE:
        return "pallas_triton"
    is_faster = bool(MOSAIC_IS_FASTER) and device_kind() in MOSAIC_IS_FASTER
    return "pallas_mosaic_gpu" if is_faster or not has_triton() else "pallas_triton"
