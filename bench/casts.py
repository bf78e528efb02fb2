"""Stochastic casts, as they are measured: float32 to bfloat16, and bfloat16 to float8_e4m3fn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import baselines, variant
from bench.names import ADDED_BITS
from bench.operation import Arrays, Operation, how
from bench.variant import Function, Variant
from intnumerics import stochastic_cast

TO = {"float32": "bfloat16", "bfloat16": "float8_e4m3fn"}  # from the dtype of x


def cast(noise_fn: Any) -> Operation:
    """A stochastic cast with a noise function of the package."""
    others = {
        f"{ADDED_BITS}, {generator}": Variant(functools.partial(_added, generator), ("x", "words"), agrees=next_to)
        for generator in baselines.GENERATORS
    }

    def ours(name: str | None) -> Function:
        return lambda x, key: stochastic_cast(x, TO[x.dtype.name], key=key, noise_fn=noise_fn, **how(name))

    return Operation(
        name=f"stochastic cast with {type(noise_fn).__name__}",
        takes=("x", "key"),
        ours=ours,
        others=others,
        expected=functools.partial(rounded, noise_fn=noise_fn),
    )


def _added(generator: str, x: jax.Array, words: jax.Array) -> jax.Array:
    return baselines.cast(x, baselines.uniform(generator, words, x.shape), TO[x.dtype.name])


def rounded(arrays: Arrays, noise_fn: Any) -> np.ndarray:
    """The cast in NumPy, in float64: up where the fraction of the gap and the 16-bit draw make one gap."""
    x, dtype = arrays["x"], jnp.finfo(TO[arrays["x"].dtype.name])
    draw = (np.asarray(noise_fn(x.shape, arrays["key"]), np.float64) + 0.5) * 65536 - 0.5
    magnitude = np.abs(x.astype(np.float64))
    gap = np.ldexp(1.0, np.maximum(np.frexp(magnitude)[1] - 1, dtype.minexp) - dtype.nmant)
    lower = np.floor(magnitude / gap)
    up = np.floor((magnitude / gap - lower) * 65536) + draw >= 65536
    return np.copysign(np.minimum((lower + up) * gap, float(dtype.max)), x.astype(np.float64))


def next_to(found: np.ndarray, expected: np.ndarray) -> str:
    """Results with other draws are neighbours, of which float8_e4m3fn has 8 in an octave, and equal on average."""
    far = int(np.count_nonzero(~(np.abs(found - expected) <= 0.126 * np.abs(expected) + 0.01)))
    off = float(np.mean(found - expected))
    if expected.size > 1 << 12 and not abs(off) <= 8 * variant.MEAN:
        return f"{off} from NumPy's on average"
    return f"{far} of {expected.size} are not neighbours of NumPy's" if far else ""
