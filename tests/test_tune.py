"""The tuner: what it tries, keeps and writes, on times that are made up, for there is no GPU here."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from conftest import missing_device
from test_tuning import ROW, is_measured

from bench import machine
from intnumerics.kernels.gpu import tuning
from intnumerics.kernels.gpu.tuning import Configuration, Row
from tools import tune, tune_search
from tools.tune_search import Case

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent


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
    """Stands for a kernel that returns x: wrong with 8 warps, and does not compile with blocks of 1,024."""
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
    case = Case("pallas_triton", "quantize", "float32", ("x",), plain, reference=lambda x: x)
    found = tune_search.search(case, 1 << 21, made_up(seconds), comparisons=3)
    assert (found.default, found.best) == (Configuration(4096, 4), Configuration(*best))
    assert found.gain == (None if gain is None else pytest.approx(gain))
    assert {c.block for c in found.failed} == {1024}
    assert {c.warps for c in found.wrong} == {8}


@pytest.mark.usefixtures("few_inputs")
def test_of_mosaic_blocks_are_tried_and_no_warps() -> None:
    case = Case("pallas_mosaic_gpu", "quantize", "float32", ("x",), plain, reference=lambda x: x)
    found = tune_search.search(case, 1 << 21, made_up({(16384, 4): 0.9}), comparisons=3)
    assert (found.default, found.best) == (Configuration(4096, 4), Configuration(16384, 4))
    [group] = found.groups
    assert {c.block for c in (*group, *found.failed)} == {1024, 2048, 4096, 8192, 16384}


@pytest.mark.usefixtures("few_inputs")
def test_a_default_that_is_wrong_is_found_and_nothing_is_kept() -> None:
    case = Case("pallas_triton", "quantize", "float32", ("x",), plain, reference=lambda x: x + 1)
    found = tune_search.search(case, 1 << 21, made_up({}), comparisons=3)
    assert "elements differ from those of the reference" in found.wrong[found.default]
    assert tune.row_of(found, "a GPU", "", "") is None


def test_what_is_tried_has_8_to_64_elements_a_thread_in_blocks_of_1024_to_16384() -> None:
    expected = {(b, w) for b in (1024, 2048, 4096, 8192, 16384) for w in (1, 2, 4, 8, 16) if 8 <= b // (32 * w) <= 64}
    assert {(c.block, c.warps) for c in tune_search.candidates("pallas_triton")} == expected
    of_mosaic = {(c.block, c.warps) for c in tune_search.candidates("pallas_mosaic_gpu")}
    assert of_mosaic == {(b, 4) for b in (1024, 2048, 4096, 8192, 16384)}
    for default in (*tuning.defaults("quantize"), *tuning.defaults("quantize, noise drawn")):
        assert all(default in tune_search.candidates(name) for name in tune_search.WARPS)


def test_differing_elements_are_counted_by_their_bits() -> None:
    a = (np.asarray([0.0, 1.0, np.nan], np.float32), np.asarray([1, 2], np.uint8))
    b = (np.asarray([-0.0, 1.0, np.nan], np.float32), np.asarray([1, 3], np.uint8))
    assert int(tune_search.differing_elements(a, a)) == 0
    assert int(tune_search.differing_elements(a, b)) == 2


# --- how it is written ------------------------------------------------------------------------------------------------


def table_in(source: str) -> tuple[Row, ...]:
    """The table of a module, run with the classes that are here."""
    begin = source.index("TABLE: tuple[Row, ...] = (")
    names: dict[str, Any] = {"Row": Row, "Configuration": Configuration}
    exec(source[begin : source.index("# fmt: on")], names)
    return names["TABLE"]


def test_the_table_that_is_written_is_the_table_that_is_read_and_writing_it_again_changes_nothing() -> None:
    source = tune.PATH.read_text()
    long = dataclasses.replace(
        ROW, device='NVIDIA "RTX" PRO 6000 Blackwell Workstation', operation="quantize to int8, noise drawn, with mask"
    )
    written = tune.rewritten(source, (long, ROW))
    assert table_in(written) == (long, ROW)
    assert max(map(len, written.splitlines())) <= 120
    assert written == tune.rewritten(written, table_in(written))
    assert source == tune.rewritten(source, tuning.TABLE)
    assert "None yet" in tune.rewritten(written, ())
    assert table_in(tune.rewritten(written, ())) == ()


def test_a_table_that_has_lost_its_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="lost its marks"):
        tune.rewritten(tune.PATH.read_text().replace("# fmt: on", ""), (ROW,))


def test_a_new_row_replaces_that_of_its_kernel_and_device_and_none_takes_it_out() -> None:
    other, of_mosaic = (
        dataclasses.replace(ROW, **change) for change in ({"dtype": "float32"}, {"implementation": "pallas_mosaic_gpu"})
    )
    key = tuning.key_of(ROW)
    better = dataclasses.replace(ROW, configuration=Configuration(2048, 2))
    assert tune.merged((of_mosaic, ROW, other), key, better) == (other, better, of_mosaic)
    assert tune.merged((ROW, other, of_mosaic), key, None) == (other, of_mosaic)
    assert tune.merged((), key, ROW) == (ROW,)


@pytest.mark.usefixtures("few_inputs")
def test_a_run_prints_what_it_finds_and_writes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, description = tmp_path / "tuning.py", {"clocks": {"driver_version": "570.124.06"}}
    path.write_text(tune.PATH.read_text())
    rows_before = path.read_text().count("Row(")
    monkeypatch.setattr(machine, "description", lambda: description)
    monkeypatch.setattr(tune, "SIZE", 1 << 12)
    monkeypatch.setattr(tune, "search", lambda *given, **how: tune_search.search(*given, **how | {"interpret": True}))
    monkeypatch.setattr(tune, "PATH", path)
    monkeypatch.setattr(sys, "argv", ["tune", "--store", "--only", "gradient", "bfloat16"])
    monkeypatch.setattr(tuning, "device_kind", lambda: None)  # on a GPU too, interpreted
    monkeypatch.setattr(tune.Clock, "__call__", lambda _, programs: made_up({(2048, 4): 0.75})(programs))
    assert tune.tune(tune.arguments(), "a GPU") == {}
    rows = [row for row in table_in(path.read_text()) if row.device == "a GPU"]
    assert [(row.implementation, row.dtype, row.operation, row.configuration) for row in rows] == [
        (name, "bfloat16", f"clip gradient from {kept}", Configuration(2048, 4))
        for name in sorted(tune_search.implementations(), key=list(tune_search.WARPS).index)
        for kept in ("mask", "x")
    ]
    assert all(is_measured(row) for row in rows)
    assert all("2**12 elements: 25.0% less device time" in row.measured for row in rows)
    printed = capsys.readouterr().out
    assert path.read_text().count("Row(") - rows_before == len(rows) >= 2
    assert "kept: block 2048, 4 warps, 25.0% less time" in printed
    assert all(tune.text_of(row) in printed for row in rows)


@pytest.mark.usefixtures("few_inputs")
def test_the_clock_of_a_device_without_a_profile_is_the_walls() -> None:
    add = lambda g, x, **_: g + x  # noqa: E731
    case, seen = Case("pallas_triton", "clip gradient from x", "bfloat16", ("g", "x"), add, add), tune.Clock()
    found = tune_search.search(case, 1 << 12, seen, comparisons=1)
    assert seen.kind == ("device time" if not missing_device("gpu") else "wall time")
    assert all(seconds > 0 for group in found.groups for seconds in group.values())
    assert tune.lines_of(found, seen.kind)[0] == f"pallas_triton: clip gradient from x, bfloat16: {seen.kind}"


def test_arrays_are_as_large_as_memory_allows_in_powers_of_2() -> None:
    assert tune.size_that_fits(1 << 26, 70 << 30) == 1 << 26
    assert tune.size_that_fits(1 << 26, 2 << 30) == 1 << 24


def test_without_a_gpu_it_says_what_it_needs_and_writes_nothing() -> None:
    before = tune.PATH.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "tools.tune", "--store"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"needs an NVIDIA GPU, and JAX found cpu only: .*nothing was written", done.stderr)
    assert tune.PATH.read_bytes() == before
