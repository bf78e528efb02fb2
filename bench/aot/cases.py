"""What is compiled on every platform: each operation on a large array, in each dtype."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from bench import baselines
from intnumerics.kernels import Draw, QuantSpec, packed_shape, xla

BFLOAT16, FLOAT16, FLOAT32 = jnp.bfloat16, jnp.float16, jnp.float32
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
MASKED = dataclasses.replace(NEAREST, with_mask=True)


class NotCountedError(Exception):
    """A program that compiles, and whose instructions cannot be told from what the compiler writes."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of arrays that is compiled and counted.

    Attributes:
        name: What it is called in the results.
        function: What is compiled.
        avals: The types of its arrays; the largest tells how many elements a count is divided by.
        everywhere: Whether it is compiled for every chip, and not for one of each kind alone.
        tested: Whether `make test-aot` compiles it, and not `make static-report` alone.
    """

    name: str
    function: Callable[..., Any]
    avals: tuple[jax.ShapeDtypeStruct, ...]
    everywhere: bool = False
    tested: bool = True

    @property
    def is_kernel(self) -> bool:
        """Whether it is ours, and not what it is compared with."""
        return self.name.startswith(("pallas", "triton"))

    @property
    def elements(self) -> int:
        """How many elements a count is divided by."""
        return max(a.size for a in self.avals)

    @property
    def least_bytes_per_element(self) -> float:
        """What any form must move: each argument read once, each result written once."""
        arrays = (*self.avals, *jax.tree.leaves(jax.eval_shape(self.function, *self.avals)))
        return sum(a.size * a.dtype.itemsize for a in arrays) / self.elements


def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """The type of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def plain(platform: str) -> Any:
    """The operations in plain jnp, in the form for a platform."""
    return SimpleNamespace(**{**vars(xla), "quantize": functools.partial(xla.quantize, platform=platform)})


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


def formula(generator: str | None, integer: str | None = None) -> Callable[..., Any]:
    """FJFormer's formula, with noise of one of `baselines.GENERATORS` if one is named."""

    def quantize_as_written(x: jax.Array, words: jax.Array | None = None) -> jax.Array:
        noise = None if generator is None else baselines.uniform(generator, words, x.shape)
        y = baselines.nearest(x, noise)
        return y.astype(integer) if integer else y

    return quantize_as_written


def formulas(shape: tuple[int, ...], tested: tuple[str, ...]) -> Iterator[Case]:
    """The formula without noise, with each that a user can draw, and its backward; `tested` names generators."""
    words = array(jnp.uint32, 2)
    for dtype, integer in ((FLOAT32, None), (BFLOAT16, None), (BFLOAT16, "int8")):
        name, x = f"{jnp.dtype(dtype).name}{' -> int8' if integer else ''}", array(dtype, *shape)
        yield Case(f"formula: quantize {name}", formula(None, integer), (x,), True, False)
        if dtype == BFLOAT16 and not integer:
            continue  # the formula casts the sum back to bfloat16, so the noise costs what it costs with int8
        for generator in baselines.GENERATORS:
            is_tested = bool(integer) and generator in tested
            title = f"formula: quantize {name} with {generator}"
            yield Case(title, formula(generator, integer), (x, words), True, is_tested)
    x = array(BFLOAT16, *shape)
    yield Case("formula: clip gradient from x, bfloat16", baselines.backward, (x, x), True, False)


def operations(
    module: Any, name: str, shape: tuple[int, ...], dtypes: tuple[Any, ...] = (FLOAT32, BFLOAT16, FLOAT16)
) -> Iterator[Case]:
    """Every operation of an implementation in each dtype, on arrays of one shape."""
    for dtype in dtypes:
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
