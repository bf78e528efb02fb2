"""A process with JAX's compilation cache: `python cached.py FOLDER`, which prints how often it hit and missed.

`test_compilation_cache.py` starts it. It quantizes one sharded array in many ways, and expects of each what NumPy does.
"""

import collections
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from jax.sharding import AxisType
from meshes import mesh, placed
from oracle import assert_same_bits
from original import numerics, spec_of
from streams import uniform

from intnumerics import IntNumerics, PhiloxUniform, quantize, quantize_to_int

X = (np.random.default_rng(0).standard_normal((16, 24)) * 90).astype(np.float32)
KEY = (0, 42)  # the words of jax.random.key(42)

requests = collections.Counter[str]()


def count(event: str, **_: object) -> None:
    requests[event.removeprefix("/jax/compilation_cache/")] += 1


def expect(n: IntNumerics, x: jax.Array) -> None:
    """Quantizes x eagerly, under `jit` and to integers, and its cotangent, and expects what NumPy makes of it."""
    key = jax.random.wrap_key_data(np.asarray(KEY, np.uint32), impl="threefry2x32")
    noise = None if n.noise_fn is None else uniform(X.shape, KEY)
    for run in (quantize, jax.jit(quantize, static_argnames="numerics")):
        assert_same_bits(np.asarray(run(x, numerics=n, key=key)), oracle.quantize(X, noise, spec_of(n)))
    integers = oracle.quantize(X, noise, spec_of(n, integer_dtype=np.dtype(np.int16)))
    assert_same_bits(np.asarray(quantize_to_int(x, n, key=key, dtype=jnp.int16)), integers)
    gradient = jax.jit(jax.grad(lambda x: quantize(x, n, key=key).sum()))(x)
    assert_same_bits(np.asarray(gradient), oracle.mask(X, spec_of(n)).astype(np.float32))


def main(folder: str) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)
    jax.monitoring.register_event_listener(count)
    x = placed(X, mesh(AxisType.Auto), "rows")
    for bits, preserve_zero, noise_fn in itertools.product((8, 7), (True, False), (None, PhiloxUniform())):
        expect(numerics(bits, preserve_zero=preserve_zero, noise_fn=noise_fn), x)
    print(json.dumps([requests["cache_hits"], requests["cache_misses"]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
