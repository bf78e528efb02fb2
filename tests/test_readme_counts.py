"""What the README and docs/implementations.md say of counts of instructions is so in those stored."""

import prose
import pytest
from test_readme import CHOICE, IMPLEMENTATIONS, NOISY, ON_V4, README, TPUS, counted, moved

from bench.aot import report
from bench.aot.chips import count, counts
from bench.baselines import GENERATORS

# A fact: the ratios of counts, what they are between, and the numbers that a section of a page says of them, if any,
# with a name that tells which paragraph.
FACTS: dict[str, tuple[list[float], float, float, tuple[str, str, tuple[float | str, ...]] | None]] = {
    "a kernel draws Philox noise on an H100 in half to two thirds of XLA's instructions": (
        [
            counted(f"{ours}: {case} with Philox", "h100") / counted(f"xla: {case} with Philox", "h100")
            for case in ("quantize float32", "quantize bfloat16", report.INT8)
            for ours in ("pallas_triton", "pallas_mosaic_gpu")
        ],
        0.4,
        0.67,
        None,
    ),
    "on a TPU XLA takes several times a kernel's instructions for Philox": (
        [
            counted(f"xla: {report.INT8} with Philox", chip) / counted(f"pallas: {report.INT8} with Philox", chip)
            for chip in TPUS
        ],
        3,
        10,
        None,
    ),
    "on a TPU XLA moves three to four times a kernel's bytes for the mask": (
        [
            moved(f"xla: {case}", chip) / moved(f"pallas: {case}", chip)
            for case in ("quantize bfloat16 with mask", "clip gradient from mask, bfloat16")
            for chip in TPUS
        ],
        2.5,
        4.5,
        (IMPLEMENTATIONS, CHOICE, (3, 4, "mask")),
    ),
    "on a TPU Philox takes XLA twice the instructions of threefry": (
        [
            counted(f"xla: {report.INT8} with Philox", chip) / counted(f"xla: {report.INT8} with JaxUniform", chip)
            for chip in TPUS
        ],
        1.5,
        2.5,
        (README, "Limits", (2, "threefry")),
    ),
    "on an H100 no noise that a user can draw is a match for a kernel": (
        [
            counted(f"formula: {report.INT8} with {generator}", "h100")
            / counted(f"{ours}: {report.INT8} with Philox", "h100")
            for generator in GENERATORS
            for ours in ("pallas_triton", "pallas_mosaic_gpu")
        ],
        1.5,
        10,
        None,
    ),
    "on an H100 the hash is free by the count, in every kernel and in XLA's fusion": (
        [
            counted(f"{who}: {report.INT8} with hash", "h100") / report.allows("h100")
            for who in ("pallas_triton", "pallas_mosaic_gpu", "jax_triton", "xla")
        ],
        0.1,
        1,
        (IMPLEMENTATIONS, CHOICE, (counted(f"xla: {report.INT8} with hash", "h100"),)),
    ),
    "on a v5e the hash is free by the count in a kernel": (
        [counted(f"pallas: {report.INT8} with hash", "v5e") / report.allows("v5e")],
        0.1,
        1,
        (
            IMPLEMENTATIONS,
            CHOICE,
            tuple(counted(f"{who}: {report.INT8} with hash", "v5e") for who in ("pallas", "xla")),
        ),
    ),
    "on a v6e the hash takes a kernel longer than memory": (
        [counted(f"pallas: {report.INT8} with hash", "v6e") / report.allows("v6e")],
        1.55,
        1.65,
        (README, "Stochastic rounding", (1.6, "HashUniform")),
    ),
    "on every TPU a kernel's hash costs less than one of your own": (
        [
            counted(f"pallas: {report.INT8} with hash", chip) / counted(f"formula: {report.INT8} with hash", chip)
            for chip in ("v4", *TPUS)
        ],
        0.1,
        1,
        None,
    ),
    "on newer TPUs XLA's form of the hash costs more than one of your own": (
        [
            counted(f"xla: {report.INT8} with hash", chip) / counted(f"formula: {report.INT8} with hash", chip)
            for chip in TPUS
        ],
        1,
        1.3,
        None,
    ),
    "on a TPU a hash of the index costs less than Philox": (
        [
            counted(f"formula: {report.INT8} with hash", chip) / counted(f"pallas: {report.INT8} with Philox", chip)
            for chip in ("v4", *TPUS)
        ],
        0.1,
        1,
        None,
    ),
    "on a v4 a kernel's Philox takes more bundles than threefry, and more than twice those of a hash": (
        [
            counted(f"pallas: {report.INT8} with Philox", "v4") / (least * counted(f"formula: {NOISY} {noise}", "v4"))
            for noise, least in (("threefry", 1), ("hash", 2))
        ],
        1,
        2,
        (IMPLEMENTATIONS, CHOICE, tuple(counted(case, "v4") for case in ON_V4)),
    ),
    "on a v4 without noise XLA takes fewer bundles than a kernel": (
        [counted(f"pallas: {report.INT8}", "v4") / counted(f"xla: {report.INT8}", "v4")],
        1,
        2,
        (IMPLEMENTATIONS, CHOICE, tuple(counted(f"{name}: {report.INT8}", "v4") for name in ("pallas", "xla"))),
    ),
    "on a v4 the hardware's noise is the cheapest": (
        [
            counted(f"pallas: {NOISY} hardware noise", "v4") / count(row)
            for (case, chip), row in counts().items()
            if chip == "v4" and NOISY in case and "hardware" not in case and "error" not in row
        ],
        0.1,
        1,
        (IMPLEMENTATIONS, CHOICE, (counted(f"pallas: {NOISY} hardware noise", "v4"),)),
    ),
}


@pytest.mark.parametrize("fact", FACTS)
def test_what_it_says_of_counts_is_so_in_those_stored(fact: str) -> None:
    ratios, low, high, said = FACTS[fact]
    assert low < min(ratios)
    assert max(ratios) < high
    if said:
        page, title, wanted = said
        assert prose.says(page, title, *wanted)
