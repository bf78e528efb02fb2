"""The public functions, with their gradients."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer

from . import _checks, _eager, _operations
from ._arguments import Scale, check_noise, checked
from ._calibration import resolved
from ._dispatch import Choice
from ._global_position import part_of
from ._quantization import Derivative
from ._reverse_mode_only import reverse_only
from ._scaled_pass import Slices, scaled_pass, wide_type
from .int_numerics import IntNumerics, is_eager
from .kernels import Interpreted, Name, QuantSpec

# What a checkpoint policy can save by name: `jax.checkpoint_policies.save_only_these_names(MASK, VALUES)`.
VALUES = "intnumerics_values"  # the result of a quantization
MASK = "intnumerics_mask"  # its clip mask, one bit per element


@dataclasses.dataclass(frozen=True)
class _Straight:
    """The static arguments of `_straight_through`."""

    spec: QuantSpec
    residual: Literal["mask", "x"] | None  # what the backward needs; None if the gradient is not clipped
    choice: Choice
    slices: Slices | None = None  # whose maxima give the scales, in one read

    @property
    def derivative(self) -> Derivative:
        return "straight" if self.residual is None else "clipped"


def _quantized(how: _Straight, x: jax.Array, noise: jax.Array | None, scale: jax.Array | None) -> jax.Array:
    """The result, whatever the backward needs."""
    if how.slices is not None:
        return scaled_pass(x, noise, how.spec, None, how.slices, choice=how.choice)[0]
    return _operations.quantize(x, noise, how.spec, how.choice, how.derivative, scale)


_straight_through = jax.custom_vjp(_quantized, nondiff_argnums=(0,))


def _forward(
    how: _Straight, x: jax.Array, noise: jax.Array | None, scale: jax.Array | None
) -> tuple[jax.Array, tuple[Any, jax.Array | None]]:
    """The result, and what the backward needs. Second derivatives differentiate it, and go straight through too."""
    if how.residual is not None and how.slices is not None:  # the backward needs the scales of clipped elements
        how, scale = dataclasses.replace(how, slices=None), how.slices.scale(x)
    if how.residual != "mask":
        y = _quantized(how, x, noise, scale)
        return checkpoint_name(y, VALUES), (x, scale) if how.residual == "x" else (None, None)
    y, packed = _operations.quantize_with_mask(x, noise, how.spec, how.choice, how.derivative, scale)
    return checkpoint_name(y, VALUES), (checkpoint_name(packed, MASK), None)


def _backward(how: _Straight, kept: tuple[Any, jax.Array | None], g: jax.Array) -> tuple[jax.Array, None, None]:
    g = jnp.asarray(g)  # which is a number where `jax.vjp` is given one
    mask_or_x, scale = kept
    if how.residual == "mask":
        g = _operations.clip_gradient_from_mask(g, mask_or_x, how.choice)
    elif how.residual == "x":
        g = _operations.clip_gradient_from_x(g, mask_or_x, how.spec, how.choice, scale)
    return g, None, None


_straight_through.defvjp(_forward, _backward)


def quantize(
    x: jax.Array,
    numerics: IntNumerics,
    *,
    scale: Scale | None = None,
    key: jax.Array | None = None,
    offset: Sequence[int | jax.Array] | None = None,
    global_shape: Sequence[int] | None = None,
    residual: Literal["mask", "x"] = "mask",
    implementation: Name | None = None,
    interpret: Interpreted | None = None,
) -> jax.Array:
    """Quantizes x in one pass; the gradient goes straight through, times the clip mask.

    The backward is `where(|x| <= bound, g, 0)` with `numerics.clip_gradient`, on the x before the noise, and keeps one
    bit per element from the forward; without it, it is g, and nothing is kept. For the policies of `jax.checkpoint` the
    result has the name `intnumerics.VALUES`, and the mask `intnumerics.MASK`.

    Args:
        x: float32, bfloat16, float16 or (under x64) float64 of any shape: in buckets, or with `scale` in any units.
            NaN stays NaN, and infinities clip. Without x64 a NumPy array of float64 is taken as float32, as JAX does
            everywhere.
        numerics: What to round to.
        scale: The size of a bucket in the units of x: a number, or an array of floats that broadcasts to x, or whose
            last axis has the number of blocks of 16, 32, 64, 128 or 256 elements of the last axis of x. Or what scales
            are made of: `AbsMax(axis=-1)` for the largest magnitude of each row, `Fixed(bound)`. Then x is divided by
            its scale, and the result multiplied by it, in float32 whatever the dtype of x is, in the same pass. The
            clip mask is that of x in buckets. No gradient goes through a scale.
        key: A key for `numerics.noise_fn`, typed (`jax.random.key`) or legacy uint32; without a noise function it is
            not looked at. One key gives two arrays of equal size the same noise: `jax.random.split` it.
        offset: The index at which x begins in a larger array of `global_shape`: an integer for each axis, which may be
            traced. The noise of x is then that of the larger array. Use it for a shard inside `jax.shard_map`, as in
            `offset=(jax.lax.axis_index("rows") * x.shape[0], 0)`. Under `jit` alone a sharded array needs no offset.
        global_shape: The shape of that array, or None if x is not part of one.
        residual: What the forward keeps for the backward with `numerics.clip_gradient`: `"mask"`, one bit per element,
            or `"x"`, which costs no memory where x is kept for something else anyway, and no packing.
        implementation: `"reference"`, `"xla"`, `"pallas"`, `"pallas_triton"`, `"pallas_mosaic_gpu"` or
            `"jax_triton"`, or None for the fastest known on the platform that the function is compiled for. A named
            implementation runs or raises. For CUDA `"pallas"` is one of the two whose names begin so.
        interpret: `"cuda"` or `"tpu"` runs that platform's kernel in Pallas' interpret mode on a CPU, slowly, for
            tests; needs `implementation="pallas"`, or for `"cuda"` one of those two.

    Returns:
        The quantized values, in the shape and dtype of x.

    Raises:
        TypeError: x is not made of floats, numerics is not an IntNumerics, or the key is not a key. Or the derivative
            is asked for in forward mode, as by `jax.jvp`, or is called, where `jax.linearize` made it: only
            `numerics.fwd` has one.
        ValueError: A noise function without a key, noise or a scale that does not broadcast to x, a part that is not
            within the whole, or an implementation that is unknown, does not take the dtype or does not run on the
            platform.
        ImportError: `implementation="jax_triton"` without jax-triton, or with versions that do not work together.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> int4 = IntNumerics.symmetric(4, clip_gradient=True)
        >>> x = jnp.array([-9.0, 0.2, 3.7])
        >>> quantize(x, int4)
        Array([-7.,  0.,  4.], dtype=float32)
        >>> jax.grad(lambda x: quantize(x, int4).sum())(x)
        Array([0., 1., 1.], dtype=float32)
    """
    _checks.residual(residual)
    choice = Choice(implementation, interpret)
    x = checked(x, numerics, choice)
    scale, slices = resolved(scale, x, numerics)
    part = part_of(offset, global_shape, x.shape)
    if part is None and is_eager(numerics, x, key) and not isinstance(scale, Tracer):
        key = None if numerics.noise_fn is None else _checks.key(key)
        if scale is None and slices is None:
            return _eager.quantize(x, key, numerics, None, choice)
        return _eager.quantize_scaled(x, scale, key, numerics, slices, None, choice)[0]
    is_scaled = scale is not None or slices is not None
    noise, spec = numerics.noise_and_spec(wide_type(x) if is_scaled else x, key, part)
    check_noise(noise, spec, choice)
    clips = numerics.clip_gradient and not (slices is not None and slices.how.fraction == 1)
    if slices is not None and not slices.in_one_read(x.ndim):
        scale, slices = slices.scale(x), None
    if not any(isinstance(array, Tracer) for array in (x, noise, scale)):  # and nothing is differentiated
        return _quantized(_Straight(spec, None, choice, slices), x, noise, scale)
    x, noise, scale = _operations.of_one_type(x, noise, scale, spec)
    how = _Straight(spec, residual if clips else None, choice, slices)
    return _straight_through(how, reverse_only(x), noise, scale)
