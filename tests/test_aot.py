"""The kernels through the real compilers: they compile, and stay within their budget of machine instructions."""

from typing import Any

import pytest
from compilers import Compilers

from bench.aot.chips import CHIPS, count, reports
from bench.baselines import GENERATORS

SLOW_ON_V4 = ("int8", "bfloat16 with mask")  # where it takes at least twice the bundles of a v5e

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


def kernels_of(report: dict[str, Any]) -> str:
    """What the names of our kernels begin with."""
    return "jax_triton" if report["platform"] == "jax_triton" else "pallas"


def ceilings(platform: str) -> dict[tuple[str, str], float]:
    """What each count may be at most: instructions per element, or bundles per 1,024 elements."""
    floats = ("float32", "bfloat16")
    if platform == "jax_triton":
        ours = "jax_triton: quantize"
        found = {(f"{ours} {d}{to}", "h100"): 6.6 for d in (*floats, "float16") for to in ("", " -> int8")}
        found |= {(f"{ours} {d} with mask", "h100"): 9.7 for d in (*floats, "float16")}
        found |= {(f"{ours} {d}{to} with Philox", "h100"): 18.0 for d in floats for to in ("", " -> int8")}
        back = {(f"jax_triton: clip gradient from {what}, {d}", "h100"): 5.0 for d in floats for what in ("mask", "x")}
        return found | back | {(f"{ours} bfloat16 with Philox and mask", "h100"): 22.5}
    if platform == "cuda":
        found = {(f"pallas: quantize {d}{to}", "h100"): 7.0 for d in (*floats, "float16") for to in ("", " -> int8")}
        found |= {(f"pallas: quantize {d} with mask", "h100"): 11.0 for d in (*floats, "float16")}
        found |= {(f"pallas: quantize {d} with Philox", "h100"): 18.0 for d in (*floats, "float16")}
        found |= {(f"pallas: quantize {d} -> int8 with Philox", "h100"): 19.0 for d in (*floats, "float16")}
        # On an H100 blocks of more instructions per element, and so more blocks, were measured to take less time.
        found |= {(f"pallas: quantize {d} with Philox", "h100"): 22.5 for d in floats}
        return found | {("pallas: quantize bfloat16 with Philox and mask", "h100"): 21.0}
    found = {}
    for chip in ("v5e", "v5p", "v6e"):
        found |= {(f"pallas: quantize {d}{to}", chip): 3.0 for d in floats for to in ("", " -> int8")}
        found |= {(f"pallas: quantize {d} with mask", chip): 5.5 for d in floats}
        for kind, limit in (("float32", 2.6), ("bfloat16", 3.3), ("bfloat16 -> int8", 3.0)):
            found[f"pallas: quantize {kind} with hardware noise", chip] = limit
            found[f"pallas: quantize {kind} with Philox", chip] = 12.0 if chip == "v6e" else 13.0
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
    names = {f"{kernels_of(report)}: {o.format(d)}" for o in operations for d in ("float32", "bfloat16")}
    slow = bound_by_arithmetic(report, names | {f"{kernels_of(report)}: quantize bfloat16 -> int8"})
    assert not [(case, chip) for case, chip in slow if chip != "v4" or not case.endswith(SLOW_ON_V4)]


def test_memory_bounds_the_kernels_that_draw_on_their_chip(report: dict[str, Any]) -> None:
    """Philox on a GPU, and what the generator of a TPU draws from v5e on: there noise is free."""
    noise = "with hardware noise" if report["platform"] == "tpu" else "with Philox"
    kinds = ("float32", "bfloat16", "bfloat16 -> int8")
    slow = bound_by_arithmetic(report, {f"{kernels_of(report)}: quantize {kind} {noise}" for kind in kinds})
    assert not [(case, chip) for case, chip in slow if chip != "v4"]


def test_a_kernel_on_a_gpu_takes_fewer_instructions_than_any_noise_of_the_formula(report: dict[str, Any]) -> None:
    if report["platform"] != "cuda":
        pytest.skip("about GPUs")
    found = rows(report)
    ours = found["pallas: quantize bfloat16 -> int8 with Philox", "h100"]
    for generator in GENERATORS:
        theirs = found[f"formula: quantize bfloat16 -> int8 with {generator}", "h100"]
        assert count(ours) < count(theirs), generator


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
    ragged = ("3x50257", "512x197x768", "float16")  # XLA pads rows, or changes the layout around the kernel
    for (case, chip), row in rows(report).items():
        if case.startswith(kernels_of(report)) and not any(word in case for word in ragged):
            assert row["temporary_bytes"] <= 1 << 16, (case, chip)


def test_h100_kernels_do_not_spill_and_move_128_bits_at_a_time(report: dict[str, Any]) -> None:
    if report["platform"] == "tpu":
        pytest.skip("about machine code for CUDA")
    for (case, _), row in rows(report).items():
        if not case.startswith(kernels_of(report)):
            continue
        assert row["spill_bytes"] == 0, case
        if "Philox" in case:  # which has a test of its own
            continue
        if case.endswith(("3x50257", "10000019", "mask, 1", "2**31 + 5")):  # a masked tail, or rows that XLA pads
            continue
        values = {name: n for name, n in row["memory"].items() if name.startswith(("LDG", "STG"))}
        narrow = [name for name in values if not name.endswith(".128")]
        assert not narrow or "mask" in case, (case, values)  # whose bytes are few
        assert any(name.startswith("LDG.E.128") for name in values), (case, values)
        assert any(name.startswith("STG.E.128") for name in values), (case, values)


def test_h100_kernels_that_draw_noise_keep_it_in_registers(report: dict[str, Any]) -> None:
    if report["platform"] == "tpu":
        pytest.skip("about machine code for CUDA")
    kernels = kernels_of(report)
    drawing = {case: row for (case, _), row in rows(report).items() if case.startswith(kernels) and "Philox" in case}
    assert drawing
    for case, row in drawing.items():
        memory = dict(row["memory"])
        assert not [name for name in memory if name.startswith(("LDS", "STS"))], (case, memory)
        if case.endswith("2**31 + 5"):  # a masked tail
            continue
        assert memory.pop("LDG.E") == 4, case  # the seed
        if "mask" in case:
            memory.pop("STG.E.U8")
        load, store = ("64" if "int32" in case else "128"), ("64" if "int8" in case else "128")
        if kernels == "jax_triton" and "float32 -> int8" in case:  # four columns at a time, which it does not join
            store = "32"
        expected = {f"LDG.E.{load}", f"STG.E.{store}".removesuffix(".32")}
        assert set(memory) == expected, (case, memory)


def test_xla_fuses_the_stream_with_its_neighbours_on_a_gpu(report: dict[str, Any]) -> None:
    if report["platform"] != "cuda":
        pytest.skip("about machine code for CUDA")
    fused = {case: row for (case, _), row in rows(report).items() if case.startswith("xla") and "Philox" in case}
    assert any("chain" in case for case in fused)
    for case, row in fused.items():
        assert (row["kernels"], row["temporary_bytes"]) == (1, 0), case


def test_xla_draws_noise_without_an_array_of_it(report: dict[str, Any]) -> None:
    if report["platform"] == "jax_triton":
        pytest.skip("about XLA, whose counts are with those of Pallas")
    drawing = {key: row for key, row in rows(report).items() if key[0].endswith(("Philox", "JaxUniform"))}
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
