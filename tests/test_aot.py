"""The kernels through the real compilers: they compile, and stay within their budget of machine instructions."""

from typing import Any

import pytest
from compilers import Compilers

from bench.aot.chips import CHIPS, count, reports
from bench.aot.report import CASES
from bench.baselines import GENERATORS

ABSMAX = "by absmax"  # in the names of the cases of test_aot_scales.py
SLOW_ON_V4 = ("int8", "bfloat16 with mask")  # where it takes at least twice the bundles of a v5e

MOSAIC = "pallas_mosaic_gpu"
# What its kernels do not do, so that XLA does it, and of which arrays XLA does the elements after the last whole block.
NOT_IN_MOSAIC = {
    "quantize bfloat16 with shared noise",
    "quantize bfloat16 with shared noise, 2**32 + 4096",
    "quantize float32 with mask, 1",
    "quantize float32 with mask, 3x50257",
}
AFTER_THE_LAST_BLOCK = {
    "quantize float32 with mask, 10000019",
    "quantize bfloat16 with mask, 2**31 + 5",
    "quantize bfloat16 with Philox, 2**31 + 5",
    "clip gradient from mask, bfloat16, 2**31 + 5",
}

PLATFORMS = ("cuda", "jax_triton", "tpu")
COMPLETE = ("h100", "v5e", "v6e")  # the chips for which every ceiling is held by compiling; the stored counts have all

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(platform, marks=pytest.mark.aot) for platform in PLATFORMS),
        *(pytest.param(f"stored {platform}", marks=pytest.mark.tools) for platform in PLATFORMS),
    ],
)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the compilers make of this code, and what is stored."""
    stored, _, platform = request.param.rpartition(" ")
    if stored:
        return reports()[platform] | {"platform": platform, "is_stored": True}
    compiled: Compilers = request.getfixturevalue("compiled")
    return compiled.report(platform) | {"platform": platform, "is_stored": False}


def rows(report: dict[str, Any]) -> Rows:
    return {(row["case"], row["chip"]): row for row in report["cases"]}


def kernels_of(report: dict[str, Any]) -> tuple[str, ...]:
    """Whose kernels are ours, which is what the names of cases begin with."""
    return {"cuda": ("pallas_triton", MOSAIC), "jax_triton": ("jax_triton",), "tpu": ("pallas",)}[report["platform"]]


def ceilings(platform: str) -> dict[tuple[str, str], float]:
    """What each count may be at most: instructions per element, or bundles per 1,024 elements.

    Those of Mosaic GPU's kernels are held to Triton's.
    """
    floats = ("float32", "bfloat16")
    if platform == "jax_triton":
        ours = "jax_triton: quantize"
        found = {(f"{ours} {d}{to}", "h100"): 6.6 for d in (*floats, "float16") for to in ("", " -> int8")}
        found |= {(f"{ours} {d} with mask", "h100"): 9.7 for d in (*floats, "float16")}
        found |= {(f"{ours} {d}{to} with Philox", "h100"): 18.0 for d in floats for to in ("", " -> int8")}
        back = {(f"jax_triton: clip gradient from {what}, {d}", "h100"): 5.0 for d in floats for what in ("mask", "x")}
        return found | back | {(f"{ours} bfloat16 with Philox and mask", "h100"): 22.5}
    if platform == "cuda":
        ours = "pallas_triton: quantize"
        found = {(f"{ours} {d}{to}", "h100"): 7.0 for d in (*floats, "float16") for to in ("", " -> int8")}
        found |= {(f"{ours} {d} with mask", "h100"): 11.0 for d in (*floats, "float16")}
        found |= {(f"{ours} {d} with Philox", "h100"): 18.0 for d in (*floats, "float16")}
        found |= {(f"{ours} {d} -> int8 with Philox", "h100"): 19.0 for d in (*floats, "float16")}
        # On an H100 blocks of more instructions per element, and so more blocks, were measured to take less time.
        found |= {(f"{ours} {d} with Philox", "h100"): 22.5 for d in floats}
        found |= {(f"{MOSAIC}: quantize bfloat16 -> int8 with {noise}", "h100"): 17.3 for noise in ("Philox", "hash")}
        found |= {(f"{MOSAIC}: quantize bfloat16 -> int8", "h100"): 6.4}
        # At the speed of memory there is room for about 30 with an int8 result.
        found |= {("xla: quantize bfloat16 -> int8 with hash", "h100"): 24.0}
        found |= {
            (f"{who}: cast float32 -> bfloat16 with hash", "h100"): 25.0 for who in ("xla", "pallas_triton", MOSAIC)
        }
        found |= {("xla: cast bfloat16 -> float8_e4m3fn with hash", "h100"): 31.0}
        found |= {("xla: quantize float32 with hash", "h100"): 18.5}
        return found | {(f"{ours} bfloat16 with Philox and mask", "h100"): 21.0}
    found = {}
    for chip in ("v5e", "v5p", "v6e"):
        found |= {(f"pallas: quantize {d}{to}", chip): 3.0 for d in floats for to in ("", " -> int8")}
        found |= {(f"pallas: quantize {d} with mask", chip): 5.5 for d in floats}
        for kind, limit in (("float32", 2.6), ("bfloat16", 3.3), ("bfloat16 -> int8", 3.0)):
            found[f"pallas: quantize {kind} with hardware noise", chip] = limit
            found[f"pallas: quantize {kind} with Philox", chip] = 12.0 if chip == "v6e" else 13.0
            found[f"pallas: quantize {kind} with hash", chip] = 5.1 if kind == "float32" else 5.8
        found["xla: quantize bfloat16 -> int8 with hash", chip] = 8.0
    for chip in ("v5e", "v6e"):  # from float32 to bfloat16 there is room for 11.2 and 6.6
        found["xla: cast float32 -> bfloat16 with hash", chip] = 9.3
        found["pallas: cast bfloat16 -> float8_e4m3fn with hash", chip] = 10.5
    found["pallas: quantize bfloat16 -> int8 with hash, 16777216", "v5e"] = 5.8
    found["pallas: quantize bfloat16 -> int8 with hash, 20000x1003", "v5e"] = 8.3
    found["pallas: quantize bfloat16 -> int8 with hash", "v4"] = 27.0  # which has no product of 32-bit integers
    return found


def test_every_kernel_is_within_its_ceiling(report: dict[str, Any]) -> None:
    found, limits = rows(report), ceilings(report["platform"])
    assert {key for key in limits if report["is_stored"] or key[1] in COMPLETE} <= set(found)
    over = {key: (count(found[key]), limit) for key, limit in limits.items() if key in found}
    assert not {key: pair for key, pair in over.items() if pair[0] > pair[1]}


def bound_by_arithmetic(report: dict[str, Any], names: set[str]) -> list[tuple[str, str]]:
    """Those of some kernels that memory does not bound; each must have been counted for the chips of this platform."""
    found = {key: row for key, row in rows(report).items() if key[0] in names}
    chips = {chip for _, chip in found}
    assert chips
    assert {(name, chip) for name in names for chip in chips if report["is_stored"] or chip in COMPLETE} <= set(found)
    speeds = {key: (CHIPS[key[1]], row) for key, row in found.items()}
    return [key for key, (chip, row) in speeds.items() if chip.arithmetic(row) > chip.memory(row["bytes_per_element"])]


def test_memory_bounds_the_kernels_that_draw_nothing(report: dict[str, Any]) -> None:
    operations = ("quantize {}", "quantize {} with mask", "clip gradient from mask, {}", "clip gradient from x, {}")
    cases = {o.format(d) for o in operations for d in ("float32", "bfloat16")} | {"quantize bfloat16 -> int8"}
    slow = bound_by_arithmetic(report, {f"{who}: {case}" for who in kernels_of(report) for case in cases})
    assert not [(case, chip) for case, chip in slow if chip != "v4" or not case.endswith(SLOW_ON_V4)]


def test_memory_bounds_the_kernels_that_draw_on_their_chip(report: dict[str, Any]) -> None:
    """Philox on a GPU, and what the generator of a TPU draws from v5e on: there noise is free."""
    noise = "with hardware noise" if report["platform"] == "tpu" else "with Philox"
    kinds = ("float32", "bfloat16", "bfloat16 -> int8")
    names = {f"{who}: quantize {kind} {noise}" for who in kernels_of(report) for kind in kinds}
    slow = bound_by_arithmetic(report, names)
    assert not [(case, chip) for case, chip in slow if chip != "v4"]


def test_memory_bounds_xlas_fusion_with_the_hash_on_a_gpu(report: dict[str, Any]) -> None:
    if report["platform"] != "cuda":
        pytest.skip("about GPUs")
    names = {f"xla: quantize {kind} with hash" for kind in ("float32", "bfloat16 -> int8")}
    assert not bound_by_arithmetic(report, names)


def test_a_kernel_on_a_gpu_takes_fewer_instructions_than_any_noise_of_the_formula(report: dict[str, Any]) -> None:
    if report["platform"] != "cuda":
        pytest.skip("about GPUs")
    found, case = rows(report), "quantize bfloat16 -> int8 with"
    ours = [count(found[f"{who}: {case} Philox", "h100"]) for who in kernels_of(report)]
    theirs = [count(found[f"formula: {case} {generator}", "h100"]) for generator in GENERATORS]
    assert max(ours) < min(theirs)


def of_mosaic(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of Mosaic GPU by what their cases are."""
    if report["platform"] != "cuda":
        pytest.skip("about GPUs")
    return {case.partition(": ")[2]: row for (case, _), row in rows(report).items() if case.startswith(MOSAIC)}


def test_mosaic_gpu_takes_at_most_a_twentieth_more_instructions_than_triton(report: dict[str, Any]) -> None:
    found = rows(report)
    ours = {what: count(row) for what, row in of_mosaic(report).items() if what not in NOT_IN_MOSAIC}
    ours = {what: number for what, number in ours.items() if ABSMAX not in what}
    assert {*CASES, "quantize float32 with Philox", "quantize bfloat16 -> int8 with Philox"} <= set(ours)
    pairs = {what: (mosaic, count(found[f"pallas_triton: {what}", "h100"])) for what, mosaic in ours.items()}
    assert not {what: pair for what, pair in pairs.items() if pair[0] > 1.05 * pair[1]}


def test_mosaic_gpu_is_one_kernel_and_xla_adds_only_what_follows_the_last_block(report: dict[str, Any]) -> None:
    found = of_mosaic(report)
    ours = {what: row["kernels"] - row["kernels_of_xla"] for what, row in found.items()}
    before = {what: int("with hash" in what) for what in found}  # a small kernel for its subkeys
    assert {what: number for what, number in ours.items() if number != 1} == dict.fromkeys(NOT_IN_MOSAIC, 0)
    after = {what: row["kernels_of_xla"] - before[what] for what, row in found.items() if ours[what]}
    assert {what for what, number in after.items() if number} == AFTER_THE_LAST_BLOCK
    for what in AFTER_THE_LAST_BLOCK:  # in place
        assert found[what]["bytes_per_element"] == found[what]["least_bytes_per_element"], what


def test_no_count_grew_by_a_tenth_since_it_was_stored(report: dict[str, Any]) -> None:
    if report["is_stored"]:
        pytest.skip("about what is compiled")
    stored = reports()[report["platform"]]
    if (stored["jax"], stored["compiler"]) != (report["jax"], report["compiler"]):
        pytest.skip(f"counts are stored for {stored['jax']}, {stored['compiler']}: `python -m bench.aot` stores others")
    before, now = rows(stored), rows(report)
    assert set(now) <= set(before), "the cases changed: store the counts again"
    counted = [key for key in now if key[0].startswith(kernels_of(report))]
    grown = {
        key: (count(before[key]), count(now[key])) for key in counted if count(now[key]) > 1.1 * count(before[key])
    }
    assert not grown


def test_no_kernel_has_a_temporary_array(report: dict[str, Any]) -> None:
    ragged = (
        "3x50257",
        "512x197x768",
        "rows of 1000",
        "float16",
    )  # XLA pads rows, or changes the layout around the kernel
    for (case, chip), row in rows(report).items():
        if case.startswith(kernels_of(report)) and not any(word in case for word in ragged):
            assert row["temporary_bytes"] <= 1 << 16, (case, chip)


def moves(case: str, load: int, store: int) -> set[str]:
    """The instructions that load and store so many bits; Mosaic GPU does not say that the memory is a device's."""
    space = "" if case.startswith(MOSAIC) else "G"
    return {f"LD{space}.E.{load}", f"ST{space}.E.{store}".removesuffix(".32")}


def test_h100_kernels_do_not_spill_and_move_128_bits_at_a_time(report: dict[str, Any]) -> None:
    if report["platform"] == "tpu":
        pytest.skip("about machine code for CUDA")
    for (case, _), row in rows(report).items():
        if not case.startswith(kernels_of(report)):
            continue
        assert row["spill_bytes"] == 0, case
        if "Philox" in case or "hash" in case or ABSMAX in case:  # which have tests of their own
            continue
        if row["kernels_of_xla"] or case.endswith(("10000019", "mask, 1", "2**31 + 5")):  # a masked tail
            continue
        moved = {name for name in row["memory"] if not name.startswith(("LDS", "STS"))}
        expected = moves(case, 128, 64 if case.startswith(MOSAIC) and "int8" in case else 128)
        assert expected <= moved, (case, moved)
        assert moved == expected or "mask" in case, (case, moved)  # whose bytes are few


def test_h100_kernels_that_draw_noise_keep_it_in_registers(report: dict[str, Any]) -> None:
    if report["platform"] == "tpu":
        pytest.skip("about machine code for CUDA")
    kernels = kernels_of(report)
    drawing = {case: row for (case, _), row in rows(report).items() if case.startswith(kernels)}
    drawing = {case: row for case, row in drawing.items() if "Philox" in case or "hash" in case}
    drawing = {case: row for case, row in drawing.items() if ABSMAX not in case}
    assert drawing
    for case, row in drawing.items():
        memory = dict(row["memory"])
        assert not [name for name in memory if name.startswith(("LDS", "STS"))], (case, memory)
        if case.endswith("2**31 + 5"):  # a masked tail, or what XLA does after the last block
            continue
        if "hash" in case:  # whose words XLA makes of the seed
            assert memory.pop("LDG.E.128.CONSTANT") == memory.pop("STG.E") == 1, case
        seed = {"LDG.E": 4}
        if case.startswith(MOSAIC):
            seed = {"LDG.E.128": 1} if "seeds" in case else {"LDG.E.64": 2}
        assert {name: memory.pop(name) for name in seed} == seed, case
        if "mask" in case:
            memory.pop("STG.E.U8" if "STG.E.U8" in memory else "ST.E.U8")
        load, store = (64 if "int32" in case and not case.startswith(MOSAIC) else 128), (64 if "int8" in case else 128)
        if case.startswith("jax_triton") and "float32 -> " in case:  # four columns at a time, which it does not join
            store = 32 if "int8" in case else 64
        assert set(memory) == moves(case, load, store), (case, memory)


def test_xla_fuses_the_stream_with_its_neighbours_on_a_gpu(report: dict[str, Any]) -> None:
    if report["platform"] != "cuda":
        pytest.skip("about machine code for CUDA")
    drawn = {case: row for (case, _), row in rows(report).items() if case.startswith("xla") and "Philox" in case}
    fused = {case: row for case, row in drawn.items() if ABSMAX not in case}  # maxima take programs of their own
    assert any("chain" in case for case in fused)
    for case, row in fused.items():
        assert (row["kernels"], row["temporary_bytes"]) == (1, 0), case
    for case in ("quantize bfloat16 -> int8 with hash", "chain of gelu and quantize bfloat16 -> int8 with hash"):
        row = rows(report)[f"xla: {case}", "h100"]  # one more, small, is for the subkeys
        assert (row["kernels"], row["temporary_bytes"]) == (2, 16), case


def test_xla_draws_noise_without_an_array_of_it(report: dict[str, Any]) -> None:
    if report["platform"] == "jax_triton":
        pytest.skip("about XLA, whose counts are with those of Pallas")
    drawing = {key: row for key, row in rows(report).items() if key[0].endswith(("Philox", "JaxUniform", "hash"))}
    fused = {key: row for key, row in drawing.items() if key[0].startswith("xla") and "error" not in row}
    assert fused
    for key, row in fused.items():
        assert row["temporary_bytes"] <= 1 << 20, key  # of 2**24 elements or more


def test_xla_takes_several_times_the_bundles_for_philox_on_tpu(report: dict[str, Any]) -> None:
    """Why `implementation=None` is a kernel there."""
    if report["platform"] != "tpu":
        pytest.skip("about TPUs")
    found = rows(report)
    for chip in ("v5e", "v6e"):
        ours, xla = (found[f"{name}: quantize bfloat16 -> int8 with Philox", chip] for name in ("pallas", "xla"))
        assert count(xla) > 3 * count(ours)


def test_xla_moves_three_times_the_bytes_for_a_mask_on_tpu(report: dict[str, Any]) -> None:
    """Why `implementation=None` is a kernel there: when XLA learns to pack, the choice should change."""
    if report["platform"] != "tpu":
        pytest.skip("about TPUs")
    found = rows(report)
    for chip in ("v5e", "v6e"):
        for case in ("quantize bfloat16 with mask", "clip gradient from mask, bfloat16"):
            ours, xla = (found[f"{name}: {case}", chip]["bytes_per_element"] for name in ("pallas", "xla"))
            assert xla > 2.5 * ours
