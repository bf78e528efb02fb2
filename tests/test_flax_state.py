"""A Flax state that holds numerics or a QTensor is written and read. Flax is where AQT is (`make test-aqt`)."""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from oracle import assert_same_bits
from qtensors import made

from intnumerics import IntNumerics, QTensor, quantize

serialization: Any = pytest.importorskip("flax.serialization", reason="needs Flax, which `make test-aqt` installs")

pytestmark = pytest.mark.aqt

X = np.linspace(-9, 9, 64, dtype=np.float32).reshape(8, 8)


class Plain(IntNumerics):
    pass


@pytest.mark.parametrize("kind", [IntNumerics, Plain])
def test_a_state_with_numerics_is_written_and_read(kind: type[IntNumerics]) -> None:
    state = {"params": {"w": X}, "numerics": kind.symmetric(4), "step": 3}
    written = serialization.to_bytes(state)
    target = {"params": {"w": np.zeros_like(X)}, "numerics": kind.symmetric(8), "step": 0}
    read = serialization.from_bytes(target, written)
    assert_same_bits(read["params"]["w"], X)
    assert (read["step"], read["numerics"]) == (3, kind.symmetric(8))  # what is static is the target's


def test_numerics_that_were_made_before_flax_was_imported_are_known_to_it_once_they_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Early(IntNumerics):
        pass

    with monkeypatch.context() as before:
        before.delitem(sys.modules, "flax.serialization")
        numerics = Early.symmetric(8)
    with pytest.raises(TypeError, match="serialize"):
        serialization.to_bytes({"numerics": numerics})
    quantize(X, numerics)
    serialization.to_bytes({"numerics": numerics})


@pytest.mark.parametrize("stored", [jnp.int4, jnp.int8, jnp.int16])
def test_a_state_with_a_qtensor_is_written_and_read(stored: Any) -> None:
    q, values = made((4, 64), (4, 4), IntNumerics.symmetric(4), ml_dtypes.bfloat16, stored)
    written = serialization.to_bytes({"params": {"w": q}, "step": 3})
    target = {"params": {"w": jax.tree.map(jnp.zeros_like, q)}, "step": 0}
    read = serialization.from_bytes(target, written)
    w = read["params"]["w"]
    assert isinstance(w, QTensor)
    assert_same_bits(w.qvalue, q.qvalue)
    assert_same_bits(w.dequantize(), values)
    assert serialization.to_state_dict(q).keys() == {"qvalue", "scale"}


def test_a_state_without_the_fields_of_a_qtensor_is_refused() -> None:
    q, _ = made((4, 64), (4, 4))
    with pytest.raises(ValueError, match=r"scale"):
        serialization.from_state_dict(q, {"qvalue": q.qvalue})


def test_a_qtensor_that_was_made_before_flax_was_imported_is_known_to_it_once_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serialization, "_STATE_DICT_REGISTRY", known := dict(serialization._STATE_DICT_REGISTRY))
    known.pop(QTensor, None)
    with monkeypatch.context() as before:
        before.delitem(sys.modules, "flax.serialization")
        q, _ = made((4, 64), (4, 4))
    assert QTensor not in known
    q.dequantize()
    assert serialization.to_state_dict(q).keys() == {"qvalue", "scale"}


def test_optax_trains_what_is_beside_a_qtensor() -> None:
    optax: Any = pytest.importorskip("optax")
    q, values = made((4, 64), (4, 4))
    params = {"w": jnp.asarray(X), "frozen": q}
    labels = {"w": "train", "frozen": jax.tree.map(lambda _: "freeze", q)}
    optimizer = optax.multi_transform({"train": optax.sgd(0.5), "freeze": optax.set_to_zero()}, labels)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        gradient = {"w": jnp.ones_like(X), "frozen": jax.tree.map(jnp.zeros_like, q)}
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, _ = step(params, optimizer.init(params))
    assert_same_bits(params["w"], X - np.float32(0.5))
    assert_same_bits(params["frozen"].dequantize(), values)


def test_a_qtensor_is_the_momentum_of_an_optimizer() -> None:
    optax: Any = pytest.importorskip("optax")

    def stored(m: Any) -> QTensor:
        return QTensor(m.astype(jnp.int8), jnp.ones((8, 1)), IntNumerics.symmetric(8), jnp.float32)

    def update(g: Any, state: QTensor, _: Any = None) -> Any:
        m = state.dequantize() * 2 + g
        return m, stored(m)

    momentum = optax.GradientTransformation(lambda p: stored(jnp.zeros_like(p)), update)
    optimizer = optax.chain(momentum, optax.scale(-1.0))

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = jnp.asarray(X), optimizer.init(jnp.asarray(X))
    params, state = jax.jit(lambda carry, g: jax.lax.scan(step, carry, g)[0], donate_argnums=0)(
        start, jnp.ones((3, 8, 8))
    )
    assert_same_bits(params, X - np.float32(1) - np.float32(3) - np.float32(7))
    assert_same_bits(state[0].dequantize(), np.full((8, 8), 7, np.float32))


@pytest.mark.parametrize("stored", [jnp.int4, jnp.int8])
def test_orbax_saves_and_restores_a_qtensor(tmp_path: pathlib.Path, stored: Any) -> None:
    checkpoints: Any = pytest.importorskip("orbax.checkpoint")
    q, values = made((4, 64), (4, 4), IntNumerics.symmetric(4), ml_dtypes.bfloat16, stored)
    with checkpoints.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", {"w": q, "step": 3})
        checkpointer.wait_until_finished()
        like = jax.eval_shape(lambda: {"w": q, "step": 3})
        read = checkpointer.restore(tmp_path / "state", like)
    assert jax.tree.structure(read["w"]) == jax.tree.structure(q)
    assert_same_bits(read["w"].qvalue, q.qvalue)
    assert_same_bits(read["w"].dequantize(), values)
