"""The README's first example as a newcomer would use it: with x of their own, and under `jax.grad`."""

import contextlib
import inspect
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import prose
import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCK = prose.python_blocks(README)[0]
LINES = [line for line in BLOCK.splitlines() if line.strip()]
BUCKETS = 127.5  # that the largest magnitude is from zero: 8 bits, with zero kept and the largest magnitude not


@pytest.fixture(autouse=True)
def settings_of_a_newcomer() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def example() -> Callable[[jax.Array], jax.Array]:
    """The block as a function of x: its imports, then the rest of it without the line that makes x."""
    imports = [line for line in LINES if line.startswith(("import ", "from "))]
    body = [f"    {line}" for line in LINES if line not in imports and not line.startswith("x = ")]
    return run("\n".join([*imports, "def example(x):", *body, "    return y"]))["example"]


def summed_gradient(x: jax.Array, transform: Callable[..., Any]) -> np.ndarray:
    function = example()
    g = transform(jax.grad(lambda x: function(x).sum()))(x)
    assert (g.shape, g.dtype) == (x.shape, x.dtype)
    return np.asarray(g, np.float64)


def test_it_is_short_makes_x_in_one_line_and_ends_with_y() -> None:
    assert len(LINES) <= 10
    assert sum(line.startswith("x = ") for line in LINES) == 1
    assert LINES[-1].startswith("y = ")
    assert list(inspect.signature(example()).parameters) == ["x"]


def test_it_runs_and_prints_nothing() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(BLOCK)
    assert printed.getvalue() == ""


def test_y_is_x_to_half_a_bucket_in_the_units_shape_and_dtype_of_x() -> None:
    names = run(BLOCK)
    x, y = (np.asarray(names[name]) for name in "xy")
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert 0 < np.abs(y.astype(np.float64) - x).max() <= np.abs(x).max() / 254


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_x_is_rounded_to_at_most_255_values_half_a_bucket_away(dtype: str) -> None:
    x = jax.random.normal(jax.random.key(1), (64, 1024)).astype(dtype)
    y = np.asarray(example()(x), np.float64)
    assert np.abs(y - np.asarray(x, np.float64)).max() <= float(jnp.abs(x).max()) / 254
    assert 200 < len(np.unique(y)) <= 255


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_goes_straight_through_everywhere_the_largest_element_too(
    dtype: str, transform: Callable[..., Any]
) -> None:
    for seed in range(20):  # a scale that rounds badly is bad for some maxima
        x = jax.random.normal(jax.random.key(seed), (32, 8)).astype(dtype)
        np.testing.assert_allclose(summed_gradient(x, transform), 1, rtol=2.0**-8, err_msg=f"seed {seed}")


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zeros_stay_zeros_and_have_a_gradient(dtype: str, transform: Callable[..., Any]) -> None:
    x = jnp.zeros((32, 8), dtype)
    np.testing.assert_array_equal(np.asarray(transform(example())(x), np.float64), 0)
    np.testing.assert_allclose(summed_gradient(x, transform), 1, rtol=2.0**-8)


def test_the_example_of_stochastic_rounding_runs_after_it_and_is_right_on_average() -> None:
    [stochastic] = prose.python_blocks(prose.section(README, "Stochastic rounding"))
    names = run(f"{BLOCK}\n{stochastic}")
    x, q = (np.asarray(names[name]).astype(np.float64) for name in "xq")
    error = q - x * (BUCKETS / np.abs(x).max())
    assert np.abs(error).max() < 1
    assert 0.4 < error.std() < 0.42  # of a uniform x between two buckets: sqrt(1 / 6)
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(error.size)
