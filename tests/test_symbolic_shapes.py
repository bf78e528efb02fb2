"""A function that is exported for shapes with symbols gives what the formula gives, whatever the symbols stand for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import streams
from jax import export
from oracle import assert_same_bits
from original import spec_of

from intnumerics import IntNumerics, absmax_scale, from_int, quantize, quantize_to_int
from intnumerics.stochastic_rounding import (
    HardwareUniform,
    HashUniform,
    JaxUniform,
    PhiloxUniform,
    RandomCenteredUniform,
)

pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")

PLATFORMS = "cpu", "cuda", "tpu"
INT4 = IntNumerics(4, True, True, True, True, True, None)
NOISY = INT4.replace(noise_fn=PhiloxUniform())
WORDS = np.asarray([0, 42], np.uint32)  # of jax.random.key(42)
Shape = tuple[int, ...]


def key_of(words: Any) -> jax.Array:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def users(shape: Shape, key: jax.Array) -> jax.Array:
    return jax.random.uniform(key, shape[-1:], jnp.float32) - jnp.float32(0.5)


def exported(
    function: Callable[..., Any],
    *arguments: Any,
    platforms: tuple[str, ...] = PLATFORMS,
    constraints: tuple[str, ...] = (),
    vjp_order: int = 0,
) -> export.Exported:
    """What comes back from the bytes that a function is exported to; a shape with symbols is one of `arguments`."""
    scope = export.SymbolicScope(constraints)

    def spec(shape: str, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)

    specs = [spec(a) if isinstance(a, str) else spec(*a) if isinstance(a, tuple) else a for a in arguments]
    program = export.export(jax.jit(function), platforms=platforms)(*specs)
    return export.deserialize(program.serialize(vjp_order=vjp_order))


def arrays(shape: Shape, n: int = 2, dtype: Any = np.float32) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(n, *shape)) * 5).astype(dtype)


# --- what the formula gives -------------------------------------------------------------------------------------------


def shared(shape: Shape, axis: int) -> Shape:
    return tuple(1 if i == axis % len(shape) else n for i, n in enumerate(shape))


# A noise function, and what it is in NumPy's and jax.random's words.
NOISE: dict[str, tuple[Any, Callable[[Shape], Any]]] = {
    "none": (None, lambda _: None),
    "philox": (PhiloxUniform(), lambda shape: streams.uniform(shape, (0, 42))),
    "hash": (HashUniform(), lambda shape: streams.uniform_hash(shape, (0, 42))),
    "philox, first axis shared": (PhiloxUniform((0,)), lambda shape: streams.uniform(shared(shape, 0), (0, 42))),
    "jax": (JaxUniform(), lambda shape: np.asarray(jax.random.uniform(key_of(WORDS), shape)) - np.float32(0.5)),
    "centered, last axis shared": (
        RandomCenteredUniform((-1,)),
        lambda shape: (
            np.asarray(jax.random.bits(key_of(WORDS), shared(shape, -1), np.uint16)).astype(np.float32) * 2.0**-16
            + np.float32(2.0**-17 - 0.5)
        ),
    ),
    "a user's": (users, lambda shape: np.asarray(users(shape, key_of(WORDS)))),
}


def everything(numerics: IntNumerics) -> Callable[..., Any]:
    def run(x: jax.Array, g: jax.Array, words: jax.Array) -> tuple[jax.Array, ...]:
        key = None if numerics.noise_fn is None else key_of(words)
        y, backward = jax.vjp(lambda x: quantize(x, numerics, key=key), x)
        integers = quantize_to_int(x, numerics, key=key)
        return y, backward(g)[0], integers, from_int(integers, numerics, x.dtype)

    return run


def formula(numerics: IntNumerics, x: np.ndarray, g: np.ndarray, noise: Any) -> tuple[np.ndarray, ...]:
    y = oracle.quantize(x, noise, spec_of(numerics))
    mask = oracle.mask(x, spec_of(numerics)) if numerics.clip_gradient else True
    integers = oracle.quantize(x, noise, spec_of(numerics, integer_dtype=np.dtype(np.int8)))
    return y, np.where(mask, g, np.zeros_like(g)), integers, y + np.zeros_like(y)  # no integer is -0.0


UNBIASED = INT4.replace(noise_dtype=jnp.float32)
CASES = [
    ("b", "philox", INT4, np.float32, [(1,), (13,), (64,)]),
    ("b", "a user's", UNBIASED, jnp.bfloat16, [(1,), (13,)]),
    ("b, 128", "philox", INT4, jnp.bfloat16, [(1, 128), (3, 128)]),
    ("b, 128", "none", INT4.replace(preserve_zero=False), np.float16, [(2, 128), (7, 128)]),
    ("b, 12", "philox, first axis shared", INT4, np.float32, [(1, 12), (4, 12)]),
    ("7, b", "jax", INT4, np.float32, [(7, 1), (7, 16)]),
    ("b, n", "none", INT4, np.float32, [(1, 1), (8, 16)]),
    ("b, n", "hash", INT4, np.float32, [(1, 9), (3, 5)]),
    ("b, n", "philox", INT4.replace(clip_gradient=False), np.float32, [(1, 9), (3, 5)]),
    ("b, n", "centered, last axis shared", INT4, np.float32, [(3, 5), (8, 1)]),
    ("b, 4, n", "philox", UNBIASED, jnp.bfloat16, [(1, 4, 1), (3, 4, 5)]),
    ("b-1, 5, 8", "jax", INT4, np.float32, [(0, 5, 8), (3, 5, 8)]),
    ("2, b, 8*n", "philox", INT4, np.float32, [(2, 3, 24), (2, 1, 8)]),
]


@pytest.mark.parametrize(
    ("symbols", "noise", "numerics", "dtype", "shapes"), CASES, ids=[f"{case[0]}; {case[1]}" for case in CASES]
)
def test_values_gradients_and_integers_are_the_formulas(
    symbols: str, noise: str, numerics: IntNumerics, dtype: Any, shapes: list[Shape]
) -> None:
    noise_fn, drawn = NOISE[noise]
    numerics = numerics.replace(noise_fn=noise_fn)
    program = exported(everything(numerics), (symbols, dtype), (symbols, dtype), WORDS)
    for shape in shapes:
        x, g = arrays(shape, dtype=dtype)
        jax.tree.map(assert_same_bits, program.call(x, g, WORDS), formula(numerics, x, g, drawn(shape)))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_program_for_one_platform_has_no_kernel(platform: str) -> None:
    text = exported(everything(NOISY), "b, 128", "b, 128", WORDS, platforms=(platform,)).mlir_module()
    assert "tpu_custom_call" not in text
    assert "triton" not in text


@pytest.mark.parametrize("name", [name for name in NOISE if name != "none"])
def test_a_noise_function_draws_for_a_shape_with_symbols(name: str) -> None:
    noise_fn, drawn = NOISE[name]
    program = exported(lambda x, words: noise_fn(x.shape, key_of(words)), "b, n", WORDS)
    for shape in ((1, 11), (3, 8)):
        assert_same_bits(program.call(np.zeros(shape, np.float32), WORDS), drawn(shape))


def test_examples_of_a_batch_of_unknown_size_have_each_its_noise() -> None:
    def run(x: jax.Array, g: jax.Array, words: jax.Array) -> Any:
        return jax.vmap(everything(NOISY))(x, g, words)

    program = exported(run, "b, n", "b, n", ("b, 2", np.uint32))
    words = np.asarray([[0, 42], [7, 9], [1, 2]], np.uint32)
    x, g = arrays((3, 5))
    noise = np.stack([streams.uniform((5,), (int(high), int(low))) for high, low in words])
    jax.tree.map(assert_same_bits, program.call(x, g, words), formula(NOISY, x, g, noise))


def test_the_scale_and_the_second_derivative() -> None:
    numerics = IntNumerics.symmetric(8)

    def scaled(x: jax.Array) -> jax.Array:
        return quantize_to_int(x * (1 / absmax_scale(x, numerics, axis=-1)), numerics)

    x = np.rint(arrays((3, 5), 1)[0])
    x[:, 0] = 127.5  # so that a bucket is 1
    assert_same_bits(exported(scaled, "b, n").call(x), np.clip(np.rint(x), -127, 127).astype(np.int8))

    def second(x: jax.Array, g: jax.Array, v: jax.Array) -> jax.Array:
        first = jax.grad(lambda x: (g * quantize(x, INT4) ** 2).sum())
        return jax.vjp(first, x)[1](v)[0]

    for n, constraints in ((5, ()), (16, ("mod(n, 8) == 0",))):
        x, g, v = np.rint(arrays((3, n), 3))
        program = exported(second, "b, n", "b, n", "b, n", constraints=constraints)
        assert_same_bits(program.call(x, g, v), np.where(np.abs(x) <= 7, 2 * g * v, 0))


# --- several programs -------------------------------------------------------------------------------------------------


def test_a_stored_program_has_its_gradient() -> None:
    program = exported(lambda x, words: quantize(x, NOISY, key=key_of(words)), "b, n", WORDS, vjp_order=1)
    for shape in ((3, 5), (2, 16)):
        x, g = arrays(shape)
        y, backward = jax.vjp(lambda x: program.call(x, WORDS), jnp.asarray(x))
        expected = formula(NOISY, x, g, streams.uniform(shape, (0, 42)))
        assert_same_bits(y, expected[0])
        assert_same_bits(backward(jnp.asarray(g))[0], expected[1])


@pytest.mark.parametrize(
    ("symbols", "mask", "shapes"),
    [
        ("b, 128", "b, 16", [(1, 128), (3, 128)]),  # one bit per element
        ("b, 12", "b, 2", [(4, 12)]),  # in whole bytes per row, though an array of known sizes needs fewer
        ("5, 8*n", "5, n", [(5, 24)]),
        ("b, n", "b, n", [(4, 8), (1, 1)]),  # a byte per element
    ],
)
def test_programs_for_forward_and_backward_agree_on_the_packed_mask(
    symbols: str, mask: str, shapes: list[Shape]
) -> None:
    forward = exported(lambda x: INT4.vjp_fwd(x, None), symbols)
    backward = exported(lambda packed, g: INT4.vjp_bwd((packed,), g)[0], (mask, np.uint8), symbols)
    for shape in shapes:
        x, g = arrays(shape)
        y, (packed,) = forward.call(x)
        assert_same_bits(y, oracle.quantize(x, None, spec_of(INT4)))
        bits = np.abs(x) <= 7
        expected = bits.astype(np.uint8) if mask == symbols else np.packbits(bits, axis=-1, bitorder="little")
        assert_same_bits(packed, expected)
        assert_same_bits(backward.call(packed, g), np.where(bits, g, np.float32(0)))


def test_symbols_of_one_name_in_two_programs_are_not_mixed_up() -> None:
    programs = [exported(everything(NOISY), symbols, symbols, WORDS) for symbols in ("b, 8", "b, 8")]
    for program, shape in zip(programs, [(3, 8), (5, 8)], strict=True):
        x, g = arrays(shape)
        jax.tree.map(assert_same_bits, program.call(x, g, WORDS), formula(NOISY, x, g, streams.uniform(shape, (0, 42))))


# --- parts of larger arrays -------------------------------------------------------------------------------------------


def quantized(numerics: IntNumerics, **place: Any) -> Callable[..., jax.Array]:
    def run(x: jax.Array, words: jax.Array) -> jax.Array:
        at = {name: value(x.shape) for name, value in place.items()}
        return quantize(x, numerics, key=key_of(words), **at)

    return run


def test_rows_may_be_further_apart_than_32_bits_count() -> None:
    """The distance between two of them, 2**20 * n, is a product with a symbol."""
    far = 2**20
    place = quantized(NOISY, offset=lambda _: (1, 5, 0), global_shape=lambda shape: (8, far, shape[2]))
    program = exported(place, "2, 1, n", WORDS)
    for n in (16, 8192):
        (x,) = arrays((2, 1, n), 1)
        rows = [streams.uniform((1, n), (0, 42), (row * far + 5) * n // 8) for row in (1, 2)]
        assert_same_bits(program.call(x, WORDS), oracle.quantize(x, np.stack(rows), spec_of(NOISY)))


@pytest.mark.parametrize("noise", ["philox", "a user's"])
def test_a_part_of_unknown_size_begins_where_a_symbol_says(noise: str) -> None:
    noise_fn, drawn = NOISE[noise]

    def whole(shape: Shape) -> Shape:
        return 2 * shape[0], shape[1]

    place = quantized(INT4.replace(noise_fn=noise_fn), offset=lambda shape: (shape[0], 0), global_shape=whole)
    program = exported(place, "b, n", WORDS)
    for shape in ((1, 7), (3, 5)):
        (x,) = arrays(shape, 1)
        part = np.broadcast_to(drawn(whole(shape)), whole(shape))[shape[0] :]
        assert_same_bits(program.call(x, WORDS), oracle.quantize(x, part, spec_of(INT4)))


def test_a_part_must_be_known_to_be_within_the_whole() -> None:
    place = quantized(INT4.replace(noise_fn=users), offset=lambda _: (3, 0), global_shape=lambda _: (64, 8))
    with pytest.raises(ValueError, match=r"b \+ 3.*global_shape has 64.*constraints=\['b \+ 3 <= 64'\]"):
        exported(place, "b, 8", WORDS)
    (x,) = arrays((61, 8), 1)
    expected = oracle.quantize(x, np.asarray(users((64, 8), key_of(WORDS))), spec_of(INT4))
    assert_same_bits(exported(place, "b, 8", WORDS, constraints=("b + 3 <= 64",)).call(x, WORDS), expected)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "how"),
    [
        ("cuda", {"implementation": "pallas"}),
        ("cuda", {"implementation": "jax_triton"}),
        ("tpu", {"implementation": "pallas"}),
        ("cpu", {"implementation": "pallas", "interpret": "tpu"}),
    ],
    ids=str,
)
def test_a_kernel_by_name_is_refused(platform: str, how: dict[str, str]) -> None:
    def gradient(x: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: quantize(x, INT4, **how), x)[1](x)[0]

    for function in (gradient, lambda x: quantize_to_int(x, INT4, **how)):
        with pytest.raises(ValueError, match=r"the shape \(b, 128\) has symbolic sizes.*use implementation=None"):
            exported(function, "b, 128", platforms=(platform,))


def test_the_generator_of_a_tpu_is_refused() -> None:
    numerics = INT4.replace(noise_fn=HardwareUniform())
    with pytest.raises(ValueError, match=r"the shape \(b, 128\).*HardwareUniform.*HashUniform"):
        exported(quantized(numerics), "b, 128", WORDS, platforms=("tpu",))


def test_noise_of_another_symbolic_shape_is_refused() -> None:
    numerics = INT4.replace(noise_fn=lambda shape, key: jax.random.uniform(key, shape[::-1]))
    with pytest.raises(ValueError, match=r"shape \(n, b\), which does not broadcast to the shape \(b, n\) of x"):
        exported(quantized(numerics), "b, n", WORDS)
