"""What a call costs beside the arithmetic: `python -m bench --only overhead`.

The first table is the time of a call on 8 elements, beside the formula under `jit` in the same process. The second is
the time to compile a small training step, beside the same step with the formula, on one device and on eight.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp

from bench import baselines, results
from bench.names import EAGER, FORMULA, OURS
from bench.operations import NEAREST
from bench.timing import Arrays, Function, Patience, alternate
from intnumerics import Context, PhiloxUniform, absmax_scale, from_int, quantize, quantize_to_int

ELEMENTS, CALLS = 8, 5  # few calls of one kind follow each other, so that most rounds are not interrupted
PATIENCE = Patience(least=100, most=4000, seconds=10.0)
LAYERS, WIDTH, BATCH, COMPILES, DEVICES = 48, 64, 64, 5, 8
JITTED, PACKED, KEEPING_X = f"{FORMULA}, jit", f"{FORMULA}, with a packed mask", f"{OURS}, residual='x'"


def calls() -> dict[str, tuple[Function, Arrays]]:
    """What is called on few elements, with its arguments; ratios are to the first."""
    x, key = jnp.linspace(-130, 130, ELEMENTS), jax.random.key(0)
    noisy = NEAREST.replace(noise_fn=PhiloxUniform())
    ours: dict[str, tuple[Function, Arrays]] = {
        "quantize": (lambda x: quantize(x, NEAREST), (x,)),
        "quantize with PhiloxUniform": (lambda x, key: quantize(x, noisy, key=key), (x, key)),
        "quantize_to_int": (lambda x: quantize_to_int(x, NEAREST), (x,)),
        "from_int": (lambda q: from_int(q, NEAREST, jnp.float32), (quantize_to_int(x, NEAREST),)),
        "absmax_scale": (lambda x: absmax_scale(x, NEAREST), (x,)),
        "numerics.fwd": (lambda x: NEAREST.fwd(x, Context()), (x,)),
    }
    return {
        JITTED: (jax.jit(baselines.nearest), (x,)),
        FORMULA + EAGER: (baselines.nearest, (x,)),
        **{f"{name}, jit": (jax.jit(function), arguments) for name, (function, arguments) in ours.items()},
        **{name + EAGER: call for name, call in ours.items()},
    }


def of_a_call() -> dict[str, float]:
    """The median seconds of each call; all take turns."""

    def several(function: Function, arguments: Arrays, turn: int) -> None:
        for _ in range(CALLS):
            result = function(*arguments)
        jax.block_until_ready(result)

    measured = calls()
    times = alternate([functools.partial(several, *call) for call in measured.values()], PATIENCE, lambda: None)
    return {name: statistics.median(found) / CALLS for name, found in zip(measured, times, strict=True)}


def _loss(quantizer: Function, weights: list[jax.Array], x: jax.Array) -> jax.Array:
    return functools.reduce(lambda x, w: quantizer(x @ w), weights, x).sum()


def to_compile(devices: list[jax.Device]) -> dict[str, float]:
    """The median seconds in which the gradient of `LAYERS` products and quantizers is traced, lowered and compiled.

    The formula's backward reads x, and ours a packed mask, so the formula is compiled with such a mask as well, and
    ours with x.
    """
    formula = jax.custom_vjp(lambda x: baselines.nearest(x))
    formula.defvjp(lambda x: (baselines.nearest(x), x), lambda x, g: (baselines.backward(g, x),))
    bits: Function = jax.custom_vjp(lambda x: baselines.nearest(x))
    pack = lambda x: jnp.packbits(baselines.backward(jnp.ones_like(x), x) == 1, axis=-1, bitorder="little")  # noqa: E731
    unpack = functools.partial(jnp.unpackbits, axis=-1, bitorder="little")
    bits.defvjp(lambda x: (baselines.nearest(x), pack(x)), lambda packed, g: (jnp.where(unpack(packed), g, 0.0),))
    keeping_x = functools.partial(quantize, numerics=NEAREST, residual="x")
    quantizers = {FORMULA: formula, KEEPING_X: keeping_x, PACKED: bits, OURS: lambda x: quantize(x, NEAREST)}
    mesh = jax.make_mesh((len(devices),), ("batch",), (jax.sharding.AxisType.Auto,), devices=devices)
    split = jax.NamedSharding(mesh, jax.P("batch"))
    weights = [jnp.zeros((WIDTH, WIDTH))] * LAYERS
    x = jax.device_put(jnp.zeros((BATCH, WIDTH)), split if len(devices) > 1 else None)
    times: dict[str, list[float]] = {name: [] for name in quantizers}
    for turn in range(COMPILES + 1):
        for name, quantizer in quantizers.items():
            jax.clear_caches()  # or a second program would have the first one's traces
            begin = time.perf_counter()
            jax.jit(jax.grad(functools.partial(_loss, quantizer))).lower(weights, x).compile()
            if turn:  # the first is slower: modules are imported in it
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def measured() -> dict[str, dict[str, float]]:
    """Seconds by title and name; JAX must have been told to make `DEVICES` of the CPU."""
    return {
        f"A call on {ELEMENTS} elements, in a process with {DEVICES} CPU devices": of_a_call(),
        f"To compile {LAYERS} layers with their gradient": to_compile(jax.devices()[:1]),
        f"The same for {DEVICES} CPU devices": to_compile(jax.devices("cpu")[:DEVICES]),
    }


def tables(found: dict[str, dict[str, float]]) -> str:
    """The tables, in Markdown; a ratio is the time divided by that of the first row."""
    texts = []
    for title, seconds in found.items():
        first = next(iter(seconds.values()))
        rows = [(name, results.time_text(s), f"{s / first:.2f}") for name, s in seconds.items()]
        texts.append(f"{title}:\n\n{results.markdown(('what', 'time', 'ratio'), rows)}")
    return "\n".join(texts)
