"""What the project promises of a GPU, as data."""

from typing import NamedTuple

from bench.names import COMPILED, FORMULA, OURS

DTYPES = ("bfloat16", "float32")
FORWARD = ("quantize", "quantize to int8")
NOISES = ("PhiloxUniform", "HashUniform", "RandomCenteredUniform", "JaxUniform")
NOISY = "quantize to int8 with PhiloxUniform"
HASHED = "quantize to int8 with HashUniform"
INTO_INT8 = ("gelu, quantize to int8 with HashUniform",)
CHAINS = tuple(
    f"{chain}{noise}"
    for chain in ("gelu, quantize to int8, dot", "layer norm, quantize to int8")
    for noise in ("", " with PhiloxUniform")
)
BACKWARD = ("backward from the mask", "backward from x")
MASKED = ("quantize, keeping the mask", "quantize with PhiloxUniform, keeping the mask")
ALONE = (*FORWARD, *(f"{name} with {noise}" for name in FORWARD for noise in NOISES), *MASKED, *BACKWARD)
WITH_PHILOX = (NOISY, f"{FORWARD[0]} with {NOISES[0]}")
SCALED = "quantize rows to int8 and scales"
ROWS = (SCALED, f"{SCALED} with {NOISES[0]}")  # the job that a kernel does in one read of x, and XLA in two
AFTER_NORM = (f"layer norm, {SCALED}",)
ROW_SHAPES = ((16384, 4096), (8192, 8192), (128, 4096), (1, 8192))  # [tokens, features]; the last two as in decoding
NONE_IS_A_KERNEL = (*WITH_PHILOX, MASKED[1])  # by themselves, from 16-bit floats, on every card
KERNELS = (*FORWARD, *WITH_PHILOX, *MASKED, *BACKWARD)
CHOSEN = (*WITH_PHILOX, MASKED[1], *CHAINS)  # where the choice matters most

XLA, TRITON, MOSAIC = (f"{OURS}, {name}" for name in ("xla", "pallas_triton", "pallas_mosaic_gpu"))
PALLAS = f"{OURS}, pallas"  # whichever of the two it is on the card
COPY = "copy"  # the quicker of the two
BEST_OF_OURS = "best of ours"  # the quickest of those by name
SAME_NOISE = "formula"  # with threefry, if there is noise: what jax.random.uniform draws by default
ANY_NOISE = "formula, any generator"  # the quickest with one of jax's generators
TORCH = COMPILED  # and so on, by the beginning of the name
GENERATORS = tuple(f"{FORMULA}, {name}" for name in ("threefry", "rbg", "philox4x32"))


class Right(NamedTuple):
    """All results of a step are right."""

    name: str
    step: str


class Speed(NamedTuple):
    """One way to do some operations of the benchmark is, in every case, `least` times as fast as another at least."""

    name: str
    operations: tuple[str, ...]
    ours: str  # the name of the variant, or `BEST_OF_OURS`
    other: str  # what it is compared with: one of the names above
    least: float
    dtypes: tuple[str, ...] = DTYPES  # of x


TARGETS: tuple[Right | Speed, ...] = (
    Right("the tests marked gpu pass", "tests"),
    Right("each result that is timed is right", "bench"),
    # Memory bandwidth has room for about 30 instructions per element; kernels take 5 to 7, and 18.5 with Philox.
    Speed("Philox bfloat16 to int8, pallas: near copy speed", (NOISY,), PALLAS, COPY, 0.90, ("bfloat16",)),
    # By count XLA's fusion has room for this noise, which neither has with Philox, and takes gelu into the same pass.
    Speed("hash bfloat16 to int8, best of ours: at copy speed", (HASHED,), BEST_OF_OURS, COPY, 0.95, ("bfloat16",)),
    Speed("gelu, hash bfloat16 to int8: at copy speed", INTO_INT8, BEST_OF_OURS, COPY, 0.95, ("bfloat16",)),
    Speed("deterministic, pallas: at copy speed", FORWARD, PALLAS, COPY, 0.95),
    Speed("Mosaic is not slower than Triton by more than 5%", KERNELS, MOSAIC, TRITON, 0.95),
    # None is XLA for these. Of 16-bit floats XLA reads 64 bits per thread, which leaves an H200's memory idle.
    Speed("deterministic float32, XLA's fusion: at copy speed", FORWARD, XLA, COPY, 0.95, ("float32",)),
    Speed("backward from the mask, pallas: at copy speed", BACKWARD[:1], PALLAS, COPY, 0.95),
    # Never slower than plain JAX; 3% is chance.
    Speed("None is not slower than the formula", ALONE, OURS, SAME_NOISE, 0.97),
    # A kernel is a barrier to XLA's fusion, so None must not be one where that costs.
    Speed("None is not slower than the formula in a chain", CHAINS, OURS, SAME_NOISE, 0.97),
    # None does not see the neighbours, so for float32 it cannot be the quickest by itself and in a chain as well.
    *(
        Speed(f"None is the quickest of ours in {dtype}: noise, chains", CHOSEN, OURS, BEST_OF_OURS, least, (dtype,))
        for dtype, least in (("bfloat16", 0.95), ("float32", 0.88))
    ),
    Speed("Philox, best of ours: not slower than any of jax's generators", WITH_PHILOX, BEST_OF_OURS, ANY_NOISE, 1.0),
    Speed("best of ours: not slower than torch.compile", (*FORWARD, NOISY, *BACKWARD), BEST_OF_OURS, TORCH, 0.97),
    # A kernel reads x once, and XLA reads it twice, in three kernels.
    Speed("rows to int8 and scales, None: not slower than the formula", ROWS, OURS, SAME_NOISE, 0.97),
    Speed("rows to int8 and scales, None: the quickest of ours", ROWS, OURS, BEST_OF_OURS, 0.95),
    Speed("rows to int8 and scales, best of ours: not slower than torch.compile", ROWS, BEST_OF_OURS, TORCH, 0.97),
    Speed("layer norm, rows to int8 and scales, None: not slower than the formula", AFTER_NORM, OURS, SAME_NOISE, 0.97),
)
