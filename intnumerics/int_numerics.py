"""Numerics for int8, int4, binary and other integer types."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from . import _checks, _eager, _noise_functions, _operations
from ._error_values import shown
from ._field_errors import explains_missing_fields
from ._global_position import Part
from ._noise_of import noise_of
from ._static_pytrees import make_known
from .kernels import QuantSpec
from .numerics import QNumerics
from .stochastic_rounding import NOISE_CLASSES, NoiseFn

_T = TypeVar("_T")
_OWN_NOISE = (type(None), *NOISE_CLASSES)
_SWITCHES = ("preserve_zero", "preserve_max_val", "clip", "clip_gradient", "round")


def _empty(cls: type[_T]) -> _T:
    """An object without fields, which a pickled one has beside it."""
    make_known(cls)
    return object.__new__(cls)


@jax.tree_util.register_static
@explains_missing_fields
@dataclasses.dataclass(frozen=True)
class IntNumerics(QNumerics):
    """Rounds to a grid of integer buckets: a drop-in for `IntNumerics` of FJFormer and AQT.

    The forward adds noise (if any), clips and rounds; the backward multiplies the gradient by the clip mask. Values are
    in buckets: divide x by its `absmax_scale` first. `symmetric` makes the usual numerics of some bits.

    Frozen, hashable, and a pytree without leaves, so it goes through `jit`, `vmap` and `scan` as a static value. So
    does an object of a subclass, unless the subclass is registered as another kind of pytree. Flax serializes a state
    that holds numerics if they are made, or used, after Flax was imported.

    Attributes:
        bits: Number of bits, a whole number from 1 to 22 (float32 has no more precision). 8.0 and `np.int64(8)` are
            whole. 7.5 raises; FJFormer's class makes a grid up to 90 of it, the only difference in results.
        preserve_zero: Whether 0 stays 0: an odd number of buckets, and rounding to nearest, ties to even. Otherwise
            an even number, with centres at halves: `floor(x) + 0.5`. At 1 bit True leaves one bucket: all becomes 0.
        preserve_max_val: Whether the largest magnitude is mapped onto the centre of the last bucket, or onto its edge.
        clip: Whether values beyond the last bucket are brought back to it.
        clip_gradient: Whether the gradient is zero where x is beyond the last bucket.
        round: Whether to round.
        noise_fn: Draws noise that is added first, or None: `PhiloxUniform()`, another noise class of the package, or
            any function of (shape, key), as `stochastic_rounding.NoiseFn` describes.
        dtype: What `get_dtype()` returns, for callers that store the result; results keep the dtype of x.
        noise_dtype: None adds noise and rounds in the dtype of x, as the source does: with bfloat16 the sum is
            rounded to 8 bits of precision first, which makes stochastic rounding **biased** (100.5 becomes 100.25 on
            average). `jnp.float32` does noise, clip and rounding in float32 and casts once at the end: unbiased.

    Raises:
        ValueError: bits is below 1, above 22 or not whole, or noise_dtype is neither None nor float32.
        TypeError: bits is not a number, a switch is not a bool, either is traced, or noise_fn is not callable.

    Source: `fjformer/bits/int_numerics.py`, itself `aqt/jax/v2/numerics/int_numerics.py`.

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics import Context
        >>> int8 = IntNumerics.symmetric(8)
        >>> int8.fwd(jnp.array([0.4, 2.5, 300.0]), Context())
        Array([  0.,   2., 127.], dtype=float32)
    """

    bits: int
    preserve_zero: bool
    preserve_max_val: bool
    clip: bool
    clip_gradient: bool
    round: bool
    noise_fn: NoiseFn | None
    dtype: DTypeLike | None = None
    _: dataclasses.KW_ONLY
    noise_dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        make_known(type(self))
        checked = {name: _checks.switch(name, getattr(self, name)) for name in _SWITCHES}
        checked |= {"bits": _checks.bits(self.bits), "noise_fn": _noise_functions.checked(self.noise_fn)}
        checked["noise_dtype"] = _checks.noise_dtype(self.noise_dtype)
        for name, value in checked.items():
            if value is not getattr(self, name):
                object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """As any object is pickled; whoever reads it may have made none of its class."""
        return _empty, (type(self),), self.__getstate__()

    @classmethod
    def symmetric(
        cls,
        bits: int,
        *,
        preserve_zero: bool | None = None,
        preserve_max_val: bool = False,
        clip: bool = True,
        clip_gradient: bool = False,
        round: bool = True,
        noise_fn: NoiseFn | None = None,
        dtype: DTypeLike | None = None,
        noise_dtype: DTypeLike | None = None,
    ) -> "IntNumerics":
        """The usual numerics of `bits` bits, with AQT's defaults; every field can be given.

        The arguments are the fields. `preserve_zero=None` is True, but False at 1 bit, where every value would be 0.
        With an `absmax_scale` nothing is beyond the edge of the last bucket, so `clip_gradient` can stay False.

        Source: `int_numerics.IntSymmetric` as `aqt/jax/v2/config.py` makes it.

        Example:
            >>> int8 = IntNumerics.symmetric(8)
            >>> int8.preserve_zero, int8.abs_val_mapped_to()
            (True, 127.5)
            >>> IntNumerics.symmetric(1).preserve_zero
            False
        """
        zero = bool(_checks.bits(bits) != 1) if preserve_zero is None else preserve_zero
        return cls(
            bits, zero, preserve_max_val, clip, clip_gradient, round, noise_fn, dtype=dtype, noise_dtype=noise_dtype
        )

    def replace(self, **changes: Any) -> "IntNumerics":
        """A copy with the given fields changed.

        Raises:
            TypeError, ValueError: As for a new one.
        """
        return dataclasses.replace(self, **changes)

    # preserve_zero, preserve_max_val -> the bound at 8, 2 and 1 bits
    # False, False -> 128.0, 2.0, 1.0  an even number of buckets, mapped onto the far edge of the last
    # False, True  -> 127.5, 1.5, 0.5  an even number of buckets, mapped onto the centre of the last
    # True,  False -> 127.5, 1.5, 0.5  an odd number of buckets, mapped onto the far edge of the last
    # True,  True  -> 127.0, 1.0, 0.0  an odd number of buckets, mapped onto the centre of the last

    def get_edge_of_last_int_bucket(self) -> float:
        """The far edge of the last bucket."""
        return 2.0 ** (float(self.bits) - 1.0) - (0.5 if self.preserve_zero else 0.0)

    def get_center_of_last_int_bucket(self) -> float:
        """The centre of the last bucket."""
        return self.get_edge_of_last_int_bucket() - 0.5

    def abs_val_mapped_to(self) -> float:
        """What the largest magnitude of x should be scaled to: the centre or the edge of the last bucket."""
        return self.get_center_of_last_int_bucket() if self.preserve_max_val else self.get_edge_of_last_int_bucket()

    get_quant_bound = abs_val_mapped_to  # AQT's name for it

    def get_dtype(self) -> DTypeLike | None:
        """The field `dtype`."""
        return self.dtype

    def spec(self) -> QuantSpec:
        """The static description that the kernels take. The clip bound is the edge, less 0.5 when rounding."""
        rounding = "half_to_even" if self.preserve_zero else "floor_plus_half"
        return QuantSpec(
            bound=self.get_edge_of_last_int_bucket() - (0.5 if self.round else 0.0),
            clip=bool(self.clip),
            rounding=rounding if self.round else None,
            noise_dtype=_checks.noise_dtype(self.noise_dtype),
        )

    def noise_and_spec(
        self, x: jax.Array, key: jax.Array | None, part: Part | None = None
    ) -> tuple[jax.Array | None, QuantSpec]:
        """The noise for x and the description of the pass, which says what the noise is: none, an array, or a seed.

        Args:
            x: What is quantized.
            key: The user's key.
            part: Where x lies in a larger array, whose noise it is to have; or None.

        Raises:
            TypeError, ValueError: The key is missing or is not a key, or the noise does not broadcast to x.
        """
        if self.noise_fn is None:
            return None, self.spec()
        noise, draw = noise_of(self.noise_fn, x, key, part)
        return noise, self.spec() if draw is None else dataclasses.replace(self.spec(), draw=draw)

    def _arguments(self, x: Any, context: Any) -> tuple[jax.Array, jax.Array | None]:
        """x as an array, and the key of the context, None if there is no noise function."""
        make_known(type(self))  # again, for Flax may have been imported since this object was made
        x = _checks.floats("x", x)
        return x, None if self.noise_fn is None else _checks.key(None if context is None else _checks.key_of(context))

    def fwd(self, x: jax.Array, context: Any) -> jax.Array:
        """Adds noise, clips and rounds; differentiable as its jnp formula is (zero through a round).

        Args:
            x: float32, bfloat16, float16 or float64 of any shape, in buckets.
            context: A `Context`, or anything with a `key`; only a noise function needs it.

        Returns:
            The result, in the shape and dtype of x.

        Raises:
            TypeError: x is not made of floats, or the key is not a key.
            ValueError: A noise function without a key, or noise that does not broadcast to x.
        """
        x, key = self._arguments(x, context)
        if is_eager(self, x, key):
            return _eager.quantize(x, key, self)
        return _operations.quantize(x, *self.noise_and_spec(x, key))

    def vjp_fwd(self, x: jax.Array, context: Any) -> tuple[jax.Array, Any]:
        """`fwd`, and the residual that `vjp_bwd` needs.

        Returns:
            The result, and the residual: empty without `clip_gradient`, else the clip mask, uint8, one bit per element.

        Raises:
            TypeError, ValueError: As in `fwd`.
        """
        if not self.clip_gradient:
            return self.fwd(x, context), ()
        x, key = self._arguments(x, context)
        if is_eager(self, x, key):
            y, packed = _eager.quantize_with_mask(x, key, self)
        else:
            y, packed = _operations.quantize_with_mask(x, *self.noise_and_spec(x, key))
        return y, (packed,)

    def vjp_bwd(self, residual: Any, grad: jax.Array) -> tuple[jax.Array, None]:
        """The cotangents of x and of the context: `where(|x| <= bound, grad, 0)` and None.

        Args:
            residual: What `vjp_fwd` returned; or `(x,)`, which FJFormer's `vjp_fwd` returns. Not looked at without
                `clip_gradient`.
            grad: The cotangent of the result, in its shape.

        Returns:
            The cotangent of x, in the dtype of `grad`, and None.

        Raises:
            TypeError: grad is not an array of floats, or the residual is not a tuple of one array of uint8 or floats.
            ValueError: The mask is not that of an x of the shape of grad, or x does not have that shape.
        """
        if not self.clip_gradient:
            return grad, None
        grad = _checks.floats("grad", grad)
        kept = _checks.mask_or_x(residual, grad.shape)
        if kept.dtype == jnp.uint8:
            return _operations.clip_gradient_from_mask(grad, kept), None
        return _operations.clip_gradient_from_x(grad, kept, self.spec()), None


def is_eager(numerics: IntNumerics, x: jax.Array, key: Any) -> bool:
    """Whether a call can be one compiled program: no transform sees it, and it runs no code of the user.

    A program runs such code only when it is traced, without the numbers of the key and without what changed since.
    """
    is_own = type(numerics) is IntNumerics and type(numerics.noise_fn) in _OWN_NOISE
    if not is_own or isinstance(x, Tracer) or isinstance(key, Tracer):
        return False
    return numerics.dtype is None or isinstance(numerics.dtype, (np.dtype, type))  # which can be hashed


def check_numerics(value: Any, x: Any) -> None:
    """Refuses numerics of another kind, or in the place of the array before it, with a TypeError."""
    if isinstance(value, IntNumerics):
        make_known(type(value))
    else:
        swapped = "the array comes first and the numerics second" if isinstance(x, IntNumerics) else ""
        raise TypeError(
            f"numerics={shown(value)} is not an IntNumerics: "
            + (swapped or "make one with intnumerics.IntNumerics.symmetric(bits)")
        )
