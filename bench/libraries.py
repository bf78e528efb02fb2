"""Other packages that quantize, as baselines if they are installed: AQT, Qwix, and on a GPU PyTorch.

PyTorch's functions are the formula under `torch.compile`, and for rows also without it. A package is imported when it
is first measured.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bench import baselines
from bench.names import COMPILED, IN_PYTORCH
from bench.variant import Function, Variant, near, other_draws, other_scales, same_values, within_a_bucket

# How to install each, and what is imported; `torch._dynamo` may fail where `torch` does not.
PACKAGES = {"AQT": ("aqtp", "aqt"), "Qwix": ("qwix", "qwix"), "PyTorch": ("torch", "torch", "torch._dynamo")}

torch_on = ["gpu"]  # the platforms, as JAX names its devices', where PyTorch is measured; a rehearsal adds "cpu"

Named = Iterator[tuple[str, Variant]]


@functools.cache
def _absent(package: str) -> str:
    """Why a package is not measured, or nothing."""
    if package == "PyTorch" and jax.devices()[0].platform not in torch_on:
        return "measured on a GPU only"
    name, *modules = PACKAGES[package]
    if importlib.util.find_spec(modules[0]) is None:
        return f"not installed (pip install {name})"
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:  # whatever its own import raises
        return f"its import failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def missing() -> list[str]:
    """What is not measured here, and why: a line each."""
    return [f"{name}: {why}" for name in PACKAGES if (why := _absent(name))]


def forward(result: str, noisy: bool) -> dict[str, Variant]:
    """Quantizers to the dtype of x (`"same"`) or to int8, with noise or without."""
    return _of_packages({"AQT": _aqt, "Qwix": _qwix, "PyTorch": _torch}, result, noisy)


def by_rows(noisy: bool) -> dict[str, Variant]:
    """Quantizers to int8 and one scale per row, with noise or without."""
    return _of_packages({"AQT": _aqt_rows, "Qwix": _qwix_rows, "PyTorch": _torch_rows}, noisy)


def _of_packages(made: dict[str, Callable[..., Named]], *arguments: Any) -> dict[str, Variant]:
    """What functions make for the packages that are there."""
    return {name: one for package in made if not _absent(package) for name, one in made[package](*arguments)}


def backward() -> dict[str, Variant]:
    """Backwards, which keep x."""
    found: dict[str, Variant] = {}
    if not _absent("AQT"):
        numerics = _aqt_numerics("same")
        found["AQT's IntSymmetric"] = Variant(lambda g, x: numerics.vjp_bwd((x,), g)[0], ("g", "x"))
    if not _absent("PyTorch"):
        inside = lambda g, x: g * ((x >= -baselines.BOUND) & (x <= baselines.BOUND))  # noqa: E731
        found[COMPILED] = _compiled(inside, ("g", "x"))
    return found


def _aqt_numerics(result: str, noise_fn: Any = None) -> Any:
    from aqt.jax.v2.numerics import int_numerics

    flags = dict.fromkeys(("preserve_zero", "preserve_max_val", "clip", "clip_gradient", "round"), True)
    dtype = jnp.int8 if result == "int8" else None
    return int_numerics.IntSymmetric(bits=8, **flags, noise_fn=noise_fn, dtype=dtype)


def _aqt(result: str, noisy: bool) -> Named:
    from aqt.jax.v2 import stochastic_rounding, utils

    def run(numerics: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return numerics.vjp_fwd(x, utils.Context(key=key, train_step=None))[0]

    if not noisy:
        yield "AQT's IntSymmetric", Variant(functools.partial(run, _aqt_numerics(result)), ("x",))
    for name in ("JaxUniform", "RandomCenteredUniform") if noisy else ():
        function = functools.partial(run, _aqt_numerics(result, getattr(stochastic_rounding, name)()))
        yield f"AQT's IntSymmetric, {name}", Variant(function, ("x", "key"), agrees=other_draws)


def _aqt_rows(noisy: bool) -> Named:
    from aqt.jax.v2 import aqt_quantizer, calibration, stochastic_rounding, utils

    def run(noise_fn: Any, x: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        quantizer = aqt_quantizer.Quantizer(
            numerics=_aqt_numerics("int8", noise_fn),
            calib_shared_axes=None,
            scale_stop_grad=True,
            calibration=calibration.AbsMaxCalibration,
            context=utils.Context(key=key, train_step=None),
        )
        quantizer.init_calibration()
        quantized, _ = quantizer.quant(x, calibration_axes=(x.ndim - 1,))
        return quantized.qvalue, quantized.scale[0]

    if not noisy:
        yield "AQT's Quantizer", _by_rows(functools.partial(run, None))
    for name in ("JaxUniform", "RandomCenteredUniform") if noisy else ():
        function = functools.partial(run, getattr(stochastic_rounding, name)())
        yield f"AQT's Quantizer, {name}", _by_rows(function, "key")


def _by_rows(function: Function, *noise: str, kind: Any = "jit") -> Variant:
    return Variant(function, ("x", *noise), kind, agrees=other_scales, scales_agree=near)


def _qwix(result: str, noisy: bool) -> Named:
    from qwix._src.core import numerics, stochastic_rounding

    if result != "int8":
        return

    def convert(draw: Function, x: jax.Array, key: jax.Array) -> jax.Array:
        return numerics.convert_to(x, jnp.int8, functools.partial(draw, key))

    if not noisy:  # its lowest value is -128
        yield "Qwix's convert_to", Variant(lambda x: numerics.convert_to(x, jnp.int8), ("x",), agrees=within_a_bucket)
    for name in ("uniform_noise", "low_bit_uniform_noise") if noisy else ():
        function = functools.partial(convert, getattr(stochastic_rounding, name))
        yield f"Qwix's convert_to, {name}", Variant(function, ("x", "key"), agrees=other_draws)


def _qwix_rows(noisy: bool) -> Named:
    from qwix._src.core import qarray, stochastic_rounding

    def run(noise: Function | None, x: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        how = qarray.HowToQuantize(
            qtype=jnp.int8,
            channelwise_axes=tuple(range(x.ndim - 1)),
            noise_fn=functools.partial(noise, key) if noise else None,
        )
        quantized = qarray.quantize(x, how)
        return quantized.qvalue, quantized.scale

    if not noisy:
        yield "Qwix's quantize", _by_rows(functools.partial(run, None))
    for name in ("uniform_noise", "low_bit_uniform_noise") if noisy else ():
        function = functools.partial(run, getattr(stochastic_rounding, name))
        yield f"Qwix's quantize, {name}", _by_rows(function, "key")


def _torch(result: str, noisy: bool) -> Named:
    import torch

    def quantize(x: Any) -> Any:
        y = (x + (torch.rand_like(x, dtype=torch.float32) - 0.5)).to(x.dtype) if noisy else x
        y = torch.round(torch.clamp(y, -baselines.BOUND, baselines.BOUND))
        return y.to(torch.int8) if result == "int8" else y

    yield COMPILED + ", rand_like" * noisy, _compiled(quantize, ("x",), other_draws if noisy else same_values)


def _torch_rows(noisy: bool) -> Named:
    import torch

    def quantize(x: Any) -> tuple[Any, Any]:
        wide = x.float()
        scale = wide.abs().amax(-1, keepdim=True) / baselines.BOUND
        y = wide / scale + (torch.rand_like(wide) - 0.5) if noisy else wide / scale
        return torch.clamp(torch.round(y), -baselines.BOUND, baselines.BOUND).to(torch.int8), scale

    drawn = ", rand_like" * noisy
    yield COMPILED + drawn, _by_rows(_compile(quantize), kind="torch")
    yield IN_PYTORCH + drawn, _by_rows(quantize, kind="torch")


def _compiled(function: Function, takes: tuple[str, ...], agrees: Function = same_values) -> Variant:
    return Variant(_compile(function), takes, "torch", agrees)


def _compile(function: Function) -> Function:
    """`torch.compile`, for each shape anew; it raises where it would fall back to running operation by operation."""
    import torch

    config = torch._dynamo.config
    config.recompile_limit = config.accumulated_recompile_limit = 1 << 16  # after these it would no longer compile
    return torch.compile(function, dynamic=False, fullgraph=True)
