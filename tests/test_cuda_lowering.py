"""Every kernel for CUDA is lowered by the JAX that is installed, for a device that is described and not there."""

import functools
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from meshes import H100
from original import numerics

from intnumerics import PhiloxUniform, quantize, quantize_to_int
from intnumerics.kernels.gpu import pallas

from_0_11 = pytest.mark.skipif(jax.__version_info__ < pallas.FIRST_WITH_A_CHOICE, reason="before JAX 0.11 it is Triton")
before_0_11 = pytest.mark.skipif(jax.__version_info__ >= pallas.FIRST_WITH_A_CHOICE, reason="JAX has a choice")

NOISY = numerics(8, noise_fn=PhiloxUniform())


CALLS = {"pallas_triton": "__gpu$xla.gpu.triton", "pallas_mosaic_gpu": "@mosaic_gpu"}


def run(function: Any, *fields: Any, **more: Any) -> Any:
    return lambda x, **how: function(x, *fields, key=jax.random.key(0), **more, **how)


def gradient(residual: Any) -> Any:
    loss = lambda x, **how: run(quantize, NOISY, residual=residual)(x, **how).astype(jnp.float32).sum()  # noqa: E731
    return lambda x, **how: jax.value_and_grad(lambda x: loss(x, **how))(x)


KERNELS: dict[str, tuple[Any, int]] = {  # a function, and how many kernels it has
    "forward": (run(quantize, numerics(8)), 1),
    "forward, noise": (run(quantize, NOISY), 1),
    "to int8, noise": (run(quantize_to_int, NOISY), 1),
    "forward with mask, backward from it": (gradient("mask"), 2),
    "forward, backward from x": (gradient("x"), 2),
}


@pytest.mark.parametrize(("function", "kernels"), KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [pytest.param("pallas_triton", marks=pytest.mark.pallas_triton), "pallas_mosaic_gpu"])
def test_no_warning_of_jax_ends_what_lowers_a_kernel(name: str, dtype: str, function: Any, kernels: int) -> None:
    assert lowered(functools.partial(function, implementation=name), dtype).count(CALLS[name]) == kernels


def lowered(function: Any, dtype: str) -> str:
    """A program for an H100."""
    x = jax.ShapeDtypeStruct((64, 1024), dtype)
    with jax.sharding.use_abstract_mesh(H100):
        return jax.jit(function).trace(x).lower(lowering_platforms=("cuda",)).as_text()


# --- the choice between the two ---------------------------------------------------------------------------------------

PHILOX = KERNELS["to int8, noise"][0]


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a JAX that has removed what it deprecates."""
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    for name in [name for name in sys.modules if name.startswith("intnumerics.kernels.pallas_triton")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.pallas_triton
@pytest.mark.parametrize("implementation", ["pallas", None])
def test_pallas_for_cuda_is_triton_while_jax_has_it(implementation: Any) -> None:
    text = lowered(functools.partial(PHILOX, implementation=implementation), "bfloat16")
    assert {name: text.count(call) for name, call in CALLS.items()} == {"pallas_triton": 1, "pallas_mosaic_gpu": 0}


@from_0_11
@pytest.mark.usefixtures("without_triton")
@pytest.mark.parametrize("implementation", ["pallas", None])
def test_without_triton_pallas_for_cuda_is_mosaic_gpu_and_none_is_a_kernel_still(implementation: Any) -> None:
    text = lowered(functools.partial(PHILOX, implementation=implementation), "bfloat16")
    assert {name: text.count(call) for name, call in CALLS.items()} == {"pallas_triton": 0, "pallas_mosaic_gpu": 1}


@from_0_11
@pytest.mark.parametrize("missing", ["CompilerParams", "load", "store"])
def test_a_module_without_what_a_kernel_needs_counts_as_none(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in ("CompilerParams", "load", "store") if name != missing]
    module = types.SimpleNamespace(**dict.fromkeys(names))
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", module)
    assert pallas.compiler() == "pallas_mosaic_gpu"


@pytest.mark.usefixtures("without_triton")
def test_without_triton_its_name_says_what_to_use() -> None:
    with pytest.raises(
        ImportError, match=r"JAX \S+ does not have: use implementation='pallas_mosaic_gpu', or 'pallas'"
    ):
        lowered(functools.partial(PHILOX, implementation="pallas_triton"), "bfloat16")


@from_0_11
@pytest.mark.pallas_triton
def test_a_measurement_chooses_mosaic_gpu_on_the_device_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pallas, "MOSAIC_IS_FASTER", ("NVIDIA H100 80GB HBM3",))
    assert pallas.compiler() == "pallas_triton"
    with jax.sharding.use_abstract_mesh(H100):
        assert pallas.compiler() == "pallas_mosaic_gpu"


@before_0_11
@pytest.mark.usefixtures("without_triton")
def test_before_jax_0_11_it_is_always_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pallas, "MOSAIC_IS_FASTER", (None,))
    assert pallas.compiler() == "pallas_triton"


@before_0_11
def test_on_jax_0_10_the_package_that_mosaic_gpu_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "absl", None)
    for name in [name for name in sys.modules if name.startswith("intnumerics.kernels.pallas_mosaic_gpu")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"needs absl-py.*pip install absl-py, or use JAX 0\.11 or newer"):
        lowered(functools.partial(PHILOX, implementation="pallas_mosaic_gpu"), "bfloat16")
