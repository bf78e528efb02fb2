"""Other packages that quantize, as baselines where they are installed: AQT, Qwix, and on a GPU PyTorch."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench import torch_baselines
from bench.checks import other_draws, within_a_bucket
from bench.variant import Variant

PACKAGES = {"AQT": "aqt", "Qwix": "qwix", "PyTorch": "torch"}
PARTS = {"PyTorch": ("torch._dynamo",)}  # that are imported later, and may fail by themselves
INSTALL = {"AQT": "pip install aqtp", "Qwix": "pip install qwix", "PyTorch": "pip install torch"}


_left_out: dict[str, str] = {}  # packages that are not measured in this process, and why
torch_on = ["gpu"]  # the platforms, as JAX names its devices', where PyTorch is measured; a rehearsal adds "cpu"


def has(package: str) -> bool:
    """Whether a package can be measured here."""
    return not _absent(package)


def leave_out(package: str, why: str) -> None:
    """Measures a package no more, in this process."""
    _left_out[package] = why
    print(f"{package}: {why}", flush=True)


@functools.cache
def _broken(package: str) -> str:
    """Why a package that is installed cannot be imported, or nothing."""
    try:
        for name in (PACKAGES[package], *PARTS.get(package, ())):
            importlib.import_module(name)
    except Exception as error:  # whatever its own import raises
        return f"its import failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def _absent(package: str) -> str:
    """Why a package is not measured, or nothing."""
    if package in _left_out:
        return _left_out[package]
    if package == "PyTorch" and jax.devices()[0].platform not in torch_on:
        return "measured on a GPU alone"
    if importlib.util.find_spec(PACKAGES[package]) is None:
        return f"not installed ({INSTALL[package]})"
    return _broken(package)


def missing() -> list[str]:
    """What is not measured here, and why: a line each."""
    return [f"{name}: {_absent(name) or 'left out'}" for name in PACKAGES if not has(name)]


def plain(result: str) -> dict[str, Variant]:
    """Quantizers without noise, to the dtype of x (`"same"`) or to int8."""
    found: dict[str, Variant] = {}
    if has("AQT"):
        found["AQT's IntSymmetric"] = Variant(_aqt(result), ("x",))
    if has("Qwix") and result == "int8":
        from qwix._src.core import numerics

        convert = lambda x: numerics.convert_to(x, jnp.int8)  # noqa: E731
        found["Qwix's convert_to"] = Variant(convert, ("x",), agrees=within_a_bucket)  # its lowest value is -128
    if has("PyTorch"):
        found |= torch_baselines.forward(result)
    return found


def noisy(result: str) -> dict[str, Variant]:
    """Quantizers with noise."""
    found: dict[str, Variant] = {}
    if has("AQT"):
        from aqt.jax.v2 import stochastic_rounding

        for name in ("JaxUniform", "RandomCenteredUniform"):
            function = _aqt(result, getattr(stochastic_rounding, name)())
            found[f"AQT's IntSymmetric, {name}"] = Variant(function, ("x", "key"), agrees=other_draws)
    if has("Qwix") and result == "int8":
        from qwix._src.core import numerics, stochastic_rounding

        for name in ("uniform_noise", "low_bit_uniform_noise"):

            def convert(draw: Callable[..., jax.Array], x: jax.Array, key: jax.Array) -> jax.Array:
                return numerics.convert_to(x, jnp.int8, functools.partial(draw, key))

            function = functools.partial(convert, getattr(stochastic_rounding, name))
            found[f"Qwix's convert_to, {name}"] = Variant(function, ("x", "key"), agrees=other_draws)
    if has("PyTorch"):
        found |= torch_baselines.forward(result, noisy=True)
    return found


def backward() -> dict[str, Variant]:
    """Backwards, which keep x."""
    found: dict[str, Variant] = {}
    if has("AQT"):
        numerics = _aqt_numerics("same")
        found["AQT's IntSymmetric"] = Variant(lambda g, x: numerics.vjp_bwd((x,), g)[0], ("g", "x"))
    if has("PyTorch"):
        found |= torch_baselines.backward()
    return found


def chained(name: str, scale: float, noisy: bool) -> dict[str, Variant]:
    """Chains, by the name of ours."""
    if not has("PyTorch"):
        return {}
    make = torch_baselines.into_dot if name.startswith("gelu") else torch_baselines.after_norm
    return make(scale, noisy)


# --- AQT --------------------------------------------------------------------------------------------------------------


def _aqt_numerics(result: str, noise_fn: Any = None) -> Any:
    from aqt.jax.v2.numerics import int_numerics

    return int_numerics.IntSymmetric(
        bits=8,
        preserve_zero=True,
        preserve_max_val=True,
        clip=True,
        clip_gradient=True,
        round=True,
        noise_fn=noise_fn,
        dtype=jnp.int8 if result == "int8" else None,
    )


def _aqt(result: str, noise_fn: Any = None) -> Callable[..., jax.Array]:
    from aqt.jax.v2 import utils

    numerics = _aqt_numerics(result, noise_fn)
    return lambda x, key=None: numerics.vjp_fwd(x, utils.Context(key=key, train_step=None))[0]
