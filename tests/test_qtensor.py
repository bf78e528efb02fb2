"""What a QTensor holds: its values, bit for bit, its sizes, what it prints, and what it refuses.

Reshaping and indexing: test_qtensor_shapes.py. Transforms: test_qtensor_transforms.py.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import assert_same_bits
from original import numerics
from qtensors import dequantized, made
from refusals import compiled, refused

from intnumerics import IntNumerics, QTensor, quantize
from intnumerics.kernels import reference

INT8 = numerics(8)
Q, S = jnp.ones((4, 6), jnp.int8), jnp.ones((4, 1))


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(4, 1), (1, 64), (1, 1), (4, 64), (4, 4), (1, 2)], ids=str)
@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
def test_values_are_integers_times_scales_rounded_once(dtype: Any, scale: tuple[int, ...]) -> None:
    q, values = made((4, 64), scale, dtype=dtype)
    assert_same_bits(q.dequantize(), values)
    assert_same_bits(jax.jit(QTensor.dequantize)(q), values)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(
    ("bits", "stored"), [(1, "int2"), (2, "int2"), (4, "int4"), (4, "int8"), (9, "int16"), (22, "int32")]
)
def test_values_of_even_numbers_of_buckets_are_half_a_bucket_higher(bits: int, stored: str, zero: bool) -> None:
    q, values = made((4, 64), (4, 4), numerics(bits, preserve_zero=zero), ml_dtypes.bfloat16, jnp.dtype(stored))
    assert_same_bits(q.dequantize(), values)
    assert_same_bits(q.dequantize(jnp.float32), dequantized(q.qvalue, q.scale, q.numerics, np.float32))


def test_float64_scales_keep_their_precision() -> None:
    with jax.enable_x64(True):
        q, values = made((4, 64), (4, 8), numerics(8, preserve_zero=False), np.float64)
        assert_same_bits(q.dequantize(), values)
        assert_same_bits(q.dequantize(jnp.bfloat16), dequantized(q.qvalue, q.scale, q.numerics, ml_dtypes.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float32, "bfloat16", np.float16], ids=str)
def test_values_in_another_dtype_are_rounded_to_it_from_float32(dtype: Any) -> None:
    q, _ = made((4, 64), (4, 1), dtype=np.float16)
    assert_same_bits(q.dequantize(dtype), dequantized(q.qvalue, q.scale, INT8, jnp.dtype(dtype)))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (0, 4), (4, 0), (2, 3, 4, 5)], ids=str)
def test_every_rank_and_empty_arrays_have_values(shape: tuple[int, ...]) -> None:
    for scale in {shape, tuple(1 for _ in shape)}:
        q, values = made(shape, scale)
        assert_same_bits(q.dequantize(), values)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
def test_values_are_those_of_the_quantization_by_the_scale(dtype: Any, zero: bool) -> None:
    n = numerics(8, preserve_zero=zero)
    spec = n.spec()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)) * 90, dtype)
    scale = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, (4, 4)), jnp.float32)
    integers = dataclasses.replace(spec, integer_dtype=np.dtype(np.int8))
    q = QTensor(reference.quantize_by_scale(x, scale, None, integers), scale, n, dtype)
    expected = np.asarray(reference.quantize_by_scale(x, scale, None, spec))
    assert_same_bits(q.dequantize(), expected + np.asarray(0, dtype))  # 0.0 for -0.0


def test_no_compiler_changes_a_value_that_is_used_in_the_same_program() -> None:
    q, values = made((8, 64), (8, 1))
    y = np.random.default_rng(5).normal(size=values.shape).astype(np.float32)
    assert_same_bits(jax.jit(lambda q, y: q.dequantize() + y)(q, y), values + y)
    narrow = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert_same_bits(jax.jit(lambda q: q.dequantize(jnp.bfloat16).astype(jnp.float32) * 2)(q), narrow * 2)


def test_outside_of_jit_the_values_are_one_compiled_program() -> None:
    q, _ = made((4, 64), (4, 4), numerics(8, preserve_zero=False), ml_dtypes.bfloat16)
    jax.clear_caches()
    compiled.clear()
    with jax.transfer_guard("disallow"):
        q.dequantize()
    assert len(compiled) == 1


# --- sizes and text ---------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_x() -> None:
    q, _ = made((2, 3, 64), (2, 3, 4))
    assert (q.shape, q.ndim, q.size, len(q), q.block) == ((2, 3, 64), 3, 384, 2, 16)
    assert [row.shape for row in q] == [(3, 64), (3, 64)]
    assert (made((4, 6), (4, 1))[0].block, made((4, 6), (4, 6))[0].block) == (None, None)


@pytest.mark.parametrize(
    ("stored", "bits", "size"), [("int2", 2, 4), ("int4", 4, 8), ("int8", 8, 15), ("int16", 9, 30), ("int32", 22, 60)]
)
def test_bytes_are_those_of_integers_and_scales(stored: str, bits: int, size: int) -> None:
    q, _ = made((3, 5), (3, 1), numerics(bits), stored=jnp.dtype(stored))
    assert q.nbytes == size + 3 * 4
    assert jax.eval_shape(lambda: q).nbytes == size + 3 * 4


def test_it_prints_types_and_never_numbers() -> None:
    q, _ = made((4096, 1024), (4096, 1), dtype=ml_dtypes.bfloat16)
    text = "QTensor(int8[4096,1024], scale=float32[4096,1], bits=8, dtype=bfloat16)"
    assert repr(q) == str(q) == text
    assert repr(jax.eval_shape(lambda: q)) == repr(jax.device_get(q)) == text
    seen = []
    jax.jit(lambda q: seen.append(repr(q)))(q)
    assert seen == [text]
    leaves = jax.tree.map(lambda _: None, q), jax.tree.map(lambda _: True, q)
    assert [repr(q) for q in leaves] == [
        f"QTensor({leaf}, scale={leaf}, bits=8, dtype=bfloat16)" for leaf in ("None", "True")
    ]


# --- refusals ---------------------------------------------------------------------------------------------------------


WRONG: dict[str, tuple[Any, type[Exception], tuple[str, ...]]] = {
    "qvalue of floats": ((S, S, INT8, "float32"), TypeError, ("qvalue has dtype float32", "integers")),
    "qvalue without signs": ((Q.astype("uint8"), S, INT8, "float32"), TypeError, ("uint8", "int8", "qvalue.astype")),
    "qvalue of a list": (([1], S, INT8, "float32"), TypeError, ("qvalue=[1]", "not an array")),
    "scale of integers": ((Q, Q, INT8, "float32"), TypeError, ("scale has dtype int8",)),
    "narrow scale": ((Q, S.astype("bfloat16"), INT8, "bfloat16"), TypeError, ("scale has dtype bfloat16", "float32")),
    "scale of another rank": ((Q, S[:, 0], INT8, "float32"), ValueError, ("scale has shape (4,)", "(4, 6)", "axes")),
    "scale of another size": ((Q, S[:2], INT8, "float32"), ValueError, ("scale has shape (2, 1)", "(4, 6)")),
    "unequal blocks": ((Q, jnp.ones((4, 4)), INT8, "float32"), ValueError, ("(4, 4)", "(4, 6)", "equal blocks")),
    "no blocks": ((Q, jnp.ones((4, 0)), INT8, "float32"), ValueError, ("(4, 0)", "(4, 6)")),
    "blocks of the first axis": ((Q, jnp.ones((2, 6)), INT8, "float32"), ValueError, ("(2, 6)", "(4, 6)")),
    "no numerics": ((Q, S, 8, "float32"), TypeError, ("numerics=8", "IntNumerics.symmetric")),
    "dtype of integers": ((Q, S, INT8, "int8"), TypeError, ("dtype='int8'", "float dtype")),
}


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_qtensor_is_refused(arguments: Any, kind: type[Exception], words: tuple[str, ...]) -> None:
    with refused(kind, *words):
        QTensor(*arguments)


def test_a_dtype_that_is_not_of_floats_is_refused() -> None:
    q, _ = made((4, 6), (4, 1))
    with refused(TypeError, "dtype=<class 'jax.numpy.int8'>", "float dtype"):
        q.dequantize(jnp.int8)


USES: dict[str, Callable[[Any], Any]] = {
    "np.asarray": np.asarray,
    "np.add": lambda q: np.add(q, 1),
    "NumPy's operators": lambda q: np.ones((4, 6)) * q,
    "jnp.asarray": jnp.asarray,
    "jnp.sin": jnp.sin,
    "jnp.einsum": lambda q: jnp.einsum("ij,kj->ik", jnp.ones((4, 6)), q),
    "JAX's operators": lambda q: jnp.ones((4, 6)) - q,
    "q * 2": lambda q: q * 2,
    "2 / q": lambda q: 2 / q,
    "q @ x": lambda q: q @ jnp.ones((6, 4)),
    "-q": lambda q: -q,
    "q < 1": lambda q: q < 1,
    "1 in q": lambda q: 1 in q,
    "bool": bool,
    "quantize": lambda q: quantize(q, INT8),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_it_is_not_taken_for_an_array(use: Callable[[Any], Any]) -> None:
    q, _ = made((4, 6), (4, 1))
    jnp.ones((4, 6))  # which the refusal may need compiled
    with pytest.raises(TypeError, match=r"QTensor\(int8\[4,6\].* is not an array: use its dequantize\(\)"):
        use(q)


def test_it_is_frozen_equal_to_itself_alone_and_has_no_hash() -> None:
    q, _ = made((4, 6), (4, 1))
    assert q == q
    assert q != QTensor(q.qvalue, q.scale, q.numerics, q.dtype)
    with pytest.raises(dataclasses.FrozenInstanceError):
        q.scale = S  # type: ignore[misc]
    with pytest.raises(TypeError, match="unhashable"):
        hash(q)


def test_numpy_arrays_are_taken_and_a_field_can_be_replaced() -> None:
    q = QTensor(np.asarray(Q), np.asarray(S), IntNumerics.symmetric(8), "bfloat16")  # type: ignore[arg-type]
    assert isinstance(q.qvalue, jax.Array)
    assert isinstance(q.scale, jax.Array)
    assert_same_bits(dataclasses.replace(q, scale=S * 2).dequantize(), np.full((4, 6), 2, ml_dtypes.bfloat16))
    with pytest.raises(ValueError, match="scale has shape"):
        dataclasses.replace(q, scale=S[0])
