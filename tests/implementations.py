"""Every implementation, by its row of the table and where it runs, for tests that hold all of them to one promise."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import oracle
import pytest
import triton_interpreter
from oracle import assert_same_bits

from intnumerics import kernels
from intnumerics.kernels import QuantSpec
from intnumerics.kernels.gpu import pallas

# The rows of the table, but for the one that needs what JAX may have removed.
ROWS = [row for row in kernels.TABLE if row.name != "pallas_triton" or pallas.has_triton()]
OPERATIONS = (
    "quantize",
    "quantize_by_scale",
    "quantize_by_absmax",
    "clip_gradient_from_mask",
    "clip_gradient_from_x",
    "clip_gradient_by_scale",
)


@dataclasses.dataclass(frozen=True)
class Where:
    """A row of the table, and where it runs: on a device, where "cpu" interprets kernels; or compiled for an "h100".

    What is compiled for an "h100" runs on a CPU, in the interpreter of PTX.
    """

    name: str
    platform: str | None
    device: str

    @property
    def keeps_subnormal(self) -> bool:
        """Whether subnormal numbers keep their values, as they do on a GPU."""
        return self.device in ("gpu", "h100")

    def operations(self) -> Any:
        """The operations that the room has, as attributes."""
        if (self.name, self.device) == ("jax_triton", "cpu"):
            return triton_interpreter.operations()
        [row] = [row for row in ROWS if (row.name, row.platform) == (self.name, self.platform)]
        interpret = row.interpretable and self.device == "cpu"
        found = {name: row.operation(name, interpret) for name in OPERATIONS}
        return SimpleNamespace(**{name: operation for name, operation in found.items() if operation})

    def compiled(self, function: Callable[..., Any], *arrays: Any) -> Callable[..., Any]:
        """A function that returns NumPy arrays, for arguments like some arrays."""
        if self.device == "h100":
            from tools import ptx  # which needs the compilers

            return ptx.compile(function, *arrays)
        jitted, device = jax.jit(function), jax.devices(self.device)[0]

        def run(*arrays: Any) -> Any:
            with jax.default_device(device):
                return jax.tree.map(np.asarray, jitted(*arrays))

        return run

    def run(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """What a function returns for some arrays, compiled, as NumPy arrays."""
        return self.compiled(function, *arrays)(*arrays)


COMPILED = {  # for a device that is not there: an interpreter of PTX runs what the compiler made
    f"{name}'s compiled code": Where(name, "cuda", "h100")
    for name in ("xla", "pallas_triton", "pallas_mosaic_gpu", "jax_triton")
}
ON_CPU = {
    "reference": Where("reference", None, "cpu"),
    "xla": Where("xla", None, "cpu"),
    "pallas_triton": Where("pallas_triton", "cuda", "cpu"),
    "pallas_mosaic_gpu": Where("pallas_mosaic_gpu", "cuda", "cpu"),
    "pallas-tpu": Where("pallas", "tpu", "cpu"),
}
ON_DEVICE = {
    "reference on a GPU": Where("reference", None, "gpu"),
    "xla on a GPU": Where("xla", None, "gpu"),
    "pallas_triton on a GPU": Where("pallas_triton", "cuda", "gpu"),
    "pallas_mosaic_gpu on a GPU": Where("pallas_mosaic_gpu", "cuda", "gpu"),
    "jax_triton on a GPU": Where("jax_triton", "cuda", "gpu"),
    "reference on a TPU": Where("reference", None, "tpu"),
    "xla on a TPU": Where("xla", "tpu", "tpu"),
    "pallas on a TPU": Where("pallas", "tpu", "tpu"),
}


def marks(where: Where) -> list[pytest.MarkDecorator]:
    """What tests of an implementation need."""
    mark = {"cpu": None, "h100": "ptx"}.get(where.device, where.device)
    needed = [getattr(pytest.mark, mark)] if mark else []
    if where.name == "jax_triton":
        needed.append(pytest.mark.interpreted if where.device == "cpu" else pytest.mark.jax_triton)
    if where.name == "pallas_triton":
        needed.append(pytest.mark.pallas_triton)
    return needed


ON_CPU_HERE = {name: where for name, where in ON_CPU.items() if where.name != "pallas_triton" or pallas.has_triton()}
INTERPRETED = {"triton-gpu": Where("jax_triton", "cuda", "cpu")}
PARAMETERS = [
    pytest.param(where, id=name, marks=marks(where))
    for name, where in (ON_CPU | INTERPRETED | COMPILED | ON_DEVICE).items()
]
every_implementation = pytest.mark.parametrize("where", PARAMETERS)
# The plain forms of platforms, on a CPU.
FORMS = [pytest.param(Where("xla", platform, "cpu"), id=f"xla-{platform}") for platform in ("cpu", "tpu")]


def having(operation: str) -> pytest.MarkDecorator:
    """The implementations whose room has an operation; that of jax-triton, which may not be importable, has no other.

    Of the plain forms of platforms, that of a CPU finds the largest magnitude in a way of its own.
    """
    rooms = [row for row in ROWS if row.name != "jax_triton" and row.operation(operation)]
    names = {(row.name, row.platform) for row in rooms}
    found = [p for p in [FORMS[0], *PARAMETERS] if (p.values[0].name, p.values[0].platform) in names]  # pyright: ignore
    return pytest.mark.parametrize("where", found)


def differs_by_flushing(x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec) -> np.ndarray:
    """Where the result depends on whether a subnormal number counts as 0, which platforms decide."""
    as_zero = oracle.quantize(oracle.flushed(x), noise, spec), oracle.mask(oracle.flushed(x), spec)
    exact = oracle.quantize(x, noise, spec), oracle.mask(x, spec)
    with np.errstate(invalid="ignore"):
        return (as_zero[0] != exact[0]) & (exact[0] == exact[0]) | (as_zero[1] != exact[1])


def assert_is_formula(
    y: Any, x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec, keeps_subnormal: bool = False
) -> None:
    """Compares a result with the formula; where a platform may take a subnormal number as 0, only if it must not."""
    same = np.full(x.shape, True) if keeps_subnormal else ~differs_by_flushing(x, noise, spec)
    expected = oracle.quantize(x, noise, spec)
    if not spec.with_mask:
        assert_same_bits(y[same], expected[same])
        return
    assert_same_bits(y[0][same], expected[same])
    bits = np.unpackbits(y[1], axis=-1, bitorder="little", count=x.shape[-1]).astype(bool)
    assert_same_bits(bits[same], oracle.mask(x, spec)[same])
