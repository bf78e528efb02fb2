"""How `jax.export` stores the pytrees of this package, for programs that take or return them.

The fields of numerics are written as JSON, so nothing that is read is run. Of the noise functions those of the package
are written; a program with another one holds it, as a closure.
"""

import dataclasses
import json
from typing import Any, cast

import jax
import numpy as np
from jax import export

from ._error_values import shown
from ._qtensor import QTensor
from .int_numerics import IntNumerics
from .numerics import Context
from .stochastic_rounding import NOISE_CLASSES

NOISE = {cls.__name__: cls for cls in NOISE_CLASSES}
DTYPES = ("dtype", "noise_dtype")


def _fields(numerics: IntNumerics) -> dict[str, Any]:
    fields: dict[str, Any] = {field.name: getattr(numerics, field.name) for field in dataclasses.fields(IntNumerics)}
    fn = fields["noise_fn"]
    if fn is not None:
        if NOISE.get(type(fn).__name__) is not type(fn):
            raise ValueError(
                f"noise_fn={fn!r} is not a noise class of intnumerics, and is not stored with an exported program: "
                "close over the numerics, instead of giving it to the function that is exported"
            )
        fields["noise_fn"] = [type(fn).__name__, dataclasses.asdict(fn)]
    for name in DTYPES:
        fields[name] = None if fields[name] is None else np.dtype(fields[name]).name
    fields["bits"] = int(fields["bits"])
    return fields


def _numerics(fields: dict[str, Any]) -> IntNumerics:
    if fields["noise_fn"] is not None:
        name, arguments = fields["noise_fn"]
        fields["noise_fn"] = cast(Any, NOISE[name])(**arguments)
    for name in DTYPES:
        fields[name] = None if fields[name] is None else jax.numpy.dtype(fields[name])
    return IntNumerics(**fields)


def _written(value: Any) -> bytes:
    return json.dumps(value, default=lambda scalar: scalar.item()).encode()  # NumPy's scalars


def _write_static(static: Any) -> bytes:
    """What is static of a QTensor."""
    numerics, dtype = static
    if type(numerics) is not IntNumerics:
        raise ValueError(
            f"numerics={shown(numerics)} of a QTensor is an object of a subclass of IntNumerics, and is not stored "
            "with an exported program: give the function the QTensor's qvalue and scale instead"
        )
    return _written({"numerics": _fields(numerics), "dtype": dtype.name})


def _read_static(data: bytes) -> Any:
    static = json.loads(data)
    return _numerics(static["numerics"]), jax.numpy.dtype(static["dtype"])


def register() -> None:
    """Registers the pytrees with `jax.export`."""
    export.register_pytree_node_serialization(
        IntNumerics,
        serialized_name="intnumerics.IntNumerics",
        serialize_auxdata=lambda numerics: _written(_fields(numerics)),
        deserialize_auxdata=lambda data: _numerics(json.loads(data)),
    )
    export.register_pytree_node_serialization(
        QTensor,
        serialized_name="intnumerics.QTensor",
        serialize_auxdata=_write_static,
        deserialize_auxdata=_read_static,
    )
    export.register_pytree_node_serialization(
        Context,
        serialized_name="intnumerics.Context",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: (),
    )
