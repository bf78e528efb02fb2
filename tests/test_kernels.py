"""Every implementation returns the bits of the formula, for every switch, width, dtype and number that matters."""

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
import triton_interpreter
from oracle import assert_same_bits

from intnumerics import kernels
from intnumerics.kernels import QuantSpec

OPERATIONS = ("quantize", "clip_gradient_from_mask", "clip_gradient_from_x")


@functools.cache
def _compiled(function: Callable[..., Any], *avals: jax.ShapeDtypeStruct) -> Any:
    from tools import ptx

    return ptx.compile(function, *avals)


def compiled(function, *arrays):
    from tools import ptx

    return ptx.compile(function, *arrays)


@dataclasses.dataclass(frozen=True)
class Where:
    """A row of the table and the device that it runs on; a kernel on a CPU is interpreted."""

    name: str
    platform: str | None
    device: str

    def operations(self) -> Any:
        """The operations as attributes."""
        if (self.name, self.device) == ("jax_triton", "cpu"):
            return triton_interpreter.operations()
        [row] = [row for row in kernels.TABLE if (row.name, row.platform) == (self.name, self.platform)]
        interpret = row.interpretable and self.device == "cpu"
        return SimpleNamespace(**{name: row.operation(name, interpret) for name in OPERATIONS})

    def run(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """What a function returns under jit, as NumPy arrays."""
        if self.device == "h100":
            return compiled(function, *arrays)(*arrays)
        with jax.default_device(jax.devices(self.device)[0]):
            return jax.tree.map(np.asarray, jax.jit(function)(*arrays))


COMPILED = {  # for a device that is not there; an interpreter on a CPU runs what the compiler made
    f"{name}, compiled code": Where(name, "cuda" if name != "reference" else None, "h100")
    for name in ("reference", "xla", "pallas", "jax_triton")
}
ON_CPU = {
    "reference": Where("reference", None, "cpu"),
    "xla": Where("xla", None, "cpu"),
    "pallas-gpu": Where("pallas", "cuda", "cpu"),
    "pallas-tpu": Where("pallas", "tpu", "cpu"),
}
ON_DEVICE = {
    "reference on a GPU": Where("reference", None, "gpu"),
    "xla on a GPU": Where("xla", None, "gpu"),
    "pallas on a GPU": Where("pallas", "cuda", "gpu"),
    "jax_triton on a GPU": Where("jax_triton", "cuda", "gpu"),
    "reference on a TPU": Where("reference", None, "tpu"),
    "xla on a TPU": Where("xla", "tpu", "tpu"),
    "pallas on a TPU": Where("pallas", "tpu", "tpu"),
}


def marks(where: Where) -> list[pytest.MarkDecorator]:
    """What tests of an implementation need."""
    mark = {"cpu": None, "h100": "ptx"}.get(where.device, where.device)
    needed = [getattr(pytest.mark, mark)] if mark else []
    if where.name == "jax_triton":
        needed.append(pytest.mark.interpreted if where.device == "cpu" else pytest.mark.jax_triton)
    return needed


INTERPRETED = {"triton-gpu": Where("jax_triton", "cuda", "cpu")}
PARAMETERS = [
    pytest.param(where, id=name, marks=marks(where)) for name, where in (ON_CPU | INTERPRETED | COMPILED | ON_DEVICE).items()
]
every_implementation = pytest.mark.parametrize("where", PARAMETERS)
every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
# The dtype in which noise is added: that of x, or float32.
every_noise_dtype = pytest.mark.parametrize(
    ("dtype", "noise_dtype"),
    [(dtype, None) for dtype in oracle.DTYPES]
    + [(dtype, np.dtype(np.float32)) for dtype in oracle.DTYPES if dtype != np.float32],
    ids=str,
)


def differs_by_flushing(x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec) -> np.ndarray:
    """Where the result depends on whether a subnormal number counts as 0, which platforms decide."""
    as_zero = oracle.quantize(oracle.flushed(x), noise, spec), oracle.mask(oracle.flushed(x), spec)
    exact = oracle.quantize(x, noise, spec), oracle.mask(x, spec)
    with np.errstate(invalid="ignore"):
        return (as_zero[0] != exact[0]) & (exact[0] == exact[0]) | (as_zero[1] != exact[1])


def assert_is_formula(y: Any, x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec) -> None:
    """Compares a result with the formula, where that does not depend on how a platform takes subnormal numbers."""
    same = ~differs_by_flushing(x, noise, spec)
    expected = oracle.quantize(x, noise, spec)
    if not spec.with_mask:
        assert_same_bits(y[same], expected[same])
        return
    assert_same_bits(y[0][same], expected[same])
    bits = np.unpackbits(y[1], axis=-1, bitorder="little", count=x.shape[-1]).astype(bool)
    assert_same_bits(bits[same], oracle.mask(x, spec)[same])


def all_values(dtype: np.dtype, *specs: QuantSpec) -> np.ndarray:
    """The numbers at which any of several could go wrong."""
    return np.unique(np.concatenate([oracle.values(spec, dtype).view(f"u{dtype.itemsize}") for spec in specs])).view(
        dtype
    )


def check(where: Where, x: np.ndarray, noise: np.ndarray | None, *specs: QuantSpec) -> None:
    """Runs an implementation for each spec, in one program, and compares each result with the formula."""
    quantize = where.operations().quantize
    results = where.run(lambda x, noise: [quantize(x, noise, spec) for spec in specs], x, noise)
    for spec, result in zip(specs, results, strict=True):
        assert_is_formula(result, x, noise, spec)


def every_spec() -> list[QuantSpec]:
    """Every switch at 9 bits, whose bound bfloat16 does not hold, and both roundings at each other width."""
    others = [spec for bits in oracle.BITS if bits != 9 for spec in oracle.specs(bits) if spec.clip and spec.rounding]
    return [*oracle.specs(9), *others]


@every_implementation
@every_dtype
def test_every_switch_and_every_width_give_the_formula_and_its_mask(where: Where, dtype: np.dtype) -> None:
    """For all numbers of 16 bits, and for float32 at all edges of buckets."""
    specs = [dataclasses.replace(spec, with_mask=True) for spec in every_spec()]
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype) if dtype.itemsize == 2 else all_values(dtype, *specs)
    check(where, x, None, *specs)


@every_implementation
@every_noise_dtype
def test_noise_is_added_and_rounded_as_the_formula_does(where: Where, dtype: np.dtype, noise_dtype: Any) -> None:
    one_bit = [spec for spec in oracle.specs(1) if spec.clip and spec.rounding]
    specs = [dataclasses.replace(spec, noise_dtype=noise_dtype) for spec in (*oracle.specs(9), *one_bit)]
    x = oracle.values(specs[0], dtype)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, x.shape).astype(np.float32)
    check(where, x, noise, *specs)


@every_implementation
@every_dtype
def test_noise_of_another_dtype_is_promoted_as_the_formula_does(where: Where, dtype: np.dtype) -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even")
    x = oracle.values(spec, dtype)
    noises = [np.random.default_rng(1).uniform(-0.5, 0.5, x.shape).astype(d) for d in oracle.DTYPES]
    quantize = where.operations().quantize
    for noise, y in zip(noises, where.run(lambda x, *ns: [quantize(x, n, spec) for n in ns], x, *noises), strict=True):
        assert_is_formula(y, x, noise, spec)


INTEGERS = [(1, np.int8), (1, np.int16), (8, np.int8), (8, np.int32), (9, np.int16), (9, np.int32), (16, np.int32)]


@every_implementation
@every_dtype
def test_integers_are_the_rounded_values_or_bucket_numbers_and_nan_is_0(where: Where, dtype: np.dtype) -> None:
    specs = [
        dataclasses.replace(spec, integer_dtype=np.dtype(integer))
        for bits, integer in INTEGERS
        for spec in oracle.specs(bits)
        if spec.clip and spec.rounding
    ]
    check(where, all_values(dtype, *specs), None, *specs)


@every_implementation
@every_dtype
def test_integers_and_their_mask_come_of_one_pass(where: Where, dtype: np.dtype) -> None:
    """As `intnumerics.aqt` asks for them."""
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True, integer_dtype=np.dtype(np.int8))
    x = oracle.values(spec, dtype)
    check(where, x[: x.size // 9 * 9].reshape(-1, 9), None, spec)


SHAPES = [(1,), (7,), (8,), (4099,), (3, 5), (2, 3, 130), (5, 1024), (2, 4099), (0,), (3, 0), (0, 8), (1, 1, 1, 1)]


@every_implementation
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(where: Where, shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(2).normal(size=shape) * 100).astype(ml_dtypes.bfloat16)
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True)
    g = np.random.default_rng(3).normal(size=shape).astype(ml_dtypes.bfloat16)
    run = where.operations()

    def everything(x: jax.Array, g: jax.Array, packed: jax.Array) -> Any:
        from_mask, from_x = run.clip_gradient_from_mask(g, packed), run.clip_gradient_from_x(g, x, spec)
        return run.quantize(x, None, spec), from_mask, from_x

    expected_mask = oracle.packed_mask(x, spec)
    (y, packed), *gradients = where.run(everything, x, g, expected_mask)
    assert_same_bits(y, oracle.quantize(x, None, spec))
    assert_same_bits(packed, expected_mask)
    for gradient in gradients:
        assert_same_bits(gradient, np.where(oracle.mask(x, spec), g, np.zeros_like(g)))


SHARED = [
    ((4, 6, 8), (4, 6, 8)),
    ((4, 6, 8), (1, 1, 1)),
    ((4, 6, 8), (1, 1, 8)),
    ((4, 6, 8), (4, 1, 8)),
    ((4, 6, 8), (4, 6, 1)),
    ((4, 6, 8), (1, 6, 1)),
    ((3, 1, 5), (3, 1, 1)),
    ((2, 3, 2, 5), (1, 3, 1, 5)),
    ((4099,), (1,)),
    ((3, 17), (1, 17)),
]


@every_implementation
@pytest.mark.parametrize(("shape", "noise_shape"), SHARED, ids=str)
def test_noise_broadcasts_along_its_axes_of_1(
    where: Where, shape: tuple[int, ...], noise_shape: tuple[int, ...]
) -> None:
    random = np.random.default_rng(4)
    x = (random.normal(size=shape) * 100).astype(np.float32)
    noise = random.uniform(-0.5, 0.5, noise_shape).astype(np.float32)
    spec = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
    y, (masked, packed) = where.run(
        lambda x, noise: [
            where.operations().quantize(x, noise, s) for s in (spec, dataclasses.replace(spec, with_mask=True))
        ],
        x,
        noise,
    )
    expected = oracle.quantize(x, np.broadcast_to(noise, shape), spec)
    assert_same_bits(y, expected)
    assert_same_bits(masked, expected)
    assert_same_bits(packed, oracle.packed_mask(x, spec))


@every_implementation
@every_dtype
def test_the_gradient_of_infinity_outside_the_mask_is_0_and_nan_is_outside(where: Where, dtype: np.dtype) -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True)
    x = np.asarray([np.nan, np.inf, 128, 127, -127, 0, 3, -np.inf, 126.5], dtype)
    g = np.asarray([np.inf, np.nan, -np.inf, np.inf, -0.0, np.nan, 2, 5, -3], dtype)
    expected = np.asarray([0, 0, 0, np.inf, -0.0, np.nan, 2, 0, -3], dtype)
    run = where.operations()
    packed = np.packbits([0, 0, 0, 1, 1, 1, 1, 0, 1], bitorder="little")
    both = lambda g, x, m: (run.clip_gradient_from_mask(g, m), run.clip_gradient_from_x(g, x, spec))  # noqa: E731
    for gradient in where.run(both, g, x, packed):
        assert_same_bits(gradient, expected)


@every_implementation
def test_a_cotangent_may_have_another_dtype_than_x(where: Where) -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even")
    x, g = np.asarray([200, 3, -4], np.float32), np.asarray([1, 2, 3], ml_dtypes.bfloat16)
    result = where.run(lambda g, x: where.operations().clip_gradient_from_x(g, x, spec), g, x)
    assert_same_bits(result, np.asarray([0, 2, 3], ml_dtypes.bfloat16))


ONE_LENGTH = 96  # of the arrays that hypothesis makes, so that each implementation is compiled once


@functools.cache
def quantizer(where: Where, spec: QuantSpec) -> Callable[..., Any]:
    quantize = where.operations().quantize
    return jax.jit(lambda x, noise: quantize(x, noise, spec))


@every_implementation
@every_dtype
@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(data=st.data())
def test_arrays_that_hypothesis_makes(where: Where, dtype: np.dtype, data: st.DataObject) -> None:
    bits = hypothesis.extra.numpy.arrays(np.dtype(f"u{dtype.itemsize}"), ONE_LENGTH)
    draws = hypothesis.extra.numpy.arrays(np.int16, ONE_LENGTH)
    x, noise = data.draw(bits).view(dtype), data.draw(draws).astype(np.float32) / 65536
    specs = [dataclasses.replace(s, with_mask=True) for s in oracle.specs(8) if s.clip and s.rounding]
    spec = data.draw(st.sampled_from(specs))
    assert_is_formula(where.run(quantizer(where, spec), x, noise), x, noise, spec)


@pytest.mark.parametrize("where", [ON_CPU["reference"], ON_CPU["xla"]], ids=["reference", "xla"])
def test_float64_gives_the_formula(where: Where) -> None:
    specs = [dataclasses.replace(spec, with_mask=True) for spec in every_spec()]
    to_int = [
        dataclasses.replace(spec, integer_dtype=np.dtype(np.int32)) for spec in specs if spec.clip and spec.rounding
    ]
    x = all_values(np.dtype(np.float32), *specs).astype(np.float64)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, x.shape)
    with jax.enable_x64(True):
        check(where, x, None, *specs, *to_int)
        check(where, x, noise, *specs, *to_int)
        check(where, x, noise.astype(np.float32), *specs, *to_int)
        check(where, x.astype(np.float32), noise, *specs, *to_int)
        g = np.random.default_rng(1).normal(size=x.shape)
        clip = where.operations().clip_gradient_from_x
        expected = np.where(oracle.mask(x, specs[0]), g, np.zeros_like(g))
        assert_same_bits(where.run(lambda g, x: clip(g, x, specs[0]), g, x), expected)


def test_a_bound_is_rounded_to_the_dtype_of_x() -> None:
    spec = QuantSpec(255.5, clip=True, rounding=None)
    assert spec.bound_in(jnp.bfloat16) == 256.0
    assert spec.bound_in(jnp.float32) == 255.5
    assert dataclasses.replace(spec, noise_dtype=np.dtype(np.float32)).bound_in(jnp.bfloat16) == 255.5
    assert QuantSpec(2.0**20, clip=True, rounding=None).bound_in(jnp.float16) == float("inf")
