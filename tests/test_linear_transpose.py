"""`jax.linear_transpose` of the backward, which is linear in the cotangent and its own transpose."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import AxisType
from meshes import KINDS, mesh, placed
from oracle import assert_same_bits
from original import numerics

from intnumerics import IntNumerics, PhiloxUniform, quantize

INT4 = numerics(4, noise_fn=PhiloxUniform())
KEY = jax.random.key(0)
every_residual = pytest.mark.parametrize("residual", ["mask", "x"])


def example(shape: tuple[int, ...], dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (6 * rng.standard_normal(shape)).astype(dtype), rng.standard_normal(shape).astype(dtype)


def masked(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) <= 7, g, np.zeros_like(g))


def transposed(x: Any, g: Any, residual: str = "mask", **how: Any) -> jax.Array:
    y, backward = jax.vjp(lambda x: quantize(x, INT4, key=KEY, residual=residual, **how), x)
    (result,) = jax.linear_transpose(lambda g: backward(g)[0], y)(g)
    return result


@every_residual
@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 21), (2, 4, 8)], ids=str)
def test_the_transpose_is_the_clip_again(shape: tuple[int, ...], dtype: Any, residual: str) -> None:
    x, g = example(shape, dtype)
    assert_same_bits(jax.jit(transposed, static_argnums=2)(x, g, residual), masked(x, g))


@every_residual
@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_every_implementation_is_transposed_without_jit_too(implementation: str, residual: str) -> None:
    x, g = example((3, 21))
    assert_same_bits(transposed(x, g, residual, implementation=implementation), masked(x, g))


def test_a_kernel_is_transposed() -> None:
    x, g = example((2, 24))
    assert_same_bits(transposed(x, g, implementation="pallas", interpret="cuda"), masked(x, g))


@every_residual
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.vmap(f),
        lambda f: jax.vmap(f, 1, 1),
        lambda f: jax.vmap(jax.vmap(f)),
        lambda f: lambda x, g: jax.lax.map(lambda xg: f(*xg), (x, g)),
        lambda f: lambda x, g: jax.vmap(lambda g: f(x, g))(jnp.stack([g, g]))[1],
        lambda f: lambda x, g: jax.vmap(lambda x: f(x, g))(jnp.stack([x, x]))[1],
    ],
    ids=["vmap", "columns", "nested", "map", "cotangents", "residuals"],
)
def test_the_transpose_under_transforms(transform: Callable[[Any], Any], residual: str) -> None:
    x, g = example((3, 4, 8))
    assert_same_bits(transform(lambda x, g: transposed(x, g, residual))(x, g), masked(x, g))


@every_residual
def test_a_batched_backward_is_transposed(residual: str) -> None:
    x, g = example((3, 21))
    y, backward = jax.vjp(lambda x: quantize(x, INT4, key=KEY, residual=residual), x)
    (result,) = jax.linear_transpose(jax.vmap(lambda g: backward(g)[0]), jnp.stack([y, y]))(jnp.stack([g, -g]))
    assert_same_bits(result, np.stack([masked(x, g), masked(x, -g)]))


@every_residual
def test_the_transpose_is_differentiable_and_linear(residual: str) -> None:
    x, g = example((3, 21))
    result, tangent = jax.jvp(lambda g: transposed(x, g, residual), (g,), (-g,))
    assert_same_bits(result, masked(x, g))
    assert_same_bits(tangent, masked(x, -g))
    again = jax.linear_transpose(lambda g: transposed(x, g, residual), g)(g)[0]
    assert_same_bits(again, masked(x, g))


@pytest.mark.mesh
@every_residual
@pytest.mark.parametrize("kind", KINDS)
def test_the_transpose_on_a_mesh(kind: AxisType, residual: str) -> None:
    x, g = example((8, 16))
    on = mesh(kind)
    result = jax.jit(transposed, static_argnums=2)(
        placed(x, on, "rows", "lanes"), placed(g, on, "rows", "lanes"), residual
    )
    assert_same_bits(result, masked(x, g))


@pytest.mark.mesh
def test_a_cotangent_has_the_type_of_what_it_is_of_although_x_is_split_and_that_is_not() -> None:
    on, (x, g) = mesh(AxisType.Explicit), example((8, 16))
    numerics_of_4_bits = IntNumerics.symmetric(4, preserve_max_val=True, clip_gradient=True)
    with jax.set_mesh(on):
        split, whole = placed(x, on, "rows", "lanes"), placed(g, on)

        def transpose(x: jax.Array, g: jax.Array, ct: jax.Array) -> jax.Array:
            clip = lambda g: numerics_of_4_bits.vjp_bwd((x,), g)[0]  # noqa: E731
            return jax.linear_transpose(clip, g)(ct)[0]

        result = jax.jit(transpose)(split, whole, placed(g, on, "rows", "lanes"))
    assert jax.typeof(result).sharding.spec == jax.typeof(whole).sharding.spec
    assert_same_bits(result, masked(x, g))
