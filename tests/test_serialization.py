"""Numerics and programs that leave the process: pickled, and as compiled programs; and subclasses."""

import copy
import dataclasses
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable
from jax.sharding import AxisType
from meshes import mesh, placed
from oracle import assert_same_bits
from original import numerics

from intnumerics import IntNumerics, PhiloxUniform, from_int, quantize
from intnumerics._operation import Operation
from intnumerics._partitioning import _Partitioner
from intnumerics._quantization import Quantize

X = np.linspace(-9, 9, 64, dtype=np.float32).reshape(8, 8)
INT4 = numerics(4)


class Plain(IntNumerics):
    pass


@dataclasses.dataclass(frozen=True)
class WithField(IntNumerics):
    name: str = dataclasses.field(default="w", kw_only=True)


@dataclasses.dataclass(frozen=True, slots=True)
class WithSlots(IntNumerics):
    name: str = dataclasses.field(default="w", kw_only=True)


@jax.tree_util.register_static
class RegisteredByItsAuthor(IntNumerics):
    pass


@jax.tree_util.register_pytree_node_class
class WithALeaf(IntNumerics):
    def tree_flatten(self) -> Any:
        return (jnp.float32(self.bits),), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: Any) -> IntNumerics:
        return cls.symmetric(4)


# --- subclasses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Plain, WithField, WithSlots, RegisteredByItsAuthor])
def test_a_subclass_is_a_static_value_under_every_transform(kind: type[IntNumerics]) -> None:
    n = kind.symmetric(4, preserve_max_val=True)
    assert jax.tree.leaves(n) == []
    expected = np.rint(np.clip(X, np.float32(-7), np.float32(7)))
    run = jax.jit(lambda x, n: quantize(x, n))
    assert_same_bits(run(X, n), expected)
    assert_same_bits(run(X, copy.deepcopy(n)), expected)
    assert run._cache_size() == 1
    assert_same_bits(jax.vmap(quantize, (0, None))(X, n), expected)
    assert_same_bits(jax.lax.scan(lambda n, x: (n, quantize(x, n)), n, X)[1], expected)


def test_a_subclass_that_is_another_kind_of_pytree_stays_so() -> None:
    assert jax.tree.leaves(WithALeaf.symmetric(4)) == [4]


@pytest.mark.parametrize("kind", [IntNumerics, Plain, WithField, WithSlots])
def test_numerics_are_pickled_and_copied(kind: type[IntNumerics]) -> None:
    n = kind.symmetric(4, noise_fn=PhiloxUniform(noise_sharing_axes=(0,)), noise_dtype=jnp.float32)
    for again in (pickle.loads(pickle.dumps(n)), copy.copy(n), copy.deepcopy(n)):
        assert again == n
        assert type(again) is kind
        assert hash(again) == hash(n)


# --- no transfer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [False, True])
def test_from_int_sends_nothing_to_the_device(zero: bool) -> None:
    n, q = INT4.replace(preserve_zero=zero), jnp.arange(-7, 7, dtype=jnp.int8)
    with jax.transfer_guard("disallow"):
        values = from_int(q, n, jnp.float32)
    assert_same_bits(values, np.arange(-7, 7, dtype=np.float32) + np.float32(0 if zero else 0.5))


# --- compiled programs ------------------------------------------------------------------------------------------------


def gradient(x: jax.Array) -> jax.Array:
    n = INT4.replace(noise_fn=PhiloxUniform())
    return jax.grad(lambda x: (quantize(x, n, key=jax.random.key(0)) ** 2).sum())(x)


@pytest.mark.mesh
def test_a_program_for_a_mesh_with_explicit_axes_is_written_and_loaded() -> None:
    x = placed(X, mesh(AxisType.Explicit), "rows", "lanes")
    program = jax.jit(gradient).lower(x).compile()
    loaded = serialize_executable.deserialize_and_load(*serialize_executable.serialize(program))
    assert_same_bits(loaded(x), jax.jit(gradient)(X))


def _run(operation: Operation, *arrays: jax.Array) -> list[jax.Array]:
    return list(arrays)


def test_what_stays_with_a_program_for_auto_axes_is_pickled() -> None:
    asked = _Partitioner(Quantize(INT4.spec()), _run)
    for method in (asked.partition, asked.infer):
        again = pickle.loads(pickle.dumps(method))
        assert (again.__name__, again.__self__) == (method.__name__, asked)


@pytest.mark.mesh  # docs/sharding.md says so: where JAX mends it, that changes, and this test with it
def test_only_jax_keeps_a_program_for_auto_axes_from_being_written() -> None:
    program = jax.jit(gradient).lower(placed(X, mesh(AxisType.Auto), "rows", "lanes")).compile()
    with pytest.raises(AttributeError, match=r"local object '_custom_partitioning_lowering_rule\."):
        serialize_executable.serialize(program)
