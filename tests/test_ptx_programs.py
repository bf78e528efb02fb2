"""Programs compiled for an H100 and run on a CPU: which kernels are launched, with what, and what comes out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
import streams
from jax import lax
from jax.experimental import pallas as pl
from oracle import assert_same_bits

from intnumerics import IntNumerics, quantize, quantize_to_int
from intnumerics.kernels import QuantSpec
from intnumerics.stochastic_rounding import PhiloxUniform
from tools import ptx

pytestmark = [pytest.mark.ptx, pytest.mark.tools]

NUMERICS = IntNumerics(8, True, True, True, True, True, None)
STOCHASTIC = NUMERICS.replace(noise_fn=PhiloxUniform())
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
WORDS = (0x243F6A88, 0x85A308D3)
KEY = np.asarray(WORDS, np.uint32)
BF16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(7)


def numbers(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    x = (RNG.normal(size=shape) * 100).astype(dtype)
    x.reshape(-1)[:6] = np.asarray([np.nan, -0.0, np.inf, -np.inf, 126.5, 1e-40], dtype)
    return x


def run(function: Callable[..., Any], *arrays: Any) -> Any:
    return ptx.compile(function, *arrays)(*arrays)


# --- programs ---------------------------------------------------------------------------------------------------------


def test_a_program_of_one_kernel_gives_the_formula() -> None:
    x = numbers((5000,))
    program = ptx.compile(lambda x: quantize(x, NUMERICS, implementation="pallas"), x)
    [kernel] = program.kernels
    assert (kernel.name, kernel.shared, kernel.block[1:]) == ("intnumerics_quantize", 0, (1, 1))
    assert_same_bits(program(x), oracle.quantize(x, None, NEAREST))
    [execution] = program.executions
    assert sum(execution.counts.values()) > x.size


def test_a_gradient_of_ragged_rows_pads_and_slices_around_the_kernels() -> None:
    x = numbers((3, 5025), BF16)
    x[np.isnan(x)] = 1  # for the sum

    def loss(x: jax.Array, key: jax.Array) -> jax.Array:
        return quantize(x, STOCHASTIC, key=key, implementation="pallas").astype(jnp.float32).sum()

    program = ptx.compile(jax.value_and_grad(loss), x, KEY)
    names = [kernel.name for kernel in program.kernels]
    assert {"intnumerics_quantize", "intnumerics_clip_gradient_from_mask"} < set(names)
    assert len(names) > 4
    value, gradient = program(x, KEY)
    codes = oracle.quantize(x, streams.uniform(x.shape, WORDS), NEAREST)
    assert_same_bits(value, codes.astype(np.float64).sum().astype(np.float32))  # whole numbers: exact in any order
    assert_same_bits(gradient, oracle.mask(x, NEAREST).astype(BF16))


@pytest.mark.parametrize("implementation", ["pallas", "xla"])
def test_each_example_of_a_vmap_has_the_noise_of_its_key(implementation: Any) -> None:
    x, keys = numbers((3, 1001)), np.asarray([[1, 2], [3, 4], [5, 6]], np.uint32)
    one = lambda x, key: quantize_to_int(x, STOCHASTIC, key=key, implementation=implementation)  # noqa: E731
    noise = np.stack([streams.uniform((1001,), (first, second)) for first, second in keys.tolist()])
    expected = oracle.quantize(x, noise, QuantSpec(127.0, True, "half_to_even", integer_dtype=np.dtype(np.int8)))
    assert_same_bits(run(jax.vmap(one), x, keys), expected)


@pytest.mark.jax_triton
def test_a_kernel_of_jax_triton_is_launched_as_its_call_says() -> None:
    x = numbers((3, 3000), np.float16)
    program = ptx.compile(lambda x, key: quantize(x, STOCHASTIC, key=key, implementation="jax_triton"), x, KEY)
    kernel = program.kernels[-1]
    assert (kernel.name, kernel.grid[1:], kernel.block[1:]) == ("quantize", (1, 1), (1, 1))
    assert kernel.block[0] * kernel.grid[0] >= 128
    noise = streams.uniform(x.shape, WORDS)
    assert_same_bits(program(x, KEY), oracle.quantize(x, noise, NEAREST))


def test_fusions_of_xla_give_jaxs_own_bits() -> None:
    """Threefry is integers only, so XLA's program for a CPU is a judge of the one for a GPU."""
    bits = lambda words: jax.random.bits(jax.random.wrap_key_data(words, impl="threefry2x32"), (1001,), "uint32")  # noqa: E731
    assert_same_bits(run(bits, KEY), jax.jit(bits)(KEY))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_reductions_through_shuffles_and_shared_memory_add_every_number(axis: int | None) -> None:
    x = RNG.integers(-100, 100, (150, 257)).astype(np.float32)  # sums of whole numbers are exact in any order
    program = ptx.compile(lambda x: jnp.sum(x, axis), x)
    assert_same_bits(program(x), x.sum(axis, dtype=np.float32))
    assert any(form.startswith("shfl") for execution in program.executions for form in execution.counts)


def test_a_transposed_copy_goes_through_shared_memory() -> None:
    x = numbers((70, 129))
    program = ptx.compile(lambda x: x.T, x)
    assert_same_bits(program(x), x.T)
    assert any("shared" in form for form in program.executions[0].counts)


@pytest.mark.parametrize(
    ("given", "taken"), [(np.float32, np.int32), (BF16, np.uint16), (np.float16, np.int16), (np.int8, np.uint8)]
)
def test_bits_of_one_type_taken_as_another(given: Any, taken: Any) -> None:
    x = RNG.integers(0, 256, 1000 * np.dtype(given).itemsize).astype(np.uint8).view(given)
    result = run(lambda x: lax.bitcast_convert_type(x, taken) ^ np.asarray(5, taken), x)
    assert_same_bits(result, x.view(taken) ^ np.asarray(5, taken))


def test_results_are_a_pytree_with_constants_copies_and_a_result_twice() -> None:
    constant = numbers((2, 3, 7))
    constant[np.abs(constant) < 2.0**-126] = 1  # JAX 0.11 and later fold subnormal constants to 0

    def function(given: dict[str, jax.Array]) -> Any:
        x = given["x"]
        return {
            "as it is": x,
            "sum": x + constant[0],
            "flags": [jnp.asarray(constant > 0)],
            "twice": (constant,) * 2,
        }

    x = numbers((3, 7))
    result = run(function, {"x": x})
    assert sorted(result) == ["as it is", "flags", "sum", "twice"]
    assert_same_bits(result["as it is"], x)
    assert_same_bits(result["sum"], x + constant[0])
    assert_same_bits(result["flags"][0], constant > 0)
    for one in result["twice"]:
        assert_same_bits(one, constant)


# --- memory -----------------------------------------------------------------------------------------------------------


def call(kernel: Callable[..., None], *arrays: Any, warps: int = 1, **options: Any) -> Any:
    from jax.experimental.pallas import triton as pallas_triton

    parameters = pallas_triton.CompilerParams(num_warps=warps, num_stages=1)
    shape = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
    return pl.pallas_call(kernel, shape, compiler_params=parameters, **options)(*arrays)


def add(a: Any, b: Any, result: Any) -> None:
    result[...] = a[...] + b[...]


def test_one_array_can_be_two_operands_and_one_kernel_can_be_launched_twice() -> None:
    x, y = numbers((128,)), numbers((128,))
    program = ptx.compile(lambda x, y: call(add, call(add, x, x), y), x, y)
    assert [kernel.name for kernel in program.kernels] == ["add", "add"]
    assert_same_bits(program(x, y), x + x + y)


def test_a_result_in_the_memory_of_an_operand_leaves_the_argument_as_it_was() -> None:
    x, y = numbers((128,)), numbers((128,))
    before = x.copy()

    def function(x: jax.Array, y: jax.Array) -> jax.Array:
        return call(add, call(add, x, y), y, input_output_aliases={0: 0})

    program = ptx.compile(function, x, y)
    assert [len(set(kernel.parameters)) for kernel in program.kernels] == [3, 2]
    assert_same_bits(program(x, y), x + y + y)
    assert_same_bits(x, before)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="XLA copies asynchronously from JAX 0.11 on: not known")
@pytest.mark.parametrize("source", [slice(0, 9), slice(100, 109)], ids=str)
def test_a_part_of_an_array_is_copied_into_another_in_place(source: slice) -> None:
    x = numbers((1024,))
    program = ptx.compile(lambda x: call(add, x, x).at[3:12].set(x[source]), x)
    assert [kernel.name for kernel in program.kernels] == ["add"]
    expected = x + x
    expected[3:12] = x[source]
    assert_same_bits(program(x), expected)


def test_a_kernel_that_writes_its_operand_is_found() -> None:
    def to_its_operand(x: Any, result: Any) -> None:
        result[...] = x[...]
        from jax.experimental.pallas import triton as pallas_triton

        pallas_triton.store(x.at[...], x[...] + 1)

    with pytest.raises(ptx.AccessError, match="constant"):
        run(lambda x: call(to_its_operand, x), numbers((128,)))


def test_a_kernel_has_the_dynamic_shared_memory_of_its_launch() -> None:
    def less_its_sum(x: Any, result: Any) -> None:
        result[...] = x[...] - jnp.sum(x[...])

    x = RNG.integers(-100, 100, 1024).astype(np.float32)
    program = ptx.compile(lambda x: call(less_its_sum, x, warps=4), x)
    assert program.kernels[0].shared > 0
    assert_same_bits(program(x), x - x.sum())


def test_what_a_kernel_does_not_write_is_seen() -> None:
    def first_half(x: Any, result: Any) -> None:
        result[pl.ds(0, 64)] = x[pl.ds(0, 64)]

    x = numbers((128,))
    result = run(lambda x: call(first_half, x), x)
    assert_same_bits(result[:64], x[:64])
    assert (result[64:].view(np.uint8) == ptx.UNWRITTEN).all()


def test_some_blocks_of_a_kernel_write_their_part_only() -> None:
    x = numbers((1 << 16,), BF16)
    program = ptx.compile(lambda x: quantize(x, NUMERICS, implementation="pallas"), x)
    [kernel] = program.kernels
    per_block = x.size // kernel.grid[0]
    result = program(x, blocks={kernel.name: (0, 3)})
    whole, wrote = program(x), (np.arange(x.size) // per_block == 0) | (np.arange(x.size) // per_block == 3)
    assert_same_bits(whole, oracle.quantize(x, None, NEAREST))
    assert_same_bits(result[wrote], whole[wrote])
    assert (result[~wrote].view(np.uint8) == ptx.UNWRITTEN).all()
    with pytest.raises(ValueError, match="no kernel another: the kernels are intnumerics_quantize"):
        program(x, blocks={"another": (0,)})


# --- what raises ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "instruction", "reason"),
    [
        (lambda x: lax.fori_loop(0, 5, lambda i, y: y * 1.5, x), r"while[.\d]* \(while\)", "what it launches"),
        (jnp.sort, r"fusion[.\d]* \(fusion\)", "it became kCopy, kCustomKernel, and not one kernel"),
        (lambda x: x.astype(jnp.int4), r"\w+ \(fusion\)", r"its type s4\["),
    ],
    ids=["a loop", "a sort", "a dtype"],
)
def test_an_instruction_that_is_not_known_is_named(function: Callable[..., Any], instruction: str, reason: str) -> None:
    with pytest.raises(ptx.UnsupportedError, match=rf"HLO instruction %{instruction}: {reason}"):
        ptx.compile(function, numbers((1024,)))


def test_arguments_that_the_program_was_not_compiled_for_are_named() -> None:
    program = ptx.compile(lambda unused, y: y + y, *[jax.ShapeDtypeStruct((8,), jnp.float32)] * 2)
    x = numbers((8,))
    assert_same_bits(program(x, x), x + x)
    with pytest.raises(ValueError, match=r"argument 1 is float16\(8,\), compiled for float32\(8,\)"):
        program(x, x.astype(np.float16))
    with pytest.raises(ValueError, match="the arguments are"):
        program(x)
