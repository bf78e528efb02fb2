"""What is measured: the operations, an entry each, and what a caller could use in their place.

A new operation is one more entry of `operations()`: the arrays that it takes, our function, the baselines, and what
NumPy says of the result.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import baselines, libraries, variant
from bench.names import FORMULA, ROWS
from bench.operation import Arrays, Operation, how
from bench.variant import Function, Variant
from intnumerics import IntNumerics, quantize, quantize_tensor, quantize_to_int

# Not public: the passes by themselves, without a gradient around them.
from intnumerics._dispatch import Choice
from intnumerics._operations import clip_gradient_from_mask, clip_gradient_from_x, quantize_with_mask
from intnumerics.stochastic_rounding import (
    HardwareUniform,
    HashUniform,
    JaxUniform,
    PhiloxUniform,
    RandomCenteredUniform,
)

NEAREST = IntNumerics(8, True, True, True, True, True, None)
HALVES = NEAREST.replace(preserve_zero=False)
NOISE: dict[str, Any] = {
    noise.__name__: noise()
    for noise in (HashUniform, PhiloxUniform, RandomCenteredUniform, JaxUniform, HardwareUniform)
}
SCALE = 40.0  # from an activation to buckets: a few are clipped


def formula(result: str, noise: bool) -> dict[str, Variant]:
    """FJFormer's formula, with each kind of noise that a user can draw."""
    to = (lambda y: y.astype(jnp.int8)) if result == "int8" else (lambda y: y)
    if not noise:
        return {FORMULA: Variant(lambda x: to(baselines.nearest(x)), ("x",))}
    functions = with_generators(FORMULA, lambda x, noise: to(baselines.nearest(x, noise)))
    return {name: Variant(f, ("x", "words"), agrees=variant.other_draws) for name, f in functions.items()}


def with_generators(name: str, function: Function) -> dict[str, Function]:
    """A function of x and noise, with each kind of noise that a user can draw."""

    def run(generator: str, x: jax.Array, words: jax.Array) -> Any:
        return function(x, baselines.uniform(generator, words, x.shape))

    return {f"{name}, {generator}": functools.partial(run, generator) for generator in baselines.GENERATORS}


def rounded(arrays: Arrays, noise: str | None = None, to: Any = np.float32) -> np.ndarray:
    """The formula in NumPy."""
    x = arrays["x"]
    y = x.astype(np.float32)
    if noise:
        y = (y + np.asarray(NOISE[noise](x.shape, arrays["key"]))).astype(x.dtype).astype(np.float32)
    return np.rint(np.clip(y, -baselines.BOUND, baselines.BOUND)).astype(to)


def forward(result: str, noise: str | None = None) -> Operation:
    """Noise if any, clip and round, to the dtype of x or to int8."""
    numerics = NEAREST.replace(noise_fn=NOISE[noise] if noise else None)
    to_int8 = result == "int8"
    function = quantize_to_int if to_int8 else quantize
    on_tpu = noise == "HardwareUniform"
    return Operation(
        name=f"quantize{' to int8' if to_int8 else ''}{f' with {noise}' if noise else ''}",
        takes=("x", "key") if noise else ("x",),
        ours=lambda name: lambda x, key=None: function(x, numerics, key=key, **how(name)),
        others=formula(result, noise is not None) | libraries.forward(result, noise is not None),
        expected=functools.partial(rounded, noise=None if on_tpu else noise, to="int8" if to_int8 else np.float32),
        agrees=variant.other_draws if on_tpu else variant.same_values,
        platforms=("tpu",) if on_tpu else (),
    )


def floor_plus_half() -> Operation:
    """Bucket centres at halves."""
    return Operation(
        name="quantize, floor + 0.5",
        takes=("x",),
        ours=lambda name: lambda x: quantize(x, HALVES, **how(name)),
        others={FORMULA: Variant(baselines.halves, ("x",))},
        expected=lambda arrays: np.floor(np.clip(arrays["x"].astype(np.float32), -127.5, 127.5)) + np.float32(0.5),
    )


def keeping_the_mask(noise: str | None = None) -> Operation:
    """The forward of a training step: the result, and one bit per element for the backward."""
    numerics = NEAREST.replace(noise_fn=NOISE[noise] if noise else None)
    without = forward("same", noise)
    return dataclasses.replace(
        without,
        name=f"{without.name}, keeping the mask",
        ours=lambda name: (
            lambda x, key=None: quantize_with_mask(x, *numerics.noise_and_spec(x, key), Choice(**how(name)))
        ),
        others=formula("same", noise is not None),
    )


def masked(arrays: Arrays) -> np.ndarray:
    """The gradient in NumPy."""
    inside = np.abs(arrays["x"].astype(np.float32)) <= baselines.BOUND
    return np.where(inside, arrays["g"].astype(np.float32), np.float32(0))


def backward(kept: str) -> Operation:
    """The backward from what the forward kept, the packed `"mask"` or `"x"`; the formula keeps x."""

    def ours(name: str | None) -> Function:
        if kept == "mask":
            return lambda g, mask: clip_gradient_from_mask(g, mask, Choice(**how(name)))
        return lambda g, x: clip_gradient_from_x(g, x, NEAREST.spec(), Choice(**how(name)))

    return Operation(
        name=f"backward from {'the ' * (kept == 'mask')}{kept}",
        takes=("g", kept),
        ours=ours,
        others={FORMULA: Variant(baselines.backward, ("g", "x"))} | libraries.backward(),
        expected=masked,
    )


# --- scales and integers from one read of x ---------------------------------------------------------------------------


def by_rows(noise: str | None = None) -> Operation:
    """int8 and one scale per row of [tokens, features]."""
    numerics = NEAREST.replace(noise_fn=NOISE[noise] if noise else None)

    def ours(name: str | None) -> Function:
        return lambda x, key=None: quantize_tensor(x, numerics, key=key, **how(name))

    made = functools.partial(Variant, agrees=variant.other_scales, scales_agree=variant.near)
    if noise:
        formulas = {n: made(f, ("x", "words")) for n, f in with_generators(ROWS, baselines.by_rows).items()}
    else:
        formulas = {ROWS: made(baselines.by_rows, ("x",))}
    return Operation(
        name=f"quantize rows to int8 and scales{f' with {noise}' if noise else ''}",
        takes=("x", "key") if noise else ("x",),
        ours=ours,
        others=formulas | libraries.by_rows(noise is not None),
        expected=functools.partial(rounded_rows, noise=noise),
        rank=2,
        needs="quantize_by_absmax",
    )


def rounded_rows(arrays: Arrays, noise: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The integers and the scales in NumPy: a scale is six units in the last place larger, so that rounding fits."""
    x = arrays["x"].astype(np.float32)
    largest = np.abs(x).max(-1, keepdims=True)
    scale = largest * (np.float32(1) / np.float32(baselines.BOUND))
    is_exact = (np.frexp(scale)[0] == 0.5) & (scale * np.float32(baselines.BOUND) == largest)
    scale = np.where(is_exact, scale, (scale.view(np.int32) + 6).view(np.float32))
    y = x * (1 / scale.astype(np.float64)).astype(np.float32)
    if noise:
        y = y + np.asarray(NOISE[noise](x.shape, arrays["key"]), np.float32)
    return np.rint(np.clip(y, -baselines.BOUND, baselines.BOUND)), scale


# --- in a chain: a kernel is a barrier to XLA's fusion ----------------------------------------------------------------


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x) * jnp.asarray(SCALE, x.dtype)


def layer_norm(x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * SCALE).astype(x.dtype)


def as_it_is(q: Any) -> Any:
    return q


def dot(q: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(q, w, (((q.ndim - 1,), (0,)), ((), ())), preferred_element_type=jnp.int32)


TO_INT8 = functools.partial(forward, "int8")


def chain(
    name: str,
    before: Function,
    after: Function,
    takes: tuple[str, ...],
    noise: str | None,
    quantizer: Callable[[str | None], Operation] = TO_INT8,
) -> Operation:
    """An activation, a quantization to int8, and what takes it."""
    alone, without_noise = quantizer(noise), quantizer(None)
    agrees = variant.close if "w" in takes else (variant.other_draws if noise else variant.within_a_bucket)
    agrees = variant.other_scales if alone.needs else agrees

    def of(quantized: Function, operands: tuple[str, ...]) -> Variant:
        def joined(x: jax.Array, *arrays: jax.Array) -> jax.Array:
            return after(quantized(before(x), *arrays[: len(operands)]), *arrays[len(operands) :])

        return Variant(joined, ("activation", *operands, *takes), agrees=agrees, scales_agree=variant.near)

    def expected(arrays: Arrays) -> Any:
        activation = np.asarray(before(jnp.asarray(arrays["activation"], jnp.float32)))
        q = jax.tree.map(jnp.asarray, without_noise.expected({"x": activation}))
        return after(q, *(jnp.asarray(arrays[name]) for name in takes))

    return Operation(
        name=f"{name}{f' with {noise}' if noise else ''}",
        takes=("activation", *alone.takes[1:], *takes),
        ours=lambda name: of(alone.ours(name), alone.takes[1:]).function,
        others={name: of(o.function, o.takes[1:]) for name, o in alone.others.items() if o.kind == "jit"},
        expected=expected,
        agrees=agrees,
        scales_agree=variant.near,
        rank=alone.rank if alone.rank > 1 else 3,
        needs=alone.needs,
    )


@functools.cache
def operations() -> tuple[Operation, ...]:
    """Every operation, in the order of what is most worth knowing: a run that is out of time leaves out the last."""
    into_dot = functools.partial(chain, "gelu, quantize to int8, dot", gelu, dot, ("w",))
    after_norm = functools.partial(chain, "layer norm, quantize to int8", layer_norm, as_it_is, ())
    norm_of_rows = functools.partial(chain, "layer norm, quantize rows to int8 and scales", layer_norm, as_it_is, ())
    into_int8 = functools.partial(chain, "gelu, quantize to int8", gelu, as_it_is, ())
    hashed, philox, *others = NOISE
    return (
        forward("int8", hashed),
        forward("int8", philox),
        backward("mask"),
        into_dot(hashed),
        forward("int8"),
        into_dot(philox),
        into_int8(hashed),
        by_rows(),
        by_rows(philox),
        by_rows(hashed),
        norm_of_rows(None, by_rows),
        keeping_the_mask(philox),
        keeping_the_mask(hashed),
        forward("same"),
        forward("same", philox),
        forward("same", hashed),
        backward("x"),
        into_dot(None),
        after_norm(philox),
        keeping_the_mask(),
        after_norm(None),
        norm_of_rows(philox, by_rows),
        *(forward(result, noise) for noise in others for result in ("same", "int8")),
        floor_plus_half(),
    )
