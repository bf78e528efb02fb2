"""The table of block sizes and warps: what is looked up in it, and that every entry could only change the speed."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import oracle
import pytest
import streams
from conftest import missing_device
from oracle import assert_same_bits
from test_kernels import assert_is_formula

from bench import machine, tune, tune_search, tune_table
from bench.tune_search import Case
from intnumerics.kernels import KERNEL_DTYPES, Draw, QuantSpec, gpu, tuning
from intnumerics.kernels.tuning import Configuration, Row

ROOT = pathlib.Path(__file__).parent.parent
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
MASKED = dataclasses.replace(NEAREST, with_mask=True)
INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
KEY = (0x243F6A88, 0x85A308D3)
MEASURED = "2026-12-01, JAX 0.11.2, driver 570.124.06, 2**26 elements: 5.1% less device time"
ROW = Row("a GPU", "bfloat16", "quantize", Configuration(8192, 8), MEASURED)


# --- what is looked up ------------------------------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts rows in the place of the table's."""
    return lambda *rows: monkeypatch.setattr(tuning, "TABLE", rows)


@pytest.mark.parametrize(
    ("operation", "n", "examples", "block"),
    [
        ("quantize", 1, 1, 1024),
        ("quantize", 512 * 4096 - 1, 1, 1024),
        ("quantize", 512 * 4096, 1, 4096),
        ("quantize", 1 << 30, 1, 4096),
        ("clip gradient from x", 1 << 30, 1, 4096),
        ("quantize, noise drawn", 512 * 4096, 1, 4096),
        ("quantize, noise drawn", 512 * 8192, 1, 8192),
        ("quantize to int8, noise drawn, with mask", 512 * 8192, 1, 8192),
        ("quantize, noise drawn", 8192, 512, 8192),
        ("quantize, noise drawn", 8191, 1 << 20, 4096),
        ("quantize, noise drawn", 100, 1 << 20, 1024),
    ],
)
def test_an_unknown_device_has_the_largest_default_that_keeps_it_busy(
    operation: str, n: int, examples: int, block: int, table: Callable[..., None]
) -> None:
    table()
    for device in (None, "a device that nobody measured"):
        assert tuning.configuration(device, "float32", operation, n, examples) == Configuration(block, 4)


def test_a_row_is_for_its_device_dtype_and_operation_and_for_arrays_that_fill_enough_of_its_blocks(
    table: Callable[..., None],
) -> None:
    table(dataclasses.replace(ROW, device="another"), ROW)
    n = 512 * 8192
    assert tuning.configuration("a GPU", "bfloat16", "quantize", n) == ROW.configuration
    assert tuning.configuration("a GPU", "bfloat16", "quantize", n - 1) == Configuration(4096, 4)
    for other in (
        ("the same", "bfloat16", "quantize"),
        (None, "bfloat16", "quantize"),
        ("a GPU", "float32", "quantize"),
        ("a GPU", "bfloat16", "quantize to int8"),
    ):
        assert tuning.configuration(*other, n) == Configuration(4096, 4)


@pytest.mark.parametrize(
    ("spec", "with_noise", "name"),
    [
        (NEAREST, False, "quantize"),
        (INT8, False, "quantize to int8"),
        (MASKED, False, "quantize, with mask"),
        (NEAREST, True, "quantize, noise read"),
        (dataclasses.replace(INT8, with_mask=True, draw=Draw("philox", (8,))), True,
         "quantize to int8, noise drawn, with mask"),
    ],
)  # fmt: skip
def test_a_quantization_is_named_for_what_it_reads_and_writes(spec: QuantSpec, with_noise: bool, name: str) -> None:
    assert tuning.quantization(spec, with_noise) == name


@pytest.mark.parametrize(
    ("block", "warps", "reason"),
    [
        (1000, 1, "powers of 2"),
        (0, 1, "powers of 2"),
        (4096, 3, "powers of 2"),
        (1 << 20, 64, "32 at most"),
        (512, 4, "at least 1024"),
    ],
)
def test_a_configuration_that_no_kernel_can_have_is_refused(block: int, warps: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Configuration(block, warps)


def how_it_runs(function: Callable[..., Any], *arrays: Any) -> tuple[int, int]:
    """Programs and warps of the kernel in a function."""
    [call] = [eqn for eqn in jax.make_jaxpr(function)(*arrays).eqns if eqn.primitive.name == "pallas_call"]
    return call.params["grid_mapping"].grid[0], call.params["compiler_params"].num_warps


def test_a_kernel_runs_as_the_row_of_the_device_of_the_mesh_says_and_interpreted_as_the_default(
    table: Callable[..., None],
) -> None:
    device = jax.devices("cpu")[0]
    n, spec = 512 * 16384, dataclasses.replace(NEAREST, draw=Draw("philox", (512 * 16384,)))
    x, seed, mask = (jax.ShapeDtypeStruct(*a) for a in (((n,), "bfloat16"), ((4,), "uint32"), ((n // 8,), "uint8")))
    calls = {
        "quantize": (lambda x, **how: gpu.quantize(x, None, NEAREST, **how), x),
        "quantize, noise drawn": (lambda x, seed, **how: gpu.quantize(x, seed, spec, **how), x, seed),
        "clip gradient from mask": (gpu.clip_gradient_from_mask, x, mask),
        "clip gradient from x": (lambda g, x, **how: gpu.clip_gradient_from_x(g, x, NEAREST, **how), x, x),
    }
    row = dataclasses.replace(ROW, device=device.device_kind, configuration=Configuration(16384, 8))
    table(*(dataclasses.replace(row, operation=operation) for operation in calls))
    with jax.set_mesh(jax.sharding.Mesh([device], "i")):
        for operation, (function, *arrays) in calls.items():
            assert how_it_runs(function, *arrays) == (512, 8), operation
            default = n // tuning.defaults(operation)[0].block
            assert how_it_runs(lambda *a, f=function: f(*a, interpret=True), *arrays) == (default, 4), operation
            forced = lambda *a, f=function: f(*a, configuration=Configuration(2048, 2))  # noqa: E731
            assert how_it_runs(forced, *arrays) == (n // 2048, 2), operation


def test_without_a_mesh_the_device_is_the_gpu_of_this_process_or_unknown() -> None:
    expected = None if missing_device("gpu") else jax.devices("gpu")[0].device_kind
    assert tuning.device_kind() == expected


# --- what is in it ----------------------------------------------------------------------------------------------------

SAYS_WHERE = re.compile(
    r"20\d\d-\d\d-\d\d, JAX \d+(\.\d+)+, driver \d\S*, 2\*\*\d+ elements: \d+\.\d% less (device|wall) time"
)
OPERATIONS = {case.operation for case in tune_search.cases(1024, ["float32"])}


def is_measured(row: Row) -> bool:
    known = row.dtype in KERNEL_DTYPES and row.operation in OPERATIONS and bool(row.device)
    return known and row.configuration in tune_search.candidates() and bool(SAYS_WHERE.fullmatch(row.measured))


@pytest.mark.parametrize(
    "wrong",
    [
        {"measured": ""},
        {"measured": MEASURED.replace("2026-12-01, ", "")},
        {"measured": MEASURED.replace("driver 570.124.06", "driver unknown")},
        {"operation": "quantise"},
        {"dtype": "float64"},
        {"device": ""},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_row_of_the_table_says_where_it_was_measured(wrong: dict[str, str]) -> None:
    assert is_measured(ROW)
    assert not is_measured(dataclasses.replace(ROW, **wrong))
    assert [row for row in tuning.TABLE if not is_measured(row)] == []


# --- it changes the speed alone ---------------------------------------------------------------------------------------


def run_all(x: np.ndarray, g: np.ndarray, shape: tuple[int, ...], configuration: Configuration) -> dict[str, Any]:
    """Every operation, interpreted, the noise being drawn for examples of `shape`."""
    to_int8 = dataclasses.replace(INT8, with_mask=True, draw=Draw("philox", shape))
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, x.shape).astype(np.float32)
    how = {"interpret": True, "configuration": configuration}

    def run(x: jax.Array, g: jax.Array, noise: jax.Array, seed: jax.Array) -> dict[str, Any]:
        masked = gpu.quantize(x, None, MASKED, **how)
        return {
            "masked": masked,
            "read": gpu.quantize(x, noise, NEAREST, **how),
            "drawn": gpu.quantize(x, seed, to_int8, **how),
            "from mask": gpu.clip_gradient_from_mask(g, masked[1], **how),
            "from x": gpu.clip_gradient_from_x(g, x, NEAREST, **how),
        }

    found = jax.tree.map(np.asarray, jax.jit(run)(x, g, noise, streams.seed(KEY)))
    drawn = np.broadcast_to(streams.uniform(shape, KEY), x.shape)
    gradient = np.where(oracle.mask(x, NEAREST), g, np.zeros_like(g))
    assert_is_formula(found["masked"], x, None, MASKED)
    assert_is_formula(found["read"], x, noise, NEAREST)
    assert_is_formula(found["drawn"], x, drawn, dataclasses.replace(to_int8, draw=None))
    assert_same_bits(found["from mask"], gradient)
    assert_same_bits(found["from x"], gradient)
    return found


def numbers(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x, g = ((random.normal(size=shape) * scale).astype(dtype) for scale in (100, 1))
    x.reshape(-1)[:5] = np.asarray([np.nan, -0.0, np.inf, -np.inf, 126.5], dtype)
    return x, g


@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
@pytest.mark.parametrize("configuration", tune_search.candidates(), ids=lambda c: f"{c.block}-{c.warps}")
def test_every_configuration_that_is_tried_gives_the_formula_in_whole_blocks_and_in_a_tail(
    configuration: Configuration, dtype: np.dtype
) -> None:
    shape = (configuration.block + 13,)
    run_all(*numbers(shape, dtype), shape, configuration)


@pytest.mark.parametrize("configuration", [Configuration(1024, 1), Configuration(4096, 16), Configuration(16384, 8)])
@pytest.mark.parametrize("shape", [(5,), (16384,), (3, 1032), (2, 3, 130)], ids=str)
def test_so_it_does_for_less_than_a_block_for_no_tail_for_rows_and_for_a_batch_with_one_seed(
    configuration: Configuration, shape: tuple[int, ...]
) -> None:
    run_all(*numbers(shape, oracle.DTYPES[0]), shape[-1:], configuration)


# --- how it is made ---------------------------------------------------------------------------------------------------


def test_the_fastest_is_kept_only_where_every_comparison_shows_more_than_noise() -> None:
    assert tune_search.gain([(1.0, 0.9), (1.0, 0.95), (2.0, 1.94)]) == pytest.approx(0.05)
    assert tune_search.gain([(1.0, 0.9), (1.0, 0.95), (1.0, 0.985)]) is None
    assert tune_search.gain([(1.0, 1.1)]) is None
    assert tune_search.gain([]) is None
    a, b, c = Configuration(1024, 1), Configuration(2048, 1), Configuration(4096, 1)
    assert tune_search.fastest({a: 3.0, b: 1.0, c: 2.0}) == b
    assert tune_search.fastest({a: 1.0, b: 1.0}) == a


def made_up(seconds: dict[tuple[int, int], float]) -> Callable[..., list[float]]:
    """A clock that says what is made up, by block and warps, and 1 of all others."""
    return lambda programs: [seconds.get(tuple(map(int, one.name.split(", "))), 1.0) for one in programs]


def plain(x: jax.Array, configuration: Configuration, interpret: bool) -> jax.Array:
    """Stands for a kernel: wrong with 8 warps, and does not compile with blocks of 1,024."""
    if configuration.block == 1024:
        raise NotImplementedError("no blocks of 1024")
    return x + (configuration.warps == 8)


@pytest.fixture
def few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "last_level_cache", lambda: 1 << 10)


@pytest.mark.usefixtures("few_inputs")
@pytest.mark.parametrize(
    ("seconds", "best", "gain"),
    [
        ({(8192, 4): 0.9, (4096, 2): 0.8}, (4096, 2), 0.2),  # 64 elements a thread, then 2 warps
        ({(2048, 4): 0.7, (8192, 16): 0.6}, (8192, 16), 0.4),  # 16 a thread
        ({(16384, 16): 0.5}, (16384, 16), 0.5),  # 32 a thread, as the default has
        ({(4096, 16): 0.1}, (4096, 4), None),  # 8 a thread, which was not the best with 4 warps
        ({(8192, 4): 0.985}, (8192, 4), None),
        ({}, (4096, 4), None),
        ({(8192, 8): 0.1, (1024, 4): 0.1}, (4096, 4), None),  # wrong, and not compiled
    ],
)
def test_the_search_varies_the_elements_of_a_thread_and_then_the_warps(
    seconds: dict[tuple[int, int], float], best: tuple[int, int], gain: float | None
) -> None:
    case = Case("quantize", "float32", ("x",), plain)
    found = tune_search.search(case, 1 << 21, made_up(seconds), comparisons=3)
    assert (found.default, found.best) == (Configuration(4096, 4), Configuration(*best))
    assert found.gain == (None if gain is None else pytest.approx(gain))
    assert {c.block for c in found.failed} == {1024}
    assert {c.warps for c in found.wrong} == {8}


def test_what_is_tried_has_8_to_64_elements_a_thread_in_blocks_of_1024_to_16384() -> None:
    expected = {(b, w) for b in (1024, 2048, 4096, 8192, 16384) for w in (1, 2, 4, 8, 16) if 8 <= b // (32 * w) <= 64}
    assert {(c.block, c.warps) for c in tune_search.candidates()} == expected
    for default in (*tuning.defaults("quantize"), *tuning.defaults("quantize, noise drawn")):
        assert default in tune_search.candidates()


def test_differing_elements_are_counted_by_their_bits() -> None:
    a = (np.asarray([0.0, 1.0, np.nan], np.float32), np.asarray([1, 2], np.uint8))
    b = (np.asarray([-0.0, 1.0, np.nan], np.float32), np.asarray([1, 3], np.uint8))
    assert int(tune_search.differing_elements(a, a)) == 0
    assert int(tune_search.differing_elements(a, b)) == 2


# --- how it is written ------------------------------------------------------------------------------------------------


def table_in(source: str) -> tuple[Row, ...]:
    names: dict[str, Any] = {"__name__": tuning.__name__, "__package__": tuning.__package__}
    exec(source, names)
    assert all(type(row) is names["Row"] for row in names["TABLE"])
    as_known = [dataclasses.asdict(row) | {"configuration": None} for row in names["TABLE"]]
    sizes = [dataclasses.astuple(row.configuration) for row in names["TABLE"]]
    return tuple(
        Row(**fields | {"configuration": Configuration(*size)}) for fields, size in zip(as_known, sizes, strict=True)
    )


def test_the_table_that_is_written_is_the_table_that_is_read_and_writing_it_again_changes_nothing() -> None:
    source = tune_table.PATH.read_text()
    long = dataclasses.replace(
        ROW, device='NVIDIA "RTX" PRO 6000 Blackwell Workstation', operation="quantize to int8, noise drawn, with mask"
    )
    written = tune_table.rewritten(source, (long, ROW))
    assert table_in(written) == (long, ROW)
    assert max(map(len, written.splitlines())) <= 120
    assert written == tune_table.rewritten(written, table_in(written))
    assert source == tune_table.rewritten(source, tuning.TABLE)
    assert "None yet" in tune_table.rewritten(written, ())
    assert table_in(tune_table.rewritten(written, ())) == ()


def test_a_table_that_has_lost_its_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="lost its marks"):
        tune_table.rewritten(tune_table.PATH.read_text().replace("# fmt: on", ""), (ROW,))


def test_a_new_row_replaces_that_of_its_device_dtype_and_operation_and_none_takes_it_out() -> None:
    other = dataclasses.replace(ROW, dtype="float32")
    key = (ROW.device, ROW.dtype, ROW.operation)
    better = dataclasses.replace(ROW, configuration=Configuration(2048, 2))
    assert tune_table.merged((ROW, other), key, better) == (other, better)
    assert tune_table.merged((ROW, other), key, None) == (other,)
    assert tune_table.merged((), key, ROW) == (ROW,)


@pytest.mark.usefixtures("few_inputs")
def test_a_run_prints_what_it_finds_and_writes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, description = tmp_path / "tuning.py", {"clocks": {"driver_version": "570.124.06"}}
    path.write_text(tune_table.PATH.read_text())
    monkeypatch.setattr(machine, "description", lambda: description)
    monkeypatch.setattr(tune, "SIZE", 1 << 12)
    monkeypatch.setattr(tune, "search", functools.partial(tune_search.search, interpret=True))
    monkeypatch.setattr(tune_table, "store", functools.partial(tune_table.store, path=path))
    monkeypatch.setattr(sys, "argv", ["tune", "--store", "--only", "gradient", "bfloat16"])
    monkeypatch.setattr(tune.Clock, "__call__", lambda _, programs: made_up({(2048, 4): 0.75})(programs))
    assert tune.tune(tune.arguments(), "a GPU") == {}
    rows = [row for row in table_in(path.read_text()) if row.device == "a GPU"]
    assert [(row.dtype, row.operation, row.configuration) for row in rows] == [
        ("bfloat16", "clip gradient from mask", Configuration(2048, 4)),
        ("bfloat16", "clip gradient from x", Configuration(2048, 4)),
    ]
    assert all(is_measured(row) for row in rows)
    assert all("2**12 elements: 25.0% less device time" in row.measured for row in rows)
    printed = capsys.readouterr().out
    assert path.read_text().count("Row(") - tune_table.PATH.read_text().count("Row(") == 2
    assert "kept: block 2048, 4 warps, 25.0% less time" in printed
    assert all(tune_table.text_of(row) in printed for row in rows)


@pytest.mark.usefixtures("few_inputs")
def test_the_clock_of_a_device_without_a_profile_is_the_walls() -> None:
    case, seen = Case("clip gradient from x", "bfloat16", ("g", "x"), lambda g, x, **_: g + x), tune.Clock()
    found = tune_search.search(case, 1 << 12, seen, comparisons=1)
    assert seen.kind == ("device time" if not missing_device("gpu") else "wall time")
    assert all(seconds > 0 for group in found.groups for seconds in group.values())
    assert tune.lines_of(found, seen.kind)[0] == f"clip gradient from x, bfloat16: {seen.kind}"


def test_arrays_are_as_large_as_memory_allows_in_powers_of_2() -> None:
    assert tune.size_that_fits(1 << 26, 70 << 30) == 1 << 26
    assert tune.size_that_fits(1 << 26, 2 << 30) == 1 << 24


def test_without_a_gpu_it_says_what_it_needs_and_writes_nothing() -> None:
    before = tune_table.PATH.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "bench.tune", "--store"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"needs an NVIDIA GPU, and JAX found cpu only: .*nothing was written", done.stderr)
    assert tune_table.PATH.read_bytes() == before


def test_a_quick_run_is_not_stored() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.tune", "--store", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "leave out one of --quick and --store" in done.stderr


# --- with the real compiler -------------------------------------------------------------------------------------------

COMPILE = """
import dataclasses, jax
from bench.aot import cuda
from intnumerics.kernels import tuning
rows = [
    tuning.Row("NVIDIA H100 80GB HBM3", "bfloat16", name, tuning.Configuration(8192, 8), "")
    for name in ("quantize to int8", "quantize to int8, noise drawn", "clip gradient from mask")
]
names = ("quantize bfloat16 -> int8", "quantize bfloat16 -> int8 with Philox", "clip gradient from mask, bfloat16")
for case in cuda.cases():
    if case.name.removeprefix("pallas: ") in names:
        for table in ((), tuple(rows)):
            tuning.TABLE = table
            jax.clear_caches()
            text = cuda.compile_for_h100(case).as_text()
            print(case.name, *sorted(set(__import__("re").findall(r"num_warps[^0-9]*([0-9]+)", text))))
"""


@pytest.mark.aot
def test_another_configuration_than_the_default_compiles_for_an_h100() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
