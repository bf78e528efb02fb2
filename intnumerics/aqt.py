"""The numerics of this package inside AQT: a class that replaces `IntSymmetric`, and a function that edits a config.

This module needs AQT (`pip install aqtp`, 0.9 or newer). Nothing else of the package imports it.

Source: `aqt/jax/v2/numerics/int_numerics.py` and `aqt/jax/v2/stochastic_rounding.py` of AQT 0.9.
"""

import copy
import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import _checks, _noise_functions, _operations
from .int_numerics import IntNumerics
from .kernels import QuantSpec
from .stochastic_rounding import DrawnInPass, JaxUniform, RandomCenteredUniform


def _of_aqt(name: str) -> Any:
    """A module of AQT, which has no types."""
    try:
        return importlib.import_module(f"aqt.jax.v2.{name}")
    except ImportError as error:
        raise ImportError(f"intnumerics.aqt needs AQT, and {error}: pip install aqtp") from error


_theirs = _of_aqt("numerics.int_numerics").IntSymmetric
_noise = _of_aqt("stochastic_rounding")
_Config = TypeVar("_Config")

_WRITTEN = tuple(np.dtype(d) for d in (np.int8, np.int16, np.int32))  # the integers that a pass can write


@_of_aqt("utils").flax_slots_kw_only_dataclass
class IntSymmetric(_theirs):
    """AQT's `IntSymmetric` with our forward and backward: one pass over memory, and one bit per element in between.

    A subclass of AQT's class with the same fields, leaves and repr, so that AQT and its users take it for their own.
    The fields can be assigned, as AQT's config functions do. The result is AQT's, bit for bit, in the dtype that the
    field `dtype` names. AQT's noise classes, also in a `functools.partial` that sets `noise_sharing_axes`, are drawn in
    the pass, with the same bits. So are the classes of this package. Any other noise function is called as AQT does.

    The gradient differs from AQT's in one case: where x was clipped it is 0 for every incoming gradient, also for an
    infinity or a NaN. AQT multiplies by the mask, which may make a NaN of either.

    Example:
        >>> import jax.numpy as jnp
        >>> from aqt.jax.v2 import config, utils
        >>> numerics = replace_numerics(config.config_v4()).fwd.dg_quantizer.lhs.numerics
        >>> context = utils.Context(key=None, train_step=None)
        >>> numerics.vjp_fwd(jnp.array([0.4, 2.5, 300.0]), context)[0]
        Array([  0,   2, 127], dtype=int8)
    """

    def vjp_fwd(self, x: jax.Array, context: Any) -> tuple[jax.Array, Any]:
        """Adds noise, clips, rounds and casts to `dtype`, in one pass.

        Args:
            x: float32, bfloat16, float16 or float64 of any shape, in buckets.
            context: AQT's `Context`; only its `key` is looked at, and only if there is a noise function.

        Returns:
            The result, in `dtype` or else in the dtype of x; and the residual, which is empty without `clip_gradient`,
            else the clip mask, uint8, one bit per element.

        Raises:
            TypeError: x is not made of floats, or a field has a value of another type than it should.
            ValueError: bits is below 1 or above 22, there is a noise function and no key, or noise that does not
                broadcast to x.
        """
        x = _checks.floats("x", x)
        numerics = _numerics(self, x.ndim)
        noise, spec = _noise_and_spec(numerics, x, context)
        dtype = self.get_dtype()
        spec = dataclasses.replace(spec, integer_dtype=_written_dtype(dtype, spec, x.dtype))
        if self.clip_gradient:
            y, packed = _operations.quantize_with_mask(x, noise, spec)
            residual: Any = (packed,)
        else:
            y, residual = _operations.quantize(x, noise, spec), ()
        return (y if dtype is None else y.astype(dtype)), residual

    def vjp_bwd(self, res: Any, grad: jax.Array) -> tuple[jax.Array, None]:
        """The cotangents of x and of the context: `where(|x| <= bound, grad, 0)` and None.

        Args:
            res: What `vjp_fwd` returned; or `(x,)`, which AQT's `vjp_fwd` returns.
            grad: The cotangent of the result, in its shape.

        Returns:
            The cotangent of x, in the dtype of `grad`, and None.

        Raises:
            TypeError, ValueError: As in `IntNumerics.vjp_bwd`.
        """
        return _numerics(self, 0).vjp_bwd(res, grad)


def _numerics(theirs: Any, rank: int) -> IntNumerics:
    """The numerics of this package with the fields of AQT's, for an x of `rank` axes."""
    fields = {field.name: getattr(theirs, field.name) for field in dataclasses.fields(_theirs)}
    return IntNumerics(**(fields | {"noise_fn": _in_pass(theirs.noise_fn, rank)}))


def _in_pass(noise_fn: Any, rank: int) -> Any:
    """The noise class of this package with the bits of AQT's class; any other noise function as it is."""
    kind, axes = type(noise_fn), ()
    if kind is functools.partial and not noise_fn.args and noise_fn.keywords.keys() == {"noise_sharing_axes"}:
        kind, axes = type(noise_fn.func), noise_fn.keywords["noise_sharing_axes"]
    axes = tuple(axis for axis in range(rank) if axis in axes)  # AQT ignores axes that x does not have
    if kind is _noise.RandomCenteredUniform:
        return RandomCenteredUniform(axes)
    if kind is _noise.JaxUniform and jnp.result_type(float) == jnp.float32:  # AQT's is of float64 under x64
        return JaxUniform(axes)
    return noise_fn


def _noise_and_spec(numerics: IntNumerics, x: jax.Array, context: Any) -> tuple[jax.Array | None, QuantSpec]:
    """As `IntNumerics.noise_and_spec`, but a noise function that is not drawn in the pass gets the key unchecked."""
    if numerics.noise_fn is None:
        return None, numerics.spec()
    key = _checks.key_of(context)
    if key is None:
        raise ValueError(
            "context.key=None, and numerics.noise_fn needs a key to draw noise: give each step a key of its own, as "
            "aqt.jax.v2.config.set_context(config, key, train_step) does"
        )
    if isinstance(numerics.noise_fn, DrawnInPass):
        return numerics.noise_and_spec(x, key)
    return _checks.noise(_noise_functions.draw(numerics.noise_fn, x.shape, key), x.shape, x.dtype), numerics.spec()


def _written_dtype(dtype: Any, spec: QuantSpec, of_x: np.dtype) -> np.dtype | None:
    """The integer dtype that the pass itself writes, or None if AQT's cast of the rounded floats must follow.

    AQT's cast takes halves towards zero, and numbers that `dtype` does not hold to whatever the platform makes of them.
    XLA narrows int8 to int4 and int2, which no kernel writes.
    """
    if dtype is None or not (spec.clip and spec.rounding == "half_to_even"):
        return None
    bound = spec.bound_in(of_x)
    if not jnp.issubdtype(dtype, jnp.signedinteger) or bound > jnp.iinfo(dtype).max:
        return None
    fitting = [d for d in _WRITTEN if bound <= np.iinfo(d).max]
    return np.dtype(dtype) if dtype in fitting else next(iter(fitting), None)


# --- configs ----------------------------------------------------------------------------------------------------------


def replace_numerics(config: _Config) -> _Config:
    """A copy of an AQT config in which every `IntSymmetric` of AQT is ours.

    Everything else is copied as it is: `NoNumerics`, the floats' numerics, calibration, keys. A subclass of AQT's
    `IntSymmetric` that is not AQT's own stays, too. What is ours already is copied.

    Args:
        config: An AQT config: a `DotGeneral`, a `DotGeneralRaw`, a quantizer, a numerics; or dicts, lists, tuples,
            dataclasses and `functools.partial` objects that have configs in them. A config inside any other object is
            copied as it is, and so is a function or a class.

    Returns:
        The copy, which shares no mutable object with `config`. `config` itself is not changed.

    Raises:
        TypeError: There is nothing of AQT in it, so that nothing could be replaced.

    Example:
        >>> from aqt.jax.v2 import config
        >>> theirs = config.fully_quantized()
        >>> ours = replace_numerics(theirs)
        >>> isinstance(ours.fwd.dg_quantizer.lhs.numerics, IntSymmetric), ours == theirs, repr(ours) == repr(theirs)
        (True, False, True)
    """
    parts = list(_parts(config, {}))
    if not any(_is_of_aqt(part) for part in parts):
        raise TypeError(
            f"config is a {type(config).__name__} with nothing of AQT in it, so there is nothing to replace: give an "
            "AQT config, such as aqt.jax.v2.config.config_v4(), before anything is made of it"
        )
    memo: dict[int, Any] = {}
    for part in parts:
        if type(part) is _theirs:
            fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(_theirs)}
            memo[id(part)] = IntSymmetric(**copy.deepcopy(fields, memo))
    return copy.deepcopy(config, memo)


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """A value and everything in it that may hold a numerics, each once."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    yield value
    inner: list[Any] = []
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)]
    elif isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
    elif isinstance(value, functools.partial):
        inner = [value.func, value.args, value.keywords]
    for part in inner:
        yield from _parts(part, seen)


def _is_of_aqt(value: Any) -> bool:
    """Whether an object, not a class or a function, is of one of AQT's classes or of ours."""
    return isinstance(value, IntSymmetric) or type(value).__module__.partition(".")[0] == "aqt"
