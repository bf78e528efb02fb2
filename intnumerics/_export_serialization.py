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

from .int_numerics import IntNumerics
from .numerics import Context
from .stochastic_rounding import NOISE_CLASSES

NOISE = {cls.__name__: cls for cls in NOISE_CLASSES}
DTYPES = ("dtype", "noise_dtype")


def _write(aux: Any) -> bytes:
    fields: dict[str, Any] = {field.name: getattr(aux, field.name) for field in dataclasses.fields(IntNumerics)}
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
    return json.dumps(fields, default=lambda scalar: scalar.item()).encode()  # NumPy's scalars


def _read(data: bytes) -> IntNumerics:
    fields = json.loads(data)
    if fields["noise_fn"] is not None:
        name, arguments = fields["noise_fn"]
        fields["noise_fn"] = cast(Any, NOISE[name])(**arguments)
    for name in DTYPES:
        fields[name] = None if fields[name] is None else jax.numpy.dtype(fields[name])
    return IntNumerics(**fields)


def register() -> None:
    """Registers the pytrees with `jax.export`."""
    export.register_pytree_node_serialization(
        IntNumerics, serialized_name="intnumerics.IntNumerics", serialize_auxdata=_write, deserialize_auxdata=_read
    )
    export.register_pytree_node_serialization(
        Context,
        serialized_name="intnumerics.Context",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: (),
    )
