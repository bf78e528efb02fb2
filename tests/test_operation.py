"""An operation that the package does not have, described here, runs under every transform: the stack reads no names."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType
from meshes import KINDS, collectives, mesh, placed
from oracle import assert_same_bits
from refusals import refused

from intnumerics import _primitive
from intnumerics._operation import Arrays, Axes, Operand, Operation, Result, Shape, Typed


@dataclasses.dataclass(frozen=True)
class ScaleRows(Operation):
    """x over the power of 2 above its row's largest magnitude, but no less than a floor; and the exponent.

    It has a reduction along rows, an operand that broadcasts, and a result with an axis less and another dtype.
    """

    name: ClassVar[str] = "scale_rows"
    whole_axes: ClassVar[tuple[int, ...]] = (-1,)

    times: float

    @property
    def operands(self) -> tuple[Operand, ...]:
        return Operand("x"), Operand("noise", broadcasts=True)

    def results(self, *operands: Typed) -> tuple[Result, ...]:
        shape = tuple(operands[0].shape)
        axes: Axes = tuple(range(len(shape)))
        return Result(shape, np.dtype(np.float32), axes), Result(shape[:-1], np.dtype(np.int16), axes[:-1])

    def formula(self, *operands: jax.Array) -> Arrays:
        x, floor = operands
        exponent = jnp.frexp(jnp.max(jnp.abs(x), axis=-1))[1]
        scaled = jnp.ldexp(x * jnp.float32(self.times), -exponent[..., None])
        return [jnp.maximum(scaled, floor), exponent.astype(jnp.int16)]


X = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
FLOOR = np.linspace(-1, 1, 16, dtype=np.float32)[None]


def scale_rows(x: Any, floor: Any = FLOOR, times: float = 4.0, implementation: str | None = None) -> Any:
    x, floor = jnp.asarray(x), jnp.asarray(floor)
    return tuple(_primitive.run(ScaleRows(times), x, floor, implementation=implementation, interpret=None))


def in_numpy(x: np.ndarray, floor: np.ndarray = FLOOR, times: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    exponent = np.frexp(np.abs(x).max(axis=-1))[1]
    return np.maximum(np.ldexp(x * np.float32(times), -exponent[..., None]), floor), exponent.astype(np.int16)


def assert_is_right(found: Any, x: np.ndarray = X, **arguments: Any) -> None:
    for result, expected in zip(found, in_numpy(x, **arguments), strict=True):
        assert_same_bits(result, expected)


def test_eagerly_and_under_jit() -> None:
    assert_is_right(scale_rows(X))
    assert_is_right(jax.jit(scale_rows)(X))
    assert_is_right(scale_rows(X, times=2.0), times=2.0)
    with jax.disable_jit():
        assert_is_right(scale_rows(X))


def test_under_vmap_along_any_axis_with_what_examples_share_and_what_they_do_not() -> None:
    batch = np.stack([X, 3 * X, X - 1])
    assert_is_right(jax.vmap(scale_rows)(batch), batch)
    moved = jax.vmap(scale_rows, in_axes=1, out_axes=(1, 1))(np.moveaxis(batch, 0, 1))
    assert_is_right([np.moveaxis(np.asarray(a), 1, 0) for a in moved], batch)
    floors = np.stack([FLOOR, FLOOR + 1, FLOOR + 2])
    assert_is_right(jax.vmap(scale_rows, (None, 0))(X, floors), np.stack([X] * 3), floor=floors)
    assert_is_right(jax.vmap(jax.vmap(scale_rows, (0, None)), (0, None))(batch[None], FLOOR), batch[None])


def test_the_gradient_is_that_of_the_formula() -> None:
    def loss(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, floor: (run(x, floor)[0] ** 2).sum()

    formula = loss(ScaleRows(4.0).formula)
    for x, floor in ((X, FLOOR), (X[:1] + 1, FLOOR)):
        found, expected = (jax.jit(jax.grad(f, (0, 1)))(x, floor) for f in (loss(scale_rows), formula))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
        found, expected = (jax.jit(jax.hessian(f))(x[0, None], floor) for f in (loss(scale_rows), formula))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    found, expected = (jax.vmap(jax.grad(f), (0, None))(X[:, None], FLOOR) for f in (loss(scale_rows), formula))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("split", "sends"), [(("rows",), []), ((("rows", "lanes"),), []), (("rows", "lanes"), ["all-gather"])], ids=str
)
def test_on_eight_devices_rows_stay_where_they_are_and_only_split_rows_are_gathered(
    kind: AxisType, split: Sequence[Any], sends: list[str]
) -> None:
    on = mesh(kind)
    x, floor = placed(X, on, *split), placed(FLOOR, on)
    compiled = jax.jit(scale_rows).lower(x, floor).compile()
    assert collectives(compiled) == sends
    y, exponent = compiled(x, floor)
    assert_is_right((y, exponent))
    assert len({str(shard.index) for shard in exponent.addressable_shards}) == (8 if split[0] != "rows" else 4)
    batch = placed(np.stack([X] * 4), on, None, *split)
    assert_is_right(jax.jit(jax.vmap(scale_rows, (0, None)))(batch, floor), np.stack([X] * 4))


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
def test_on_eight_devices_the_gradient_is_that_of_one(kind: AxisType) -> None:
    def gradient(x: Any, floor: Any) -> Any:
        return jax.grad(lambda x: (scale_rows(x, floor)[0] ** 2).sum())(x)

    on = mesh(kind)
    found = jax.jit(gradient)(placed(X, on, "rows", "lanes"), placed(FLOOR, on))
    np.testing.assert_allclose(np.asarray(found), np.asarray(gradient(X, FLOOR)), rtol=1e-5, atol=1e-5)
    if kind == AxisType.Explicit:
        assert jax.typeof(found).sharding.spec == jax.typeof(placed(X, on, "rows", "lanes")).sharding.spec


def test_a_program_is_exported_for_any_number_of_rows_and_another_platform() -> None:
    x = jax.ShapeDtypeStruct(export.symbolic_shape("b, 16"), jnp.float32)
    stored = export.export(jax.jit(lambda x: scale_rows(x)), platforms=("cpu", "cuda", "tpu"))(x).serialize()
    assert_is_right(export.deserialize(bytearray(stored)).call(X))


def test_it_runs_by_its_formula_and_an_implementation_without_it_is_refused_by_name() -> None:
    assert_is_right(scale_rows(X, implementation="reference"))
    with refused(ValueError, "implementation='xla'", "does not have the operation 'scale_rows'", "'reference'", "None"):
        scale_rows(X, implementation="xla")


def test_a_shape_and_operations_that_differ_are_programs_of_their_own() -> None:
    names = {_primitive.program(_primitive.Call(ScaleRows(times))).__name__ for times in (1.0, 2.0, 1.0)}
    assert len(names) == 2
    shapes: list[Shape] = [jax.eval_shape(scale_rows, X)[1].shape, jax.eval_shape(scale_rows, X[None])[1].shape]
    assert shapes == [(8,), (1, 8)]
