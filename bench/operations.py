"""What is measured: the operations, an entry each, and what a caller could use in their place.

A new operation is one more entry of `OPERATIONS`: the arrays that it takes, our function, the baselines, and what NumPy
says of the result.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import baselines, checks, libraries
from bench.names import EAGER as EAGER
from bench.names import FORMULA as FORMULA
from bench.names import INTERPRETED
from bench.names import OURS as OURS
from bench.names import SEED as SEED
from bench.variant import Variant
from intnumerics import IntNumerics, _operations, quantize, quantize_to_int
from intnumerics.stochastic_rounding import HardwareUniform, JaxUniform, PhiloxUniform, RandomCenteredUniform

NEAREST = IntNumerics(8, True, True, True, True, True, None)
HALVES = NEAREST.replace(preserve_zero=False)
NOISE: dict[str, Any] = {
    "PhiloxUniform": PhiloxUniform(),
    "RandomCenteredUniform": RandomCenteredUniform(),
    "JaxUniform": JaxUniform(),
    "HardwareUniform": HardwareUniform(),
}

Arrays = Mapping[str, Any]
Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation, and what it is compared with.

    Attributes:
        name: What it is called in the results.
        takes: Names of the arrays of our function: what must be read at least.
        ours: Our function, given the name of an implementation or None.
        others: The baselines by name; ratios are to the speed of the first.
        expected: The first result in NumPy, from the first rows of the arrays.
        agrees: What is asked of our result; the others say it themselves.
        ranks: For how many axes it is measured: 1, and 3 for [batch, sequence, features].
        platforms: Where it runs; empty for everywhere.
        eager: Whether calls without jit are measured too.
    """

    name: str
    takes: tuple[str, ...]
    ours: Callable[[str | None], Function]
    others: Mapping[str, Variant]
    expected: Callable[[Arrays], np.ndarray]
    agrees: Callable[[np.ndarray, np.ndarray], str] = checks.same_values
    ranks: tuple[int, ...] = (1, 3)
    platforms: tuple[str, ...] = ()
    eager: bool = False

    @property
    def baseline(self) -> str:
        """The name of what ratios are to."""
        return next(iter(self.others))

    def variants(self, implementations: tuple[str, ...]) -> dict[str, Variant]:
        """Every way to do it, by name: ours as it comes and by the names given, then the others."""
        ours = {OURS: Variant(self.ours(None), self.takes, "jit", self.agrees)}
        if self.eager:
            ours[OURS + EAGER] = dataclasses.replace(ours[OURS], kind="eager")
        ours |= {
            f"{OURS}, {name}": Variant(self.ours(name), self.takes, "jit", self.agrees) for name in implementations
        }
        return ours | dict(self.others)


def how(name: str | None) -> dict[str, Any]:
    """The arguments of our functions that run an implementation, by the name that it has in the results."""
    if name == INTERPRETED:
        return {"implementation": "pallas", "interpret": "cuda"}
    return {"implementation": name}


# --- forward ----------------------------------------------------------------------------------------------------------


def numerics_of(noise: str | None) -> IntNumerics:
    """Rounding to nearest in 8 bits, with noise if any."""
    return NEAREST.replace(noise_fn=NOISE[noise] if noise else None)


def formula(result: str, noise: bool) -> dict[str, Variant]:
    """FJFormer's formula, with each kind of noise that a user can draw; without jit last."""
    to = (lambda y: y.astype(jnp.int8)) if result == "int8" else (lambda y: y)
    if not noise:
        plain = Variant(lambda x: to(baselines.nearest(x)), ("x",))
        return {FORMULA: plain, FORMULA + EAGER: dataclasses.replace(plain, kind="eager")}

    def run(generator: str, x: jax.Array, words: jax.Array) -> jax.Array:
        return to(baselines.nearest(x, baselines.uniform(generator, words, x.shape)))

    found = {
        f"{FORMULA}, {generator}": Variant(functools.partial(run, generator), ("x", "words"), agrees=checks.other_draws)
        for generator in baselines.GENERATORS
    }
    return found | {SEED + EAGER: dataclasses.replace(found[SEED], kind="eager")}


def rounded(arrays: Arrays, noise: str | None = None) -> np.ndarray:
    """The formula in NumPy."""
    x = arrays["x"]
    y = x.astype(np.float32)
    if noise:
        y = (y + np.asarray(NOISE[noise](x.shape, arrays["key"]))).astype(x.dtype).astype(np.float32)
    return np.rint(np.clip(y, -baselines.BOUND, baselines.BOUND))


def forward(result: str, noise: str | None = None) -> Operation:
    """Noise if any, clip and round, to the dtype of x or to int8."""
    numerics = numerics_of(noise)
    function = quantize if result == "same" else quantize_to_int
    on_tpu = noise == "HardwareUniform"
    return Operation(
        name=f"quantize{' to int8' if result == 'int8' else ''}{f' with {noise}' if noise else ''}",
        takes=("x", "key") if noise else ("x",),
        ours=lambda name: lambda x, key=None: function(x, numerics, key=key, **how(name)),
        others=formula(result, noise is not None) | (libraries.noisy(result) if noise else libraries.plain(result)),
        expected=functools.partial(rounded, noise=None if on_tpu else noise),
        agrees=checks.other_draws if on_tpu else checks.same_values,
        platforms=("tpu",) if on_tpu else (),
        eager=noise in (None, "PhiloxUniform"),
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


# --- backward, and what the forward keeps for it ----------------------------------------------------------------------


def keeping_the_mask(noise: str | None = None) -> Operation:
    """The forward of a training step: the result, and one bit per element for the backward."""
    numerics = numerics_of(noise)

    def ours(name: str | None, x: jax.Array, key: jax.Array | None = None) -> Any:
        return _operations.quantize_with_mask(x, *numerics.noise_and_spec(x, key), **how(name))

    return dataclasses.replace(
        forward("same", noise),
        name=f"quantize{f' with {noise}' if noise else ''}, keeping the mask",
        ours=lambda name: functools.partial(ours, name),
        others={name: v for name, v in formula("same", noise is not None).items() if v.kind == "jit"},
        eager=False,
    )


def masked(arrays: Arrays) -> np.ndarray:
    """The gradient in NumPy."""
    inside = np.abs(arrays["x"].astype(np.float32)) <= baselines.BOUND
    return np.where(inside, arrays["g"].astype(np.float32), np.float32(0))


def from_mask() -> Operation:
    """The backward from one bit per element; the formula keeps x."""
    return Operation(
        name="backward from the mask",
        takes=("g", "mask"),
        ours=lambda name: lambda g, mask: _operations.clip_gradient_from_mask(g, mask, **how(name)),
        others={FORMULA: Variant(baselines.backward, ("g", "x"))} | libraries.backward(),
        expected=masked,
    )


def from_x() -> Operation:
    """The backward from x, as a caller without a mask has it."""
    spec = NEAREST.spec()
    return dataclasses.replace(
        from_mask(),
        name="backward from x",
        takes=("g", "x"),
        ours=lambda name: lambda g, x: _operations.clip_gradient_from_x(g, x, spec, **how(name)),
    )


# --- in a chain: a kernel is a barrier to XLA's fusion ----------------------------------------------------------------

SCALE = 40.0  # from an activation to buckets: a few are clipped


def gelu(x: jax.Array) -> jax.Array:
    """The activation before a quantization, in buckets."""
    return jax.nn.gelu(x) * jnp.asarray(SCALE, x.dtype)


def layer_norm(x: jax.Array) -> jax.Array:
    """A layer norm without parameters, in float32 within, in buckets."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * SCALE).astype(x.dtype)


def dot(q: jax.Array, w: jax.Array) -> jax.Array:
    """int8 by int8, summed in int32."""
    return jax.lax.dot_general(q, w, (((q.ndim - 1,), (0,)), ((), ())), preferred_element_type=jnp.int32)


def chain(name: str, before: Function, after: Function, takes: tuple[str, ...], noise: str | None) -> Operation:
    """An activation, a quantization to int8, and what takes it."""
    alone = forward("int8", noise)
    agrees = checks.close if "w" in takes else (checks.other_draws if noise else checks.within_a_bucket)

    def joined(quantized: Function, count: int, *arrays: jax.Array) -> jax.Array:
        return after(quantized(before(arrays[0]), *arrays[1:count]), *arrays[count:])

    def of(variant: Variant) -> Variant:
        names = ("activation", *variant.takes[1:], *takes)
        function = functools.partial(joined, variant.function, len(variant.takes))
        return dataclasses.replace(variant, function=function, takes=names, agrees=agrees)

    def expected(arrays: Arrays) -> np.ndarray:
        activation = np.asarray(before(jnp.asarray(arrays["activation"], jnp.float32)))
        q = rounded({"x": activation}).astype(np.int8)
        return np.asarray(after(jnp.asarray(q), *(jnp.asarray(arrays[name]) for name in takes)))

    return Operation(
        name=f"{name}{f' with {noise}' if noise else ''}",
        takes=("activation", *alone.takes[1:], *takes),
        ours=lambda name: of(Variant(alone.ours(name), alone.takes)).function,
        others={name: of(variant) for name, variant in alone.others.items() if variant.kind == "jit"}
        | libraries.chained(name, SCALE, noise is not None),
        expected=expected,
        agrees=agrees,
        ranks=(3,),
    )


def chains() -> list[Operation]:
    """The chains, without noise and with it."""
    into_dot = functools.partial(chain, "gelu, quantize to int8, dot", gelu, dot, ("w",))
    after_norm = functools.partial(chain, "layer norm, quantize to int8", layer_norm, lambda q: q, ())
    return [make(noise) for make in (into_dot, after_norm) for noise in (None, "PhiloxUniform")]


@functools.cache
def operations() -> tuple[Operation, ...]:
    """Every operation."""
    return (
        forward("same"),
        forward("int8"),
        floor_plus_half(),
        *(forward(result, noise) for noise in NOISE for result in ("same", "int8")),
        keeping_the_mask(),
        keeping_the_mask("PhiloxUniform"),
        from_mask(),
        from_x(),
        *chains(),
    )
