"""The public functions, with their gradients."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.typing import DTypeLike

from . import _checks, _dispatch, _eager, _operations
from ._dispatch import Choice
from ._global_position import part_of
from ._integer_dtypes import integer_dtype, written_as
from ._quantization import Derivative
from ._reverse_mode_only import reverse_only
from .int_numerics import IntNumerics, check_numerics, is_eager
from .kernels import Interpreted, Name, QuantSpec
from .kernels.spec import wider

# What a checkpoint policy can save by name: `jax.checkpoint_policies.save_only_these_names(MASK, VALUES)`.
VALUES = "intnumerics_values"  # the result of a quantization
MASK = "intnumerics_mask"  # its clip mask, one bit per element


_HASHABLE = (np.dtype, type, str, type(None))  # what a dtype may be written as, of what can be hashed


@dataclasses.dataclass(frozen=True)
class _Straight:
    """The static arguments of `_straight_through`."""

    spec: QuantSpec
    residual: Literal["mask", "x"] | None  # what the backward needs; None if the gradient is not clipped
    choice: Choice

    @property
    def derivative(self) -> Derivative:
        return "straight" if self.residual is None else "clipped"


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _straight_through(how: _Straight, x: jax.Array, noise: jax.Array | None) -> jax.Array:
    return _operations.quantize(x, noise, how.spec, how.choice, how.derivative)


def _forward(how: _Straight, x: jax.Array, noise: jax.Array | None) -> tuple[jax.Array, Any]:
    """The result, and what the backward needs. Second derivatives differentiate it, and go straight through too."""
    if how.residual == "mask":
        y, packed = _operations.quantize_with_mask(x, noise, how.spec, how.choice, how.derivative)
        return checkpoint_name(y, VALUES), checkpoint_name(packed, MASK)
    y = _operations.quantize(x, noise, how.spec, how.choice, how.derivative)
    return checkpoint_name(y, VALUES), x if how.residual == "x" else None


def _backward(how: _Straight, kept: Any, g: jax.Array) -> tuple[jax.Array, None]:
    g = jnp.asarray(g)  # which is a number where `jax.vjp` is given one
    if how.residual == "mask":
        g = _operations.clip_gradient_from_mask(g, kept, how.choice)
    elif how.residual == "x":
        g = _operations.clip_gradient_from_x(g, kept, how.spec, how.choice)
    return g, None


_straight_through.defvjp(_forward, _backward)


def quantize(
    x: jax.Array,
    numerics: IntNumerics,
    *,
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
        x: float32, bfloat16, float16 or (under x64) float64 of any shape, in buckets: divide it by its
            `absmax_scale` first. NaN stays NaN, and infinities clip. Without x64 a NumPy array of float64 is taken as
            float32, as JAX does everywhere.
        numerics: What to round to.
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
        ValueError: A noise function without a key, noise that does not broadcast to x, a part that is not within the
            whole, or an implementation that is unknown, does not take the dtype or does not run on the platform.
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
    x = _checked(x, numerics, choice)
    part = part_of(offset, global_shape, x.shape)
    if part is None and is_eager(numerics, x, key):
        key = None if numerics.noise_fn is None else _checks.key(key)
        return _eager.quantize(x, key, numerics, None, choice)
    noise, spec = numerics.noise_and_spec(x, key, part)
    _check_noise(noise, spec, choice)
    if not isinstance(x, Tracer) and not isinstance(noise, Tracer):  # and nothing is differentiated
        return _operations.quantize(x, noise, spec, choice)
    if noise is not None:
        x, noise = _operations.of_one_type(x, noise, spec)
    how = _Straight(spec, residual if numerics.clip_gradient else None, choice)
    return _straight_through(how, reverse_only(x), noise)


def quantize_to_int(
    x: jax.Array,
    numerics: IntNumerics,
    *,
    key: jax.Array | None = None,
    offset: Sequence[int | jax.Array] | None = None,
    global_shape: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    implementation: Name | None = None,
    interpret: Interpreted | None = None,
) -> jax.Array:
    """Quantizes x to integers in the same single pass; `from_int` is the inverse.

    The integer is the rounded value, or with `preserve_zero=False` the bucket number `floor(x)`, whose centre is half a
    bucket above it. NaN gives 0. Not differentiable: the result is integers.

    Args:
        x: As in `quantize`.
        numerics: What to round to; it must clip and round.
        key: As in `quantize`.
        offset: As in `quantize`.
        global_shape: As in `quantize`.
        dtype: int2, int4, int8, int16 or int32, if it holds every bucket; or None for the smallest that does from int8
            on. For int2 and int4 the pass writes int8, which XLA narrows.
        implementation: As in `quantize`.
        interpret: As in `quantize`.

    Returns:
        Integers of the shape of x.

    Raises:
        TypeError: As in `quantize`.
        ValueError: As in `quantize`; or numerics does not clip or does not round, or dtype is too small.

    Example:
        >>> import jax.numpy as jnp
        >>> binary = IntNumerics.symmetric(1)
        >>> q = quantize_to_int(jnp.array([-0.3, 0.1, 7.0]), binary)
        >>> q
        Array([-1,  0,  0], dtype=int8)
        >>> from_int(q, binary, jnp.float32)
        Array([-0.5,  0.5,  0.5], dtype=float32)
    """
    choice = Choice(implementation, interpret)
    x = _checked(x, numerics, choice)
    part = part_of(offset, global_shape, x.shape)
    can_be_hashed = isinstance(dtype, _HASHABLE)
    if part is None and can_be_hashed and is_eager(numerics, x, key):
        key = None if numerics.noise_fn is None else _checks.key(key)
        return _eager.quantize(x, key, numerics, _kept_integers(numerics, x.dtype, dtype), choice)
    noise, spec = numerics.noise_and_spec(x, key, part)
    _check_noise(noise, spec, choice)
    integers = _integers(numerics, x.dtype, dtype)
    spec = dataclasses.replace(spec, integer_dtype=written_as(integers))
    return checkpoint_name(_operations.quantize(x, noise, spec, choice).astype(integers), VALUES)


def _integers(numerics: IntNumerics, of_x: np.dtype, dtype: DTypeLike | None) -> np.dtype:
    """The dtype of the integers that an x of a dtype is quantized to."""
    for name in ("clip", "round"):
        if not getattr(numerics, name):
            raise ValueError(
                f"numerics.{name}=False, and integers hold only values that were clipped and rounded: "
                f"use numerics.replace({name}=True), or quantize() for floats"
            )
    bound = numerics.spec().bound_in(of_x)
    lowest = -bound if numerics.preserve_zero else np.floor(-bound)
    highest = bound if numerics.preserve_zero else np.floor(bound)
    return integer_dtype(dtype, float(lowest), float(highest))


_kept_integers = functools.lru_cache(1024)(_integers)  # for numerics of the package's own class, which do not change


def from_int(q: jax.Array, numerics: IntNumerics, dtype: DTypeLike) -> jax.Array:
    """The values that `quantize_to_int` made integers of.

    Args:
        q: Integers of any shape and dtype.
        numerics: What they were rounded with.
        dtype: A float dtype for the result.

    Returns:
        What `quantize` returns in `dtype` for the same input, bit for bit, except that -0.0 and NaN became 0.

    Raises:
        TypeError: q is not made of integers, or dtype is not a float dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> int8 = IntNumerics.symmetric(8)
        >>> from_int(jnp.array([-127, 3], jnp.int8), int8, jnp.bfloat16)
        Array([-127, 3], dtype=bfloat16)
    """
    check_numerics(numerics, q)
    q = _checks.integers("q", q)
    return _centres(q, 0.0 if numerics.preserve_zero else 0.5, _checks.float_dtype("dtype", dtype))


@functools.partial(jax.jit, static_argnums=(1, 2))  # so that 0.5 is part of a program, and not sent to the device
def _centres(q: jax.Array, offset: float, dtype: np.dtype) -> jax.Array:
    values = q.astype(wider(dtype, np.dtype(np.float32)))
    return (values + jnp.asarray(offset, values.dtype) if offset else values).astype(dtype)


def _checked(x: Any, numerics: Any, choice: Choice) -> jax.Array:
    """x as an array, after a check of the arguments that the public functions share."""
    check_numerics(numerics, x)
    x = _checks.floats("x", x)
    _dispatch.check(choice, x.dtype)
    return x


def _check_noise(noise: jax.Array | None, spec: QuantSpec, choice: Choice) -> None:
    if noise is not None and spec.draw is None:
        _dispatch.check(choice, noise.dtype)
