"""The benchmarks measure what they say, check what they measure, and lose nothing."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from original import numerics, original, original_gradient

from bench import arrays, baselines, cases, libraries, machine, overhead, results, runner, timing, variant
from bench.cases import Case
from bench.names import FORMULA, OURS
from bench.operations import operations
from bench.runner import Runner
from bench.timing import Jitted, Patience, Spares
from bench.variant import Variant

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent
BRIEF = Patience(least=2, most=2, seconds=0.0)


def run(*arguments: str, module: str = "bench") -> subprocess.CompletedProcess[str]:
    """Runs a module as from a shell: pytest-benchmark measures nothing where it finds pytest-xdist's variables."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def measure(**changes: Any) -> results.Measured:
    """A backward from x, measured; with the operation changed."""
    [backward] = [operation for operation in operations() if operation.name == "backward from x"]
    case = Case(dataclasses.replace(backward, **changes), "bfloat16", (4096,))
    return Runner(("xla",), BRIEF, longest=60.0).run(case)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where a short run went."""
    out = tmp_path_factory.mktemp("bench")
    arguments = ("--quick", "--only", "backward", "from x", "--sizes", "12", "13")
    done = run(*arguments, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf"^backward from x, bfloat16 \[4096\]\n  {results.COPIES[0]} +[\d.]+ [mu]s\n", done.stdout, re.MULTILINE
    )
    assert "not measured: PyTorch: measured on a GPU only\n" in done.stdout
    closing = done.stdout.rstrip("\n").splitlines()[-4:]
    assert [line.split(" | ")[0] for line in (closing[0], *closing[2:])] == ["| operation", *["| backward from x"] * 2]
    assert "%|" not in done.stderr, "a bar of tqdm in a log"
    return out


def test_a_run_is_kept_with_what_a_reader_needs_to_know(folder: pathlib.Path) -> None:
    [path] = folder.glob("*/*.json")
    report = json.loads(path.read_text())
    assert {"device", "clocks", "versions", "commit", "system", "last_level_cache_bytes", "settings"} <= set(report)
    assert report["versions"]["jax"] == jax.__version__
    assert [case["shape"] for case in report["cases"]] == [[4096], [8192]]
    for case in report["cases"]:
        assert case["least_bytes"] == 3 * 2 * case["shape"][0]  # g and x are read, the result is written
        assert {*results.COPIES, OURS, f"{OURS}, xla", FORMULA} <= set(case["results"])
        for found in case["results"].values():
            low, high = found["quartiles_s"]
            assert 0 < low <= found["median_s"] <= high
            assert found["rounds"] == 5


def test_a_second_run_of_a_day_is_kept_beside_the_first(folder: pathlib.Path) -> None:
    [path] = folder.glob("*/*.json")
    assert results.new_path(folder, path.parent.name) != path


def test_the_report_of_a_run_is_a_page_with_its_plots_and_the_same_bytes_each_time(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pages = [tmp_path / name for name in ("one", "two")]
    for docs in pages:
        docs.mkdir()
        done = run("--results", str(folder), "--docs", str(docs), module="bench.report")
        assert done.returncode == 0, done.stderr
    files = [{p.relative_to(docs): p.read_bytes() for p in docs.rglob("*.*")} for docs in pages]
    assert files[0] == files[1]
    assert {p.name.removesuffix(".svg").split("-")[-1] for p in files[0]} == {"benchmarks.md", "roofline"}
    page = (pages[0] / "benchmarks.md").read_text()
    assert "| backward from x | bfloat16 | 2^13 |" in page
    for name in files[0]:
        assert name.suffix == ".md" or f"]({name})" in page


def test_pytest_benchmark_runs_the_same_cases() -> None:
    words = "backward and from and x and bfloat16 and xla and not mask"
    done = run(
        "bench", "--benchmark-only", "-q", "--size", "12", "-k", words, "-p", "no:cacheprovider", module="pytest"
    )
    assert done.returncode == 0, done.stdout
    assert "benchmark 'backward from x, bfloat16 [4096]': 1 tests" in done.stdout


def test_it_measures_where_nothing_but_jax_can_be_installed() -> None:
    absent = "import sys; sys.modules |= dict.fromkeys(['tqdm', 'matplotlib', 'aqt', 'qwix', 'torch'])"
    code = f"{absent}; import bench.__main__, tools.tune; from bench.libraries import missing; print(len(missing()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "forward", "to", "int5"), "no operation has all these words in its name; there are\n  quantize"),
        (("--sizes", "5"), "invalid choice: 5"),
        (("--quick", "--out", "/dev/null"), "give a folder that can be written to"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- what is measured -------------------------------------------------------------------------------------------------


def test_a_run_that_is_out_of_time_has_measured_a_forward_with_noise_a_backward_and_a_chain() -> None:
    first = [case.operation.name for case in cases.select("cpu", cases.QUICK_EXPONENTS, cases.QUICK_DTYPES)][:4]
    for word in ("PhiloxUniform", "backward", "dot"):
        assert any(word in name for name in first), word


def test_overhead_is_measured_beside_the_formula_in_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "PATIENCE", BRIEF)
    monkeypatch.setattr(overhead, "LAYERS", 2)
    monkeypatch.setattr(overhead, "COMPILES", 1)
    of_calls, of_compiling = overhead.of_a_call(), overhead.to_compile(jax.devices()[:1])
    assert next(iter(of_calls)) == overhead.JITTED
    assert {"quantize, eager", "quantize_to_int, eager", "from_int, eager", "absmax_scale, eager"} <= set(of_calls)
    assert list(of_compiling) == [FORMULA, overhead.KEEPING_X, overhead.PACKED, OURS]
    assert all(seconds > 0 for seconds in (*of_calls.values(), *of_compiling.values()))
    assert "| slow | 3 s | 1.50 |" in overhead.tables({"title": {"quick": 2.0, "slow": 3.0}})


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_what_is_measured_of_ours_is_right_for_every_operation(dtype: str) -> None:
    for case in cases.select("cpu", [12], [dtype]):
        variants = case.operation.variants(())
        names = {name for variant in variants.values() for name in variant.takes}
        pool = arrays.pool(names, case.shape, case.dtype, cache=1)
        one = runner.make(OURS, variants[OURS], pool, Spares(), "ours")
        assert runner.check(case, variants, [one], pool[0]) == {OURS: ""}, results.title(case.key)


def test_a_wrong_result_is_found() -> None:
    found = measure(ours=lambda implementation: lambda g, x: g * 2)["results"]
    assert "values differ from NumPy's" in found[OURS]["wrong"]
    assert "wrong" not in found[FORMULA]
    assert "WRONG: " in results.listing(measure(ours=lambda implementation: lambda g, x: g * 2))


def test_a_baseline_that_raises_is_a_row_that_says_so() -> None:
    def unable(g: jax.Array, x: jax.Array) -> jax.Array:
        raise NotImplementedError("not on this machine")

    others = {FORMULA: Variant(baselines.backward, ("g", "x")), "theirs": Variant(unable, ("g", "x"))}
    found = measure(others=others)
    assert found["results"]["theirs"] == {"error": "NotImplementedError: not on this machine"}
    assert "failed: NotImplementedError: not on this machine" in results.listing(found)


def test_calls_that_would_take_too_long_are_left_out_and_named() -> None:
    [backward] = [operation for operation in operations() if operation.name == "backward from x"]
    runner = Runner((), BRIEF, longest=1e-9)
    runner.run(Case(backward, "bfloat16", (4096,)))
    found = runner.run(Case(backward, "bfloat16", (8192,)))
    assert "a call would take about" in found["results"][OURS]["left_out"]


def test_a_package_whose_import_fails_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('libcudart.so.13: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(libraries.PACKAGES, "AQT", ("aqtp", "broken_package"))
    libraries._absent.cache_clear()
    assert "AQT: its import failed: OSError: libcudart.so.13: no such file" in libraries.missing()
    libraries._absent.cache_clear()


def test_programs_that_are_compiled_side_by_side_are_measured_as_those_that_are_not() -> None:
    [backward] = [operation for operation in operations() if operation.name == "backward from x"]
    case = Case(backward, "bfloat16", (4096,))
    found = [Runner(("xla",), BRIEF, longest=60.0, compilers=n).run(case) for n in (1, 4)]
    assert list(found[0]["results"]) == list(found[1]["results"])
    assert all("median_s" in r and "wrong" not in r for one in found for r in one["results"].values())


# --- how it is measured -----------------------------------------------------------------------------------------------


def test_results_land_in_the_memory_that_was_given() -> None:
    spares = Spares()
    one = Jitted("add", lambda x: x + 1, [(jnp.zeros(1024),)], spares, "add")
    [buffer] = spares.take(one.avals)
    address = buffer.unsafe_buffer_pointer()
    spares.give([buffer])
    assert one.call(0).unsafe_buffer_pointer() == address


def test_variants_take_turns_each_on_fresh_inputs() -> None:
    calls: list[tuple[str, int]] = []
    patience = Patience(least=3, most=6, seconds=60.0)
    variants = [lambda turn, name=name: calls.append((name, turn)) for name in "abc"]
    times = timing.alternate(variants, patience, lambda: calls.append(("between", -1)))
    assert [len(t) for t in times] == [6, 6, 6]
    rounds = [calls[i : i + 4] for i in range(3, len(calls), 4)]
    assert [one[0][0] for one in rounds] == ["between"] * 6
    assert all(sorted(name for name, _ in one[1:]) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(name for name, _ in one) for one in rounds}) > 1  # in more than one order
    assert [turn for name, turn in calls[3:] if name != "between"] == list(range(18))


# --- baselines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_baselines_are_the_formula(dtype: Any, noisy: bool) -> None:
    x = (jax.random.normal(jax.random.key(0), (4096,)) * 60).astype(dtype)
    noise = jax.random.uniform(jax.random.key(1), x.shape) - 0.5 if noisy else None
    halves = numerics(8, preserve_zero=False)
    oracle.assert_same_bits(np.asarray(baselines.nearest(x, noise)), np.asarray(original(x, numerics(8), noise)))
    oracle.assert_same_bits(np.asarray(baselines.halves(x)), np.asarray(original(x, halves, None)))
    g = x[::-1]
    # By value: a negative g times 0 is -0.0, as in FJFormer.
    np.testing.assert_array_equal(baselines.backward(g, x), original_gradient(x, g, numerics(8)))


@pytest.mark.parametrize("generator", baselines.GENERATORS)
def test_the_noise_of_a_baseline_is_uniform_and_depends_on_its_key(generator: str) -> None:
    words = jnp.asarray([1, 2], jnp.uint32)
    u = np.asarray(baselines.uniform(generator, words, (256, 1024)), np.float64)
    assert u.min() >= -0.5
    assert u.max() < 0.5
    assert abs(u.mean()) < 5 * np.sqrt(1 / 12 / u.size)
    assert np.abs(np.histogram(u, 16, (-0.5, 0.5))[0] - u.size / 16).max() < 5 * np.sqrt(u.size / 16)
    assert np.abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 0.01
    assert (u != np.asarray(baselines.uniform(generator, words + 1, (256, 1024)))).mean() > 0.99


def test_checks_see_what_is_wrong() -> None:
    expected = np.arange(8192, dtype=np.float32) % 100
    assert not variant.same_values(expected, expected)
    assert variant.same_values(expected + np.eye(1, 8192, dtype=np.float32)[0], expected)
    assert not variant.within_a_bucket(expected + 1, expected)
    assert variant.within_a_bucket(expected + 1.5, expected)
    assert variant.within_a_bucket(expected * np.nan, expected)
    assert not variant.other_draws(expected + np.tile([1.0, -1.0], 4096), expected)
    assert variant.other_draws(expected + 1, expected)
    assert not variant.close(expected * 1.01, expected)
    assert variant.close(expected * 1.1, expected)


def test_without_git_and_nvidia_smi_the_machine_is_still_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert re.fullmatch(r"none; files [0-9a-f]{12}", machine.description()["commit"])


def test_the_hash_gives_neighbouring_keys_the_same_noise_as_is_said_where_it_is_compared() -> None:
    noise = [np.asarray(baselines.uniform("hash", jnp.asarray([0, k], jnp.uint32), (4096,))) for k in (0, 1, 255, 256)]
    assert [(n == noise[0]).all() for n in noise] == [True, True, True, False]
