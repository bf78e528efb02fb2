"""Refuses forward mode with an error that names the remedy, which JAX's own error for `custom_vjp` does not."""

from typing import Any, NoReturn

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def reverse_only(x: jax.Array) -> jax.Array:
    """Returns x. Reverse mode transposes its derivative; forward mode evaluates the derivative, which raises."""
    return _identity_p.bind(x)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "quantize has no derivative in forward mode (jax.jvp, jax.jacfwd, jax.linearize): the gradient straight "
        "through is a rule for reverse mode. Use jax.grad, jax.vjp or jax.jacrev; or numerics.fwd(x, Context(key=key)) "
        "in the place of quantize(x, numerics, key=key), whose derivative in both modes is that of the formula, zero "
        "through the rounding"
    )


_identity_p, _tangent_p = Primitive("intnumerics_identity"), Primitive("intnumerics_tangent")


def _jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    [x], [tangent] = primals, tangents
    return x, tangent if isinstance(tangent, ad.Zero) else _tangent_p.bind(tangent)


_identity_p.def_impl(lambda x: x)
_identity_p.def_abstract_eval(lambda x: x)
batching.defvectorized(_identity_p)
ad.primitive_jvps[_identity_p] = _jvp
mlir.register_lowering(_identity_p, lambda _, x: [x])

_tangent_p.def_impl(_refuse)
_tangent_p.def_abstract_eval(lambda tangent: tangent)
batching.primitive_batchers[_tangent_p] = _refuse
ad.deflinear2(_tangent_p, lambda cotangent, _: [cotangent])
mlir.register_lowering(_tangent_p, _refuse)
