"""What the project promises of a GPU, as data: a few clear targets, each with its reason."""

import dataclasses

from bench.names import COMPILED, FORMULA, OURS

DTYPES = ("bfloat16", "float32")
FORWARD = ("quantize", "quantize to int8")
NOISY = "quantize to int8 with PhiloxUniform"
CHAINS = tuple(
    f"{chain}{noise}"
    for chain in ("gelu, quantize to int8, dot", "layer norm, quantize to int8")
    for noise in ("", " with PhiloxUniform")
)
BACKWARD = ("backward from the mask", "backward from x")
MASKED = ("quantize, keeping the mask", "quantize with PhiloxUniform, keeping the mask")
NOISES = ("PhiloxUniform", "RandomCenteredUniform", "JaxUniform")
ALONE = (*FORWARD, *(f"{name} with {noise}" for name in FORWARD for noise in NOISES), *MASKED, *BACKWARD)

XLA, PALLAS = f"{OURS}, xla", f"{OURS}, pallas"
COPY = "copy"  # the quicker of the two
BEST_OF_OURS = "best of ours"  # the quickest of those by name
SAME_NOISE = "formula"  # with threefry, where there is noise: what jax.random.uniform draws by default
ANY_NOISE = "formula, any generator"  # the quickest with one of jax's generators
TORCH = COMPILED  # and so on, by the beginning of the name


@dataclasses.dataclass(frozen=True)
class Speed:
    """One way to do operations is at least so fast beside another.

    Attributes:
        name: What is promised.
        why: Its reason.
        operations: Which, by their names in the benchmark.
        ours: The name of the variant, or `BEST_OF_OURS`.
        other: What it is compared with: one of the names above.
        least: How many times the speed of the other, in every case.
        dtypes: Of x.
    """

    name: str
    why: str
    operations: tuple[str, ...]
    ours: str
    other: str
    least: float
    dtypes: tuple[str, ...] = DTYPES


@dataclasses.dataclass(frozen=True)
class Right:
    """All results of a step are right.

    Attributes:
        name: What is promised.
        why: Its reason.
        of: `"kernels"` of the first step, `"tests"`, `"cases"` of the benchmark, or what the `"tuner"` tried.
    """

    name: str
    why: str
    of: str


Target = Speed | Right

TARGETS: tuple[Target, ...] = (
    Right("each kernel gives the bits of the reference", "one formula, the same bits everywhere", "kernels"),
    Right("the tests marked gpu pass", "the tests hold every promise that needs a GPU", "tests"),
    Right("each result that is timed is right", "a wrong result has no speed", "cases"),
    Speed(
        "Philox bfloat16 to int8, pallas: near copy speed",
        "18.5 instructions per element, and memory bandwidth has room for about 30",
        (NOISY,),
        PALLAS,
        COPY,
        0.90,
        ("bfloat16",),
    ),
    Speed(
        "deterministic, pallas: at copy speed",
        "5 to 7 instructions per element, and memory bandwidth has room for about 30",
        FORWARD,
        PALLAS,
        COPY,
        0.95,
    ),
    Speed(
        "deterministic float32, XLA's fusion: at copy speed",
        "None is XLA because of it; of 16-bit floats XLA reads 64 bits a thread, which leaves an H200's memory idle",
        FORWARD,
        XLA,
        COPY,
        0.95,
        ("float32",),
    ),
    Speed(
        "backward from the mask, pallas: at copy speed",
        "5 instructions per element; one bit per element is read beside the gradient",
        BACKWARD[:1],
        PALLAS,
        COPY,
        0.95,
    ),
    Speed(
        "None is not slower than the formula",
        "never slower than plain JAX; 3% is chance",
        ALONE,
        OURS,
        SAME_NOISE,
        0.97,
    ),
    Speed(
        "None is not slower than the formula in a chain",
        "a kernel is a barrier to XLA's fusion, so None must not be one where that costs",
        CHAINS,
        OURS,
        SAME_NOISE,
        0.97,
    ),
    Speed(
        "None is the quickest of ours with Philox noise, and without in chains",
        "None picks what measured fastest, and keeps XLA's fusion where a kernel saves less than a pass; 5% is chance",
        (NOISY, f"{FORWARD[0]} with {NOISES[0]}", MASKED[1], *CHAINS),
        OURS,
        BEST_OF_OURS,
        0.95,
    ),
    Speed(
        "Philox, best of ours: not slower than the formula with any of jax's generators",
        "noise drawn in the pass is what a kernel is for",
        (NOISY, f"{FORWARD[0]} with PhiloxUniform"),
        BEST_OF_OURS,
        ANY_NOISE,
        1.0,
    ),
    Speed(
        "best of ours: not slower than torch.compile of the formula",
        "whoever chooses a framework compares with it",
        (*FORWARD, NOISY, *BACKWARD),
        BEST_OF_OURS,
        TORCH,
        0.97,
    ),
    Right("the tuner has tried each kernel, and what it tried is right", "rows come from measurements", "tuner"),
)

GENERATORS = tuple(f"{FORMULA}, {name}" for name in ("threefry", "rbg", "philox4x32"))
