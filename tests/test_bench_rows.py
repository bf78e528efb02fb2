"""What the benchmark says of rows to int8 and scales: right results of all, with the scales checked too."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scaled_oracle

from bench import arrays, baselines, libraries, results, runner, variant
from bench.cases import Case
from bench.names import IN_PYTORCH, OURS, ROWS
from bench.operation import Operation
from bench.operations import operations, rounded_rows
from bench.runner import Runner
from bench.timing import Patience, Spares
from bench.variant import Variant
from intnumerics.kernels import QuantSpec, Scaling

pytestmark = pytest.mark.tools

BRIEF = Patience(least=2, most=2, seconds=0.0)
OF_ROWS = [operation for operation in operations() if "quantize rows" in operation.name]


def wrong(operation: Operation, name: str, one: Variant, dtype: str = "bfloat16") -> str:
    """What is said of a variant."""
    case = Case(operation, dtype, arrays.shape_of(operation.rank, 1 << 14))
    pool = arrays.pool({*one.takes, *operation.takes}, case.shape, dtype, cache=1)
    return runner.check(case, {name: one}, [runner.make(name, one, pool, Spares(), "one")], pool[0])[name]


def test_rows_are_of_tokens_and_features_with_philox_and_without_alone_and_after_a_layer_norm() -> None:
    names = {operation.name for operation in OF_ROWS}
    assert names == {
        f"{before}quantize rows to int8 and scales{noise}"
        for before in ("", "layer norm, ")
        for noise in ("", " with PhiloxUniform", *([" with HashUniform"] if not before else []))
    }
    assert {arrays.shape_of(operation.rank, 1 << 20) for operation in OF_ROWS} == {(1024, 1024)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operation", OF_ROWS, ids=lambda operation: operation.name)
def test_every_other_way_to_quantize_rows_is_right(operation: Operation, dtype: str) -> None:
    found = {name: wrong(operation, name, one, dtype) for name, one in operation.others.items()}
    assert found == dict.fromkeys(operation.others, "")
    assert next(iter(found)).startswith(ROWS)
    for package, name in (("AQT", "AQT's Quantizer"), ("Qwix", "Qwix's quantize")):
        assert any(other.startswith(name) for other in found) == (not libraries._absent(package))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_numpy_says_of_rows_is_the_contract_to_the_bit(dtype: Any) -> None:
    x = np.asarray(jax.random.normal(jax.random.key(0), (64, 1000)).astype(dtype))
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", integer_dtype=np.dtype(np.int8))
    scale = scaled_oracle.scale_of(scaled_oracle.largest_finite(x, None), Scaling(127.0, fits=True))
    integers, scales = rounded_rows({"x": x})
    oracle.assert_same_bits(scales, scale)
    oracle.assert_same_bits(integers.astype(np.int8), scaled_oracle.quantize_by_scale(x, scale, None, spec))


def test_the_formula_for_rows_is_absmax_divide_round_and_clip() -> None:
    x = np.asarray(jax.random.normal(jax.random.key(0), (16, 256)))
    noise = np.asarray(jax.random.uniform(jax.random.key(1), x.shape) - 0.5)
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    for drawn in (None, noise):
        integers, scales = baselines.by_rows(jnp.asarray(x), None if drawn is None else jnp.asarray(drawn))
        np.testing.assert_allclose(scales, scale, rtol=1e-6)
        wanted = np.rint(np.clip(x / scale + (0 if drawn is None else drawn), -127, 127))
        assert integers.dtype == jnp.int8
        assert np.count_nonzero(np.asarray(integers) != wanted) <= 1  # a tie, where a device divides in another way


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q, scale: (q, scale * 1.001), "values differ from NumPy's"),
        (lambda q, scale: (q + 1, scale), "values differ from NumPy's"),
    ],
)
def test_integers_and_scales_of_ours_that_are_not_to_the_bit_are_wrong(change: Any, said: str) -> None:
    [rows] = [operation for operation in OF_ROWS if operation.name == "quantize rows to int8 and scales"]
    ours = rows.variants(())[OURS]

    def changed(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return change(*jax.tree.leaves(ours.function(x)))

    assert not wrong(rows, OURS, ours)
    assert said in wrong(rows, OURS, Variant(changed, ("x",)))


def test_scales_of_others_may_be_a_hundredth_off() -> None:
    scales = np.asarray([0.5, 2.0], np.float32)
    assert not variant.near(scales * np.float32(127.5 / 127), scales)
    assert variant.near(scales * np.asarray([1.0, 1.02], np.float32), scales) == "a scale is off by 2.0% from NumPy's"
    assert variant.near(scales * np.nan, scales)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_pytorch_gives_integers_and_scales_in_an_operation_at_a_time_and_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "torch_on", ["cpu"])
    libraries._absent.cache_clear()
    for noisy in (False, True):
        found = {name: one for name, one in libraries.by_rows(noisy).items() if one.kind == "torch"}
        assert any(name.startswith(IN_PYTORCH) for name in found)
        operation = OF_ROWS[noisy]
        assert {name: wrong(operation, name, one) for name, one in found.items()} == dict.fromkeys(found, "")
    libraries._absent.cache_clear()


def test_rows_of_any_shape_are_measured_beside_a_copy_of_as_many_bytes() -> None:
    case = Case(OF_ROWS[0], "bfloat16", (2, 4096))
    found = Runner(("xla",), BRIEF, longest=60.0).run(case)
    assert found["least_bytes"] == 2 * 4096 * (2 + 1) + 2 * 4  # x, the integers, and the scales
    assert {OURS, f"{OURS}, xla", ROWS, *results.COPIES} <= set(found["results"])
    assert not [name for name, one in found["results"].items() if "wrong" in one or "error" in one]
