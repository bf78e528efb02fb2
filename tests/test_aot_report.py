"""How a compiled program becomes a count, and a count a time; nothing is compiled here."""

import pathlib
import re
from types import SimpleNamespace

import jax
import pytest

from bench.aot import cuda, report, tpu, traffic
from bench.aot.__main__ import measured
from bench.aot.cases import cases
from bench.aot.chips import CHIPS, counts, reports

TARGET = (pathlib.Path(cuda.__file__).parent / "h100.txtpb").read_text()

PROGRAM = """HloModule jit_f

%fused (p: u32[2]) -> (u32[250], u32[750]) {
  %p = u32[2]{0} parameter(0)
  ROOT %q = (u32[250]{0}, u32[750]{0}) rng-bit-generator(%p), algorithm=rng_default
}

ENTRY %main.4 (x.1: bf16[1000], w.1: u32[2]) -> (s8[1000], pred[3]) {
  %x.1 = bf16[1000]{0} parameter(0), sharding={replicated}
  %w.1 = u32[2]{0} parameter(1)
  %loop_xor_fusion.2 = (u32[250]{0}, u32[750]{0}) fusion(%w.1), kind=kLoop, calls=%fused, metadata={op_name="f(x)"}
  %get-tuple-element.3 = u32[750]{0} get-tuple-element(%loop_xor_fusion.2), index=1
  %pallas_call.3 = f32[10,100]{1,0} custom-call(%x.1, /*index=1*/%get-tuple-element.3), custom_call_target="triton"
  ROOT %tuple.1 = (s8[1000]{0}, pred[3]{0}) tuple(%pallas_call.3)
}
"""

IN_PLACE = """HloModule jit_f

%update (p.0: f32[1000], p.1: f32[1000]) -> f32[1000] {
  %p.0 = f32[1000]{0} parameter(0)
  %p.1 = f32[1000]{0} parameter(1)
  %bitcast.1 = f32[1,1000]{1,0} bitcast(%p.1), metadata={op_name="x"}
  %slice.1 = f32[1,7]{1,0} slice(%bitcast.1), slice={[0:1], [993:1000]}
  %bitcast.2 = f32[7]{0} bitcast(%slice.1)
  %constant.1 = s32[] constant(993)
  %dynamic-update-slice.1 = f32[1000]{0} dynamic-update-slice(%p.0, %bitcast.2, %constant.1)
  ROOT %bitcast.3 = f32[1,1000]{1,0} bitcast(%dynamic-update-slice.1)
}

%pack (p.2: f32[1000]) -> u8[1] {
  %p.2 = f32[1000]{0} parameter(0)
  %slice.2 = f32[7]{0} slice(%p.2), slice={[993:1000]}
  ROOT %reduce.2 = u8[1]{0} reduce(%slice.2), dimensions={0}, to_apply=%add
}

%both (p.3: f32[1000], p.4: f32[7], p.5: u8[125], p.6: u8[1]) -> (f32[1000], u8[125]) {
  %p.3 = f32[1000]{0} parameter(0)
  %p.4 = f32[7]{0} parameter(1)
  %constant.3 = s32[] constant(993)
  %dynamic-update-slice.4 = f32[1000]{0} dynamic-update-slice(%p.3, %p.4, %constant.3)
  %p.5 = u8[125]{0} parameter(2)
  %p.6 = u8[1]{0} parameter(3)
  %dynamic-update-slice.5 = u8[125]{0} dynamic-update-slice(%p.5, %p.6, %constant.3)
  ROOT %tuple.3 = (f32[1000]{0}, u8[125]{0}) tuple(%dynamic-update-slice.4, %dynamic-update-slice.5)
}

ENTRY %main.4 (x.1: f32[1000], y.1: f32[7], at.1: s32[]) -> u8[125] {
  %x.1 = f32[1000]{0} parameter(0)
  %y.1 = f32[7]{0} parameter(1)
  %at.1 = s32[] parameter(2)
  %kernel.1 = (f32[1000]{0}, u8[125]{0}) custom-call(%x.1, %x.1), custom_call_target="mosaic_gpu_v2"
  %get-tuple-element.1 = f32[1000]{0} get-tuple-element(%kernel.1), index=0
  %get-tuple-element.2 = u8[125]{0} get-tuple-element(%kernel.1), index=1
  %fusion.1 = f32[1,1000]{1,0} fusion(%get-tuple-element.1, %x.1), kind=kLoop, calls=%update
  %fusion.2 = u8[1]{0} fusion(%x.1), kind=kInput, calls=%pack, metadata={op_name="f(x)"}
  %dynamic-update-slice.3 = u8[125]{0} dynamic-update-slice(%get-tuple-element.2, %fusion.2, %at.1)
  %bitcast.4 = f32[1000]{0} bitcast(%fusion.1)
  ROOT %fusion.3 = (f32[1000]{0}, u8[125]{0}) fusion(%bitcast.4, %y.1, %dynamic-update-slice.3, %fusion.2), calls=%both
}
"""

LISTING = """= control target key start
LH: loop header
     0   :  { %v4_v0 = vlaneseq }
   0x1   :  { %293 = set.rngseed %v292_v44 }
   0x2   :  { %v294_v45 = vrng }
   0x3 LB: > { %s1 = sadd.s32 4294967295, %s2 }
   0x4   : > { %v332_v46 = vrng  ;;  %s3 = smov [#allocation5] }
   0x5   : > { %333 = vst [vmem:[%s4] sm:$0xff] %v332_v46  ;;  %v334_v47 = vrng }
   0x6   : > { %335 = vst [vmem:[%s4 + $0x8] sm:$0xff] %v334_v47 }
   0x7   :  { %336 = vsyncpa [#allocation6], 1 }
"""


def stated(name: str) -> float:
    [found] = re.findall(rf"\b{name}: ([\d.]+)", TARGET)
    return float(found)


def test_the_h100_of_the_report_is_the_one_that_xla_compiles_for() -> None:
    chip = CHIPS["h100"]
    assert chip.bandwidth == stated("memory_bandwidth")
    assert chip.clock == pytest.approx(1e9 * stated("clock_rate_ghz"))
    assert chip.units * chip.batch == stated("core_count") * stated("fpus_per_core")


def test_a_time_is_of_the_bytes_or_of_the_slower_of_two_rates() -> None:
    gpu, two_cores = CHIPS["h100"], CHIPS["v5p"]
    assert gpu.memory(3.352) == pytest.approx(1)
    row = {"instructions_per_element": 16.896, "alu_per_element": 5.0}  # the lanes of an H100, in thousands
    assert gpu.arithmetic(row) == pytest.approx(1 / 1.98)
    assert gpu.arithmetic(row | {"alu_per_element": 16.896}) == pytest.approx(2 / 1.98)
    assert two_cores.arithmetic({"bundles_per_1024": 7.0}) == pytest.approx(7e3 / 1.75 / 2048, rel=1e-3)
    assert gpu.arithmetic({"instructions_per_element": gpu.allows(3)}) == pytest.approx(gpu.memory(3))


def test_traffic_is_what_each_kernel_reads_and_writes() -> None:
    assert traffic.traffic(PROGRAM) == {"loop_xor_fusion.2": (8, 4000), "pallas_call.3": (2000 + 3000, 4000)}
    assert traffic.size_of("(u8[3]{0}, pred[5]{0}, f8e4m3fn[7], u64[])") == 3 + 5 + 7 + 8


def test_of_an_array_that_is_updated_in_place_only_the_part_is_moved() -> None:
    rest, packed, mask = 4 * 7, 1, 4 * 7 + 1
    assert traffic.traffic(IN_PLACE) == {
        "kernel.1": (4000, 4000 + 125),
        "fusion.1": (rest, rest),
        "fusion.2": (rest, packed),
        "dynamic-update-slice.3": (packed + 4, packed),
        "fusion.3": (mask, mask),
    }


def test_integers_and_comparisons_go_through_the_alu_and_products_and_what_a_warp_shares_do_not() -> None:
    assert not [name for name in ("LOP3.LUT", "IADD3", "PRMT", "FSETP.GT.AND", "SEL") if cuda.NOT_ALU.match(name)]
    others = ("FADD.FTZ", "FFMA", "HFMA2.MMA", "IMAD.WIDE.U32", "LDG.E.128", "ULDC", "EXIT")
    assert all(cuda.NOT_ALU.match(name) for name in others)


def test_a_loop_that_draws_counts_for_each_number_it_draws(tmp_path: pathlib.Path) -> None:
    (tmp_path / "17-rng-bit-generator-66-final_bundles.txt").write_text(LISTING)
    (tmp_path / "17-rng-bit-generator-65-schedule-analysis_final_bundles.txt").write_text("total scheduled bundles: 9")
    assert tpu.drawn(tmp_path, "rng-bit-generator") == 4 / 2


CODE = """.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   FFMA R2, R2, 2.3283064365386962891e-10, R3 ;
        /*0020*/                   FFMA R2, R2, R4, R3 ;
        /*0030*/               @P0 BRA `(.L_x_0) ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/                   FADD R2, R2, R3 ;
.L_x_1:
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   BRA `(.L_x_2);
""".splitlines()


def test_the_instructions_of_a_loop_count_once_per_turn() -> None:
    times = dict(zip(CODE, cuda.executions(CODE, [7]), strict=True))
    assert [times[line] for line in CODE if "R2, R2" in line] == [7, 7, 1]
    with pytest.raises(ValueError, match="1 loops in machine code, and 2 in the program"):
        cuda.executions(CODE, [7, 7])


def test_a_product_with_a_constant_is_not_one_of_two_numbers() -> None:
    assert [line for line in CODE if cuda.MERGED.search(line)] == [CODE[4]]


def test_the_turns_of_loops_are_found_in_functions_too() -> None:
    def twice(x: jax.Array) -> jax.Array:
        inner = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: x + x, x))
        return jax.lax.scan(lambda x, _: (x * x, None), inner(x), length=5)[0]

    assert cuda.turns(jax.make_jaxpr(twice)(1.0).jaxpr) == [3, 5]


def test_a_program_that_the_compiler_cut_up_is_not_counted(tmp_path: pathlib.Path) -> None:
    for part in range(2):
        (tmp_path / f"{part}-fusion.1-66-schedule-analysis_final_bundles.txt").write_text("total scheduled bundles: 9")
    with pytest.raises(NotImplementedError, match="2 programs"):
        tpu.scheduled(tmp_path, "fusion.1-")


@pytest.mark.parametrize("error", [NotImplementedError, jax.errors.JaxRuntimeError])
def test_what_does_not_compile_is_reported_unless_it_is_a_kernel(tmp_path: pathlib.Path, error: type) -> None:
    def refuse(case: SimpleNamespace, chip: str, dump: pathlib.Path) -> None:
        raise error(f"{case.name} is too large\nand more")

    compiler = SimpleNamespace(measure=refuse, version=lambda: "none")

    def report(name: str) -> dict:
        case = SimpleNamespace(name=name, is_kernel=name == "pallas", chips=["v4"])
        return measured(compiler, [case], True, tmp_path)

    assert report("formula")["cases"] == [{"case": "formula", "chip": "v4", "error": "formula is too large"}]
    with pytest.raises(error, match="pallas is too large"):
        report("pallas")


@pytest.mark.parametrize("platform", reports())
def test_all_cases_are_stored_and_no_others(platform: str) -> None:
    named = [(case.name, chip) for case in cases(platform) for chip in case.chips]
    assert len(named) == len(set(named))
    assert {(row["case"], row["chip"]) for row in reports()[platform]["cases"]} == set(named)


@pytest.mark.parametrize("platform", reports())
def test_every_kernel_that_is_stored_is_compiled_for_a_chip_by_the_tests(platform: str) -> None:
    kernels = [case for case in cases(platform) if case.is_kernel]
    left_out = {case.name.partition(": ")[2] for case in kernels if not (case.tested_on() or case.slices)}
    gpu = {"quantize float16, floor + 0.5", "quantize float16 with noise array"}
    assert left_out == (set() if platform == "tpu" else gpu)
    scaled = [case for case in kernels if case.slices]
    for chosen in (lambda case: (case.noise, case.slices), lambda case: (case.noise, case.dtype, case.to)):
        of_all, of_tested = ({chosen(case) for case in of} for of in (scaled, [c for c in scaled if c.tested_on()]))
        assert of_all - of_tested <= {("Philox", 1024), ("Philox", 8192), ("", "float32", "int8"), ("", "bfloat16", "")}


def test_both_compilers_of_pallas_for_cuda_are_given_the_same_cases() -> None:
    named = [case.name.partition(": ") for case in cases("cuda")]
    triton, mosaic = ([what for who, _, what in named if who == f"pallas_{name}"] for name in ("triton", "mosaic_gpu"))
    assert triton
    assert triton == mosaic


def test_nothing_moves_less_than_it_must() -> None:
    rows = [row for row in counts().values() if "error" not in row]
    assert all(row["bytes_per_element"] >= 0.99 * row["least_bytes_per_element"] for row in rows)


def test_a_kernel_moves_a_row_once_where_xla_reads_it_twice() -> None:
    stored = {key: row for key, row in counts().items() if report.ROWS in key[0] and "rows of 4096" in key[0]}
    for (case, chip), row in stored.items():
        reads = 1 if case.startswith("pallas") else 2
        if "error" not in row and " with " not in case:
            assert row["bytes_per_element"] == pytest.approx(2 * reads + 1, abs=0.02), (case, chip)
    assert {case.partition(":")[0] for case, _ in stored} >= {"pallas_mosaic_gpu", "xla", "formula"}


def test_the_table_of_rows_has_a_count_for_each_length_and_says_why_one_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def row(number: float, moved: float) -> dict[str, float]:
        return {"bundles_per_1024": number, "bytes_per_element": moved, "least_bytes_per_element": 3.0}

    stored = {(f"pallas: {report.ROWS}, rows of {n}", "v5e"): row(n / 1000, 3.0) for n in (1024, 4096, 1000)}
    stored |= {(f"xla: {report.ROWS}, rows of 4096", "v5e"): row(2.0, 5.0)}
    stored |= {(f"xla: {report.ROWS} with Philox, rows of 4096", "v5e"): {"error": "cut into 8 programs"}}
    monkeypatch.setattr(report, "counts", lambda: stored)
    assert report.rows_table().splitlines()[2:] == [
        "| TPU v5e | kernel | 1.024 | 4.096 | - | 1.0 | 3 | 100% |",
        "| TPU v5e | XLA's fusion | - | 2.0 | - | - | 5 | 60% |",
        "",
        "- TPU v5e, XLA's fusion, Philox: cut into 8 programs.",
    ]
