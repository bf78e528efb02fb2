"""What a profile and a dump of a compiled program show: the names of operations and kernels, and what kernels cost."""

import functools
import importlib
import itertools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from original import numerics
from streams import seed

from intnumerics import _primitive, quantize, quantize_to_int
from intnumerics.kernels import Draw, QuantSpec
from intnumerics.stochastic_rounding import JaxUniform, PhiloxUniform

QUANTIZE, FROM_MASK = "intnumerics_quantize", "intnumerics_clip_gradient_from_mask"
NAME = re.compile(r"\b(intnumerics_(?:quantize|clip_gradient_from_(?:mask|x)))(?:_([0-9a-f]{12}))?\b")
SHAPE = (64, 1024)
SIZE = math.prod(SHAPE)
X = jax.ShapeDtypeStruct(SHAPE, jnp.bfloat16)
PHILOX = numerics(8, noise_fn=PhiloxUniform())


def forward(x: jax.Array) -> jax.Array:
    return quantize(x, PHILOX, key=jax.random.key(0))


def to_int(x: jax.Array) -> jax.Array:
    return quantize_to_int(x, PHILOX, key=jax.random.key(0))


def train(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y, backward = jax.vjp(lambda x: quantize(x, numerics(8)), x)
    return y, backward(y)[0]


# --- a program for a CPU ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "names"), [(forward, {QUANTIZE}), (to_int, {QUANTIZE}), (train, {QUANTIZE, FROM_MASK})]
)
def test_a_program_names_the_operations_before_and_after_xla_compiles_it(function: Any, names: set[str]) -> None:
    lowered = jax.jit(function).lower(X)
    compiled = re.findall(r'op_name="([^"]*)"', lowered.compile().as_text())
    for text in (lowered.as_text(debug_info=True), "\n".join(compiled)):
        assert {name for name, _ in NAME.findall(text)} == names
        assert set(re.findall(rf"jit\({NAME.pattern}\)", text)) == {found for found in NAME.findall(text) if found[1]}
    # Each instruction is below a name, and not only the call that XLA inlines.
    assert all(any(f"/{name}/" in path for path in compiled) for name in names)


def test_calls_that_differ_in_anything_static_have_different_names_and_others_the_same() -> None:
    x = np.zeros((8, 4), np.float32)
    different = [
        numerics(8),
        numerics(7),
        numerics(8, preserve_zero=False),
        numerics(8, clip=False),
        numerics(8, round=False),
        numerics(8, noise_dtype=jnp.float32),
        numerics(8, noise_fn=PhiloxUniform()),
        numerics(8, noise_fn=PhiloxUniform((0,))),
        numerics(8, noise_fn=JaxUniform()),
    ]
    ways = [quantize, functools.partial(quantize, implementation="xla"), quantize_to_int]
    ways.append(functools.partial(quantize_to_int, dtype=jnp.int16))

    def name(way: Any, n: Any, x: Any = x) -> tuple[str, str]:
        text = jax.jit(lambda x: way(x, n, key=jax.random.key(0))).lower(x).as_text(debug_info=True)
        [found] = {found for found in NAME.findall(text) if found[1]}
        return found

    usable = [(way, n) for way in ways for n in different if way in ways[:2] or (n.clip and n.round)]
    names = [name(way, n) for way, n in usable]
    assert len(set(names)) == len(names)
    assert name(*usable[0], np.zeros((16, 4), np.float32)) == names[0]  # which the program itself tells from it


def test_parts_draws_that_are_shared_gradients_and_versions_have_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, key = np.zeros((8, 4), np.float32), jax.random.key(0)

    def names(run: Any) -> set[tuple[str, str]]:
        return {found for found in NAME.findall(jax.jit(run).lower(x).as_text(debug_info=True)) if found[1]}

    def philox(*axes: int, **how: Any) -> Any:
        return lambda x: quantize(x, numerics(8, noise_fn=PhiloxUniform(axes)), key=key, **how)

    def gradient(residual: Any, bits: int = 8) -> Any:
        return jax.grad(lambda x: quantize(x, numerics(bits), residual=residual).sum())

    runs = [philox(), philox(0), philox(1), philox(offset=(4, 0), global_shape=(16, 4)), gradient("mask")]
    runs += [philox(offset=(0, 4), global_shape=(8, 8)), gradient("x"), gradient("x", 7)]
    found = [names(run) for run in runs]
    assert all(a != b for a, b in itertools.combinations(found, 2))
    jax.clear_caches()
    _primitive.program.cache_clear()
    monkeypatch.setattr(_primitive, "__version__", "another")
    assert all(names(run).isdisjoint(before) for run, before in zip(runs, found, strict=True))
    _primitive.program.cache_clear()


def test_a_profile_tells_the_forward_from_the_backward() -> None:
    compiled = jax.jit(train).lower(X).compile().as_text()
    paths = {name for name in re.findall(r'op_name="([^"]*)"', compiled) if "intnumerics" in name}
    assert {QUANTIZE in path for path in paths} == {True, False}
    assert all(("transpose(" in path) == (FROM_MASK in path) for path in paths)


# --- kernels, lowered for a platform that is not here -----------------------------------------------------------------


MASK_BYTES = SIZE // 8
SEED_BYTES = 4 * 4


@pytest.mark.parametrize(
    ("function", "kernels"),
    [
        (forward, {"intnumerics_quantize_with_noise": 2 * SIZE + 2 * SIZE + SEED_BYTES}),
        (to_int, {"intnumerics_quantize_with_noise": 2 * SIZE + SIZE + SEED_BYTES}),
        (train, dict.fromkeys((QUANTIZE, FROM_MASK), 2 * SIZE + 2 * SIZE + MASK_BYTES)),
    ],
)
def test_a_tpu_program_shows_xla_the_name_and_cost_of_each_kernel(function: Any, kernels: dict[str, int]) -> None:
    text = jax.jit(function).trace(X).lower(lowering_platforms=("tpu",)).as_text()
    calls = [line for line in text.splitlines() if "@tpu_custom_call" in line]
    number = r'"{}\\22: ?(\d+)'.replace('"', r"\\22")
    found = {}
    for call in calls:
        (name,) = re.findall(r'kernel_name = "(\w+)"', call)
        (moved,), (flops,) = (re.findall(number.format(of), call) for of in ("bytes_accessed", "flops"))
        found[name] = int(moved)
        assert int(flops) == 8 * SIZE
    assert found == kernels


# --- kernels as JAX knows them: not every JAX lowers one for CUDA without a GPU ---------------------------------------


NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
WITH_MASK = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True)
TO_INT8 = QuantSpec(127.0, clip=True, rounding="half_to_even", integer_dtype=np.dtype(np.int8))
DRAWN = QuantSpec(127.0, clip=True, rounding="half_to_even", draw=Draw("philox", SHAPE))
BFLOAT16, FLOAT32 = (np.zeros(SHAPE, dtype) for dtype in (jnp.bfloat16, np.float32))
PACKED = np.zeros((*SHAPE[:-1], SHAPE[-1] // 8), np.uint8)
SEED = seed((0, 42))

# An operation, its arrays, what comes after them, its results, and what is added to its name.
CASES: dict[str, tuple[str, Any, Any, Any, str]] = {
    "nearest": ("quantize", (BFLOAT16, None), (NEAREST,), (BFLOAT16,), ""),
    "nearest, mask": ("quantize", (FLOAT32, None), (WITH_MASK,), (FLOAT32, PACKED), ""),
    "nearest, int8": ("quantize", (BFLOAT16, None), (TO_INT8,), (BFLOAT16.astype(np.int8),), ""),
    "array of noise": ("quantize", (BFLOAT16, FLOAT32), (NEAREST,), (BFLOAT16,), ""),
    "philox": ("quantize", (BFLOAT16, SEED), (DRAWN,), (BFLOAT16,), "_with_noise"),
    "from mask": ("clip_gradient_from_mask", (BFLOAT16, PACKED), (), (BFLOAT16,), ""),
    "from x": ("clip_gradient_from_x", (BFLOAT16, FLOAT32), (NEAREST,), (BFLOAT16,), ""),
}


def kernels_in(jaxpr: Any) -> list[dict[str, Any]]:
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found.append(equation.params)
        else:
            for inner in equation.params.values():
                found += kernels_in(inner.jaxpr) if hasattr(inner, "jaxpr") else []
    return found


@pytest.mark.parametrize(
    "module", [pytest.param("pallas_triton", marks=pytest.mark.pallas_triton), "pallas_tpu"], ids=["gpu", "tpu"]
)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_kernel_has_the_name_of_its_operation_and_moves_each_array_once(case: Any, module: str) -> None:
    operation, arrays, after, results, suffix = case
    room = importlib.import_module(f"intnumerics.kernels.{module}")

    def run(*given: Any) -> Any:
        rest = iter(given)
        return getattr(room, operation)(*(a if a is None else next(rest) for a in arrays), *after)

    operands = [a for a in arrays if a is not None]
    (kernel,) = kernels_in(jax.make_jaxpr(run)(*operands).jaxpr)
    assert kernel["name"] == f"intnumerics_{operation}{suffix}"
    cost = kernel["cost_estimate"]
    assert cost.bytes_accessed == sum(a.nbytes for a in (*operands, *results))
    assert (cost.flops, cost.transcendentals) == (8 * SIZE, 0)
