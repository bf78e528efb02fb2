"""PyTorch's ways to quantize, as functions of its tensors: the formula, eager and by `torch.compile`, and its own.

PyTorch is imported when a function is asked for: it need not be installed.
"""

import functools
from collections.abc import Callable
from typing import Any

from bench import baselines
from bench.checks import close, other_draws, same_values, within_a_bucket
from bench.names import COMPILED, EAGER
from bench.variant import Variant

EAGERLY = f"PyTorch's formula{EAGER}"

Function = Callable[..., Any]


@functools.cache
def compiled(function: Function) -> Function:
    """`torch.compile`, for each shape anew; it raises where it would fall back to running operation by operation."""
    import torch

    config = torch._dynamo.config
    config.recompile_limit = config.accumulated_recompile_limit = 1 << 16  # after these it would no longer compile
    return torch.compile(function, dynamic=False, fullgraph=True)


def both_ways(function: Function, takes: tuple[str, ...], suffix: str = "", **fields: Any) -> dict[str, Variant]:
    """A function as it is, and compiled."""
    return {
        COMPILED + suffix: Variant(compiled(function), takes, "torch", **fields),
        EAGERLY.removesuffix(EAGER) + suffix + EAGER: Variant(function, takes, "torch", **fields),
    }


@functools.cache
def formula(result: str, noisy: bool) -> Function:
    """Noise if any, clip and round, to the dtype of x (`"same"`) or to int8."""
    import torch

    def quantize(x: Any) -> Any:
        y = (x + (torch.rand_like(x, dtype=torch.float32) - 0.5)).to(x.dtype) if noisy else x
        y = torch.round(torch.clamp(y, -baselines.BOUND, baselines.BOUND))
        return y.to(torch.int8) if result == "int8" else y

    return quantize


def forward(result: str, noisy: bool = False) -> dict[str, Variant]:
    """Quantizers."""
    suffix, agrees = (", rand_like", other_draws) if noisy else ("", same_values)
    found = both_ways(formula(result, noisy), ("x",), suffix, agrees=agrees)
    if not noisy and result == "same":
        found["PyTorch's fake_quantize_per_tensor_affine"] = Variant(_fake_quantize, ("x",), "torch")
    return found


def _fake_quantize(x: Any) -> Any:
    import torch

    return torch.fake_quantize_per_tensor_affine(x, 1.0, 0, int(-baselines.BOUND), int(baselines.BOUND))


def _backward(g: Any, x: Any) -> Any:
    return g * ((x >= -baselines.BOUND) & (x <= baselines.BOUND))


def backward() -> dict[str, Variant]:
    """The formula from x, and from the mask of a byte per element that PyTorch keeps."""
    import torch
    from torch.utils.weak import WeakTensorKeyDictionary

    kept = WeakTensorKeyDictionary()  # as long as x is there

    def fake_quantize_backward(g: Any, x: Any) -> Any:
        if x not in kept:  # the forward is not what is measured
            leaf = x.detach().requires_grad_()
            kept[x] = leaf, _fake_quantize(leaf)
        leaf, y = kept[x]
        return torch.autograd.grad(y, leaf, g, retain_graph=True)[0]

    # Its mask is of the rounded values, so that it keeps what is half a bucket beyond the bound too.
    theirs = Variant(fake_quantize_backward, ("g", "x"), "torch", close)
    return both_ways(_backward, ("g", "x")) | {"PyTorch's backward of fake_quantize_per_tensor_affine": theirs}


# --- chains -----------------------------------------------------------------------------------------------------------


def into_dot(scale: float, noisy: bool) -> dict[str, Variant]:
    """gelu, quantize to int8, and a product with int8 weights, summed in int32."""
    import torch

    quantize = formula("int8", noisy)

    def chain(activation: Any, w: Any) -> Any:
        q = quantize(torch.nn.functional.gelu(activation, approximate="tanh") * scale)
        return torch._int_mm(q.reshape(-1, q.shape[-1]), w).reshape(*q.shape[:-1], w.shape[-1])

    return both_ways(chain, ("activation", "w"), ", rand_like" if noisy else "", agrees=close)


def after_norm(scale: float, noisy: bool) -> dict[str, Variant]:
    """A layer norm without parameters, and quantize to int8."""
    import torch

    quantize = formula("int8", noisy)

    def chain(activation: Any) -> Any:
        wide = activation.to(torch.float32)
        norm = torch.nn.functional.layer_norm(wide, wide.shape[-1:], eps=1e-6)
        return quantize((norm * scale).to(activation.dtype))

    agrees = other_draws if noisy else within_a_bucket
    return both_ways(chain, ("activation",), ", rand_like" if noisy else "", agrees=agrees)
