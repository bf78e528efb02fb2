"""What is compiled on every platform: each operation on a large array, in each dtype."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from intnumerics.kernels import Draw, QuantSpec, packed_shape, reference

BFLOAT16, FLOAT16, FLOAT32 = jnp.bfloat16, jnp.float16, jnp.float32
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
MASKED = dataclasses.replace(NEAREST, with_mask=True)


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of arrays that is compiled and counted.

    Attributes:
        name: What it is called in the results.
        function: What is compiled.
        avals: The types of its arrays; the largest tells how many elements a count is divided by.
        everywhere: Whether it is compiled for every chip, and not for one of each kind alone.
    """

    name: str
    function: Callable[..., Any]
    avals: tuple[jax.ShapeDtypeStruct, ...]
    everywhere: bool = False


def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """The type of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def quantize(module: Any, spec: QuantSpec, integer: str | None = None) -> Callable[..., Any]:
    """An implementation's quantization of x, and noise if there is any."""
    spec = dataclasses.replace(spec, integer_dtype=jnp.dtype(integer) if integer else None)
    return lambda x, noise=None: module.quantize(x, noise, spec)


def drawing(
    module: Any,
    spec: QuantSpec,
    shape: tuple[int, ...],
    integer: str | None = None,
    generator: Any = "philox",
    whole: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """An implementation's quantization of x, with noise that it draws for examples of `shape` from seeds."""
    return quantize(module, dataclasses.replace(spec, draw=Draw(generator, shape, whole)), integer)


def formula(integer: str | None = None) -> Callable[..., Any]:
    """The formula as its source writes it, with `jax.random.uniform` of a threefry key, of whose words it is given."""

    def quantize_with_uniform(x: jax.Array, key_data: jax.Array) -> Any:
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        return quantize(reference, NEAREST, integer)(x, jax.random.uniform(key, x.shape) - 0.5)

    return quantize_with_uniform


def operations(module: Any, name: str, shape: tuple[int, ...]) -> Iterator[Case]:
    """Every operation of an implementation in each dtype, on arrays of one shape."""
    for dtype in (FLOAT32, BFLOAT16, FLOAT16):
        d, x = jnp.dtype(dtype).name, array(dtype, *shape)
        packed = array(jnp.uint8, *packed_shape(shape))
        from_x = lambda g, x: module.clip_gradient_from_x(g, x, NEAREST)  # noqa: E731
        for what, function, avals in (
            (f"quantize {d}", quantize(module, NEAREST), (x,)),
            (f"quantize {d} -> int8", quantize(module, NEAREST, "int8"), (x,)),
            (f"quantize {d}, floor + 0.5", quantize(module, HALVES), (x,)),
            (f"quantize {d} with mask", quantize(module, MASKED), (x,)),
            (f"quantize {d} with noise array", quantize(module, NEAREST), (x, array(FLOAT32, *shape))),
            (f"clip gradient from mask, {d}", module.clip_gradient_from_mask, (x, packed)),
            (f"clip gradient from x, {d}", from_x, (x, x)),
        ):
            yield Case(f"{name}: {what}", function, avals, everywhere=True)
