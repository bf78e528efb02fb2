"""The command for a GPU loses nothing: not when a step is late, fails or crashes, nor when it is told to end itself."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.gpu import __main__ as command
from bench.gpu import child, judge, marked_tests, plan, rehearsal, store, summary, targets, task, tuner, worth
from bench.gpu.measure import Measuring
from bench.gpu.rows import load
from bench.names import COMPILED, FORMULA, OURS, SEED
from bench.operations import operations
from bench.tune_search import cases as tuner_cases
from intnumerics.kernels import KERNEL_DTYPES, tuning
from intnumerics.kernels.tuning import Configuration

ROOT = pathlib.Path(__file__).parent.parent
ABOUT = {
    "device": "NVIDIA H100 80GB HBM3",
    "platform": "cuda",
    "versions": {"python": "3.12.3", "jax": "0.11.2", "torch": "2.11.0+cu130"},
    "clocks": {},
    "system": "Linux",
    "commit": "c0ffee",
}
FOLDER = "nvidia-h100-80gb-hbm3_jax-0.11.2_torch-2.11.0-cu130"


def lines_of(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "10"], "--minutes 10: give more than 0 and at most 9"),
        (["--minutes", "0"], "--minutes 0: give more than 0"),
        (["--minutes", "nan"], "--minutes nan: give more than 0"),
        (["--from", "6"], "--from 6: there is no such step; use one of 1 or smoke, 2 or headline"),
    ],
)
def test_a_mistake_is_told_before_anything_begins(
    words: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--out", str(tmp_path / "out"), *words])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_it_says_in_one_line_what_to_do_and_writes_nothing(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "needs an NVIDIA GPU" in line
    assert "found cpu only: install" in line
    assert line.endswith("Nothing was written.")
    assert not (tmp_path / "out").exists()


def test_a_step_is_named_by_its_number_or_its_name_and_those_after_it_follow() -> None:
    assert [step.name for step in plan.from_step("3")] == ["tests", "tuner", "again", "rest"]
    assert plan.from_step("tests") == plan.from_step("3")
    assert [step.name for step in plan.from_step("again")] == ["again", "rest"]
    assert [step.name for step in plan.from_step("5")] == ["rest"]


def test_the_limits_of_the_steps_are_never_more_than_what_is_left() -> None:
    left, limits = 300.0, []
    for i in range(len(plan.STEPS)):
        limits.append(plan.seconds_for(plan.STEPS[i:], left))
        assert limits[-1] >= plan.LEAST
        left -= limits[-1]
    assert left == pytest.approx(0.0)
    assert limits[1] == max(limits)  # the headline cases
    assert plan.seconds_for(plan.STEPS[-1:], 12.0) == 12.0
    assert plan.seconds_for(plan.STEPS, -1.0) == 0.0


# --- processes with limits --------------------------------------------------------------------------------------------


@pytest.fixture
def python(tmp_path: pathlib.Path) -> Callable[..., child.Outcome]:
    """Runs a program as a step, with a limit in seconds."""

    def run(source: str, seconds: float) -> child.Outcome:
        words = [sys.executable, "-c", textwrap.dedent(source)]
        return child.run(words, seconds, tmp_path / "log.txt", tmp_path, os.environ)

    return run


def test_a_late_process_is_killed_with_all_that_it_started_and_what_it_wrote_stays(
    python: Callable[..., child.Outcome], tmp_path: pathlib.Path
) -> None:
    source = """
        import pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it does not end when it is asked to
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path("pid").write_text(str(sleeper.pid))
        print("some of it", flush=True)
        time.sleep(600)
    """
    begin = time.monotonic()
    done = python(source, 3.0)
    assert done.is_late
    assert time.monotonic() - begin < 3.0 + child.GRACE + 2.0
    assert (tmp_path / "log.txt").read_text() == "some of it\n"
    assert has_ended(int((tmp_path / "pid").read_text()))


def has_ended(pid: int) -> bool:
    """Whether a process has ended: nobody may have asked how, so that its number is still there."""
    for _ in range(100):
        path = pathlib.Path(f"/proc/{pid}/stat")
        if not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_how_a_process_ended_is_told(python: Callable[..., child.Outcome]) -> None:
    assert (python("", 60.0).status, python("", 60.0).is_late) == (0, False)
    assert python("raise SystemExit(3)", 60.0).status == 3
    assert python("import os; os.abort()", 60.0).status == -signal.SIGABRT


# --- the steps together -----------------------------------------------------------------------------------------------

STEP = """
    import json, os, pathlib, sys, time
    from bench.gpu import store, task
    todo = task.from_command_line()
    with (todo.folder / "{log}").open("a") as file:
        file.write(todo.name + "\\n")
    done = {{"device": "a card", "implementations": [], "planned": 2, "kernels": []}}
    done["kernels"].append({{"implementation": "xla", "operation": "quantize", "dtype": "float32", "wrong": ""}})
    if todo.name == "smoke":
        store.write(todo.folder / store.SMOKE, done)
    {body}
"""


@pytest.fixture
def call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command with other steps: by name what the process of a step does beside writing that it began."""

    def run(*words: str, minutes: float = 1.0, **bodies: str) -> int:
        def step(todo: task.Task) -> list[str]:
            body = bodies.get(todo.name, "pass")
            real = dataclasses.replace(todo)
            source = textwrap.dedent(STEP).format(log="began.txt", body=body)
            return [sys.executable, "-c", source, *task_command(real)[3:]]

        monkeypatch.setattr(task.Task, "command", step)
        monkeypatch.setattr(command, "probe", lambda *_: ABOUT)
        return command.main(["--out", str(tmp_path / "out"), "--minutes", str(minutes), *words])

    task_command = task.Task.command
    return run


def steps_in(tmp_path: pathlib.Path) -> dict[str, Any]:
    return store.read(tmp_path / "out" / FOLDER / store.RUN)["steps"]


def test_a_failing_or_crashing_step_does_not_stop_the_next(call: Callable[..., int], tmp_path: pathlib.Path) -> None:
    status = call(smoke="raise ValueError('no such kernel')", headline="os.abort()", tests="sys.exit(3)")
    assert status == 1
    found = steps_in(tmp_path)
    assert found["smoke"]["status"] == "failed"
    assert "ValueError: no such kernel" in found["smoke"]["why"]
    assert {name: found[name]["status"] for name in plan.NAMES[1:]} == {
        "headline": "failed",
        "tests": "failed",
        "tuner": "ran",
        "again": "ran",
        "rest": "ran",
    }
    began = lines_of(tmp_path / "out" / FOLDER / "began.txt")
    assert began == ["smoke", *["headline"] * command.MOST_STARTS, "tests", "tuner", "again", "rest"]


def test_a_process_that_is_started_again_is_told_how_often_and_may_end_well(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call("--from", "headline", headline="sys.exit(task.DEVICE_LOST if todo.start < 2 else 0)") == 0
    assert steps_in(tmp_path)["headline"]["status"] == "ran"
    assert lines_of(tmp_path / "out" / FOLDER / "began.txt").count("headline") == 3


def test_a_late_step_is_killed_its_results_kept_and_the_whole_stays_within_the_minutes(
    call: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LEAST", 1.0)
    begin = time.monotonic()
    assert call(minutes=0.4, **dict.fromkeys(plan.NAMES, "time.sleep(600)")) == 0
    assert time.monotonic() - begin < 0.4 * 60
    assert {found["status"] for found in steps_in(tmp_path).values()} <= {"late", "not run"}
    assert steps_in(tmp_path)["headline"]["status"] == "late"
    table = (tmp_path / "out" / FOLDER / store.SUMMARY).read_text()
    assert "| met so far | each kernel gives the bits of the reference | 1 of 2 kernels" in table
    assert "not measured | the tests marked gpu pass | step tests late: killed at its limit" in table


def test_a_step_without_time_is_not_begun_and_the_table_says_so(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call(minutes=0.1) == 0
    assert not (tmp_path / "out" / FOLDER / "began.txt").exists()
    assert all(found["status"] == "not run" for found in steps_in(tmp_path).values())
    table = (tmp_path / "out" / FOLDER / store.SUMMARY).read_text()
    assert "not measured | each kernel gives the bits of the reference | step smoke not run: no time was left" in table


def test_it_goes_on_from_a_step_and_keeps_what_is_there(call: Callable[..., int], tmp_path: pathlib.Path) -> None:
    assert call() == 0
    before = steps_in(tmp_path)
    assert call("--from", "4", tuner="sys.exit(3)") == 1
    assert lines_of(tmp_path / "out" / FOLDER / "began.txt") == [*plan.NAMES, "tuner", "again", "rest"]
    after = steps_in(tmp_path)
    assert {name: after[name] for name in plan.NAMES[:3]} == {name: before[name] for name in plan.NAMES[:3]}
    assert after["tuner"]["status"] == "failed"
    assert [c["from"] for c in store.read(tmp_path / "out" / FOLDER / store.RUN)["calls"]] == ["1", "4"]


def test_results_of_an_earlier_call_or_of_others_are_not_mixed_with_new_ones(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call() == 0
    with pytest.raises(SystemExit, match="has the results of an earlier call: go on with --from STEP"):
        call()
    (tmp_path / "out" / "another-card_jax-0.11.2").mkdir()
    with pytest.raises(SystemExit, match=r"holds another-card_jax-0\.11\.2, and .* needs a folder of its own"):
        call("--from", "2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_is_told_to_end_kills_its_step_and_writes_the_table(number: int, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    begun = subprocess.Popen(
        [sys.executable, "-m", "bench.gpu", "--rehearsal", "--out", str(out), "--minutes", "5"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert begun.stdout is not None
    for line in begun.stdout:
        if line.startswith("step 1"):
            break
    begun.send_signal(number)
    said, _ = begun.communicate(timeout=30)
    assert begun.returncode == 128 + number
    [folder] = out.iterdir()
    found = store.read(folder / store.RUN)["steps"]
    assert found["smoke"]["status"] == "stopped"
    assert found["headline"] == {"status": "not run", "why": "the call ended before it"}
    name = signal.Signals(number).name
    assert f"step smoke stopped: stopped by {name}" in (folder / store.SUMMARY).read_text()
    assert f"stopped by {name}" in said
    assert "Traceback" not in said


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_folder_is_named_with_the_card_and_the_versions() -> None:
    assert store.folder_name(ABOUT) == FOLDER


def test_there_are_no_more_files_than_may_be_nor_deeper_nor_otherwise_named(tmp_path: pathlib.Path) -> None:
    assert len(store.FILES) <= store.MOST_FILES == 8
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in store.FILES:
        (folder / name).touch()
    assert store.complaints(tmp_path) == []
    (folder / "one more").touch()
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert store.complaints(tmp_path) == [
        "10 files, and 8 are allowed",
        f"{FOLDER}/a/b/file is more than 2 folders deep",
        f"{FOLDER}/one more has other signs in its name than letters, digits, '.', '_' and '-'",
    ]


def test_what_a_killed_process_was_about_to_write_is_no_file_of_ours(tmp_path: pathlib.Path) -> None:
    store.write(tmp_path / store.RUN, {"a": 1})
    (tmp_path / f"{store.BENCH}.new").write_text("{")
    (tmp_path / store.TESTS).write_text('{"test": "a", "outcome": "passed"}\n{"test": "b", "outc')
    store.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.RUN, store.TESTS]
    assert store.lines(tmp_path / store.TESTS) == [{"test": "a", "outcome": "passed"}]


# --- the order of worth -----------------------------------------------------------------------------------------------


def test_the_headline_cases_are_measured_in_the_order_of_their_worth() -> None:
    found = [(case.operation.name, case.dtype, case.size) for case in worth.headline()]
    assert len(found) == len(set(found))
    assert found[0] == ("quantize to int8 with PhiloxUniform", "bfloat16", 1 << 28)
    assert {dtype for _, dtype, _ in found} == {"float32", "bfloat16"}
    assert {size for _, _, size in found} == {1 << 28, 1 << 26}
    first = found[: len(worth.FIRST)]
    assert all((dtype, size) == ("bfloat16", 1 << 28) for _, dtype, size in first)
    names = {name for name, _, _ in first}
    assert {"quantize to int8", "backward from the mask", "backward from x"} < names
    assert {"gelu, quantize to int8, dot", "quantize with PhiloxUniform, keeping the mask"} < names
    for name in worth.FIRST:  # of one operation and size bfloat16 first, of one dtype the largest size
        order = [(dtype, size) for n, dtype, size in found if n == name]
        assert order[0] == ("bfloat16", 1 << 28)
        assert order.index(("float32", 1 << 28)) < order.index(("float32", 1 << 26))


def test_every_target_is_of_operations_that_are_measured() -> None:
    measured = {(case.operation.name, case.dtype) for case in worth.headline()}
    for target in targets.TARGETS:
        if isinstance(target, targets.Speed):
            assert {(name, dtype) for name in target.operations for dtype in target.dtypes} <= measured
        assert target.why
    assert [target.name for target in targets.TARGETS] == list(dict.fromkeys(t.name for t in targets.TARGETS))
    known = {name for operation in operations() for name in operation.others}
    assert {FORMULA, SEED, *targets.GENERATORS} <= known


def test_the_rows_of_the_tuner_are_those_of_the_operations() -> None:
    rows = {case.operation for case in tuner_cases(1024, ["float32"])}
    assert set(worth.ROWS.values()) <= rows
    again = list(worth.again([("bfloat16", "quantize to int8, noise drawn")]))
    assert {case.dtype for case in again} == {"bfloat16"}
    assert {case.operation.name for case in again} == {targets.NOISY, targets.CHAINS[1], targets.CHAINS[3]}


def test_the_tuner_tries_the_kernels_of_the_most_valuable_cases_first_and_then_all_others() -> None:
    found = [(case.operation, case.dtype) for case in tuner.in_order(1024)]
    assert sorted(found) == sorted((case.operation, case.dtype) for case in tuner_cases(1024, KERNEL_DTYPES))
    assert found[:2] == [("quantize to int8, noise drawn", "bfloat16"), ("quantize to int8", "bfloat16")]
    dtypes = [dtype for _, dtype in found]
    assert dtypes == sorted(dtypes, key=["bfloat16", "float32", "float16"].index)


def test_rows_are_read_back_from_a_copy_of_the_table(tmp_path: pathlib.Path) -> None:
    from bench import tune_table

    row = tuning.Row("a card", "bfloat16", "quantize", Configuration(2048, 2), "some day")
    path = tmp_path / store.ROWS
    path.write_text(tune_table.rewritten(tune_table.PATH.read_text(), [row]))
    assert load(path) == (row,)


# --- the tests that are marked ----------------------------------------------------------------------------------------


def test_the_files_that_are_searched_for_marked_tests_are_all_that_have_some(request: pytest.FixtureRequest) -> None:
    """Of the tests of this run, whichever they are."""
    found = {item.path for item in request.session.items if item.get_closest_marker("gpu")}
    assert found <= {ROOT / name for name in marked_tests.FILES}
    assert all((ROOT / name).exists() for name in marked_tests.FILES)


INNER = """
import pytest

@pytest.mark.parametrize("where", ["xla on a GPU", "pallas on a GPU"])
@pytest.mark.parametrize("n", [1, 2])
def test_a(n, where):
    assert (n, where) != (2, "xla on a GPU"), "not these"

def test_b():
    pytest.skip("needs another card")
"""


def test_of_each_distinct_test_one_runs_first_and_what_passed_is_not_run_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    results = tmp_path / "results.jsonl"

    def run(*words: str) -> list[dict[str, Any]]:
        before = len(store.lines(results))
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "bench.gpu.pytest_plugin", "--results-to", str(results), *words],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        return store.lines(results)[before:]

    first = run()
    assert first[0] == {"collected": 5}
    assert [(line["test"].partition("::")[2], line["outcome"]) for line in first[1:]] == [
        ("test_b", "skipped"),
        ("test_a[1-pallas on a GPU]", "passed"),
        ("test_a[1-xla on a GPU]", "passed"),
        ("test_a[2-pallas on a GPU]", "passed"),
        ("test_a[2-xla on a GPU]", "failed"),
    ]
    assert first[1]["why"] == "needs another card"
    assert "not these" in first[-1]["why"]
    second = run("--but", str(results))
    assert [line.get("outcome") for line in second] == [None, "skipped", "failed"]
    third = run("--of-each", "1")
    assert third[0] == {"collected": 3}


# --- the table --------------------------------------------------------------------------------------------------------


def bench_of(speeds: dict[str, float], operation: str = targets.NOISY, **more: Any) -> dict[str, Any]:
    """A document of the benchmark with one case, of the times that are given."""
    case = {"operation": operation, "dtype": "bfloat16", "shape": [1 << 28]}
    results = {name: {"median_s": t, "device_s": t, "quartiles_s": [t, t]} for name, t in speeds.items()}
    measured = case | {"least_bytes": 8, "baseline": SEED, "results": results}
    other = case | {"shape": [1 << 26]}
    return {"cases": [measured], "planned": [case, other], "skipped": ["PyTorch: not installed"]} | more


def write(folder: pathlib.Path, bench: dict[str, Any], **steps: Any) -> pathlib.Path:
    store.write(folder / store.RUN, {"about": ABOUT, "steps": steps})
    store.write(folder / store.BENCH, bench)
    return folder


def verdict(folder: pathlib.Path, words: str) -> judge.Verdict:
    return next(v for v in judge.verdicts(folder) if words in v.target.name)


def test_a_target_is_met_or_not_by_its_worst_case(tmp_path: pathlib.Path) -> None:
    times = {"copy": 0.9, "copy, inverting the bits": 1.0, OURS: 1.0, f"{OURS}, pallas": 1.0, SEED: 2.0}
    found = verdict(write(tmp_path, bench_of(times)), "near copy speed")
    assert found.status == judge.SO_FAR  # of two cases one was measured
    assert found.measured.startswith("0.90x at worst (quantize to int8 with PhiloxUniform, bfloat16 [268435456])")
    assert found.measured.endswith("1 of 2 cases")
    slow = bench_of(times | {f"{OURS}, pallas": 1.01})
    assert verdict(write(tmp_path, slow), "near copy speed").status == judge.NOT_MET
    alone = bench_of(times)
    alone["planned"] = alone["planned"][:1]
    assert verdict(write(tmp_path, alone), "near copy speed").status == judge.MET


def test_a_speed_is_compared_with_what_its_target_names(tmp_path: pathlib.Path) -> None:
    times = {OURS: 1.0, f"{OURS}, xla": 1.0, f"{OURS}, pallas": 0.8, SEED: 2.0, targets.GENERATORS[1]: 0.9}
    folder = write(tmp_path, bench_of(times | {f"{COMPILED}, rand_like": 0.4}))
    assert verdict(folder, "None is the quickest").measured.startswith("0.80x at worst")
    assert verdict(folder, "None is not slower than the formula").measured.startswith("2.00x at worst")
    assert verdict(folder, "any of jax's generators").measured.startswith("1.12x at worst")
    assert verdict(folder, "torch.compile").measured.startswith("0.50x at worst")


def test_why_a_target_was_not_measured_is_said(tmp_path: pathlib.Path) -> None:
    late = {"status": "late", "why": "killed at its limit"}
    folder = write(tmp_path, {}, headline=late, tuner={"status": "not run", "why": "no time was left"})
    assert verdict(folder, "near copy speed").measured == "step headline late: killed at its limit"
    assert verdict(folder, "the tuner").measured == "step tuner not run: no time was left"
    assert verdict(folder, "each kernel").measured == "step smoke was not run"
    bench = bench_of({"copy": 1.0, OURS: 1.0, SEED: 1.0})
    assert verdict(write(tmp_path, bench), "torch.compile").measured == "PyTorch: not installed"
    bench["cases"][0]["results"][f"{OURS}, pallas"] = {"error": "XlaRuntimeError: no such instruction"}
    found = verdict(write(tmp_path, bench), "near copy speed")
    assert (found.status, found.measured) == (
        judge.NOT_MEASURED,
        f"{OURS}, pallas: XlaRuntimeError: no such instruction",
    )
    assert "not measured" in summary.text(folder)


def test_what_is_wrong_makes_its_target_not_met(tmp_path: pathlib.Path) -> None:
    bench = bench_of({"copy": 1.0, OURS: 1.0})
    bench["cases"][0]["results"][OURS]["wrong"] = "3 of 65536 values differ from NumPy's"
    folder = write(tmp_path, bench)
    row = {"implementation": "pallas", "operation": "quantize", "dtype": "float32", "wrong": "2 elements differ"}
    store.write(folder / store.SMOKE, {"planned": 1, "kernels": [row]})
    (folder / store.TESTS).write_text(
        "".join(
            json.dumps(line) + "\n"
            for line in (
                {"collected": 3},
                {"test": "a", "outcome": "failed", "why": "once"},
                {"test": "b", "outcome": "skipped", "why": "needs jax-triton"},
                {"test": "c", "outcome": "failed", "why": "bits differ"},
                {"test": "a", "outcome": "passed"},
            )
        )
    )
    assert verdict(folder, "each result that is timed").status == judge.NOT_MET
    assert "pallas, quantize, float32: 2 elements differ" in verdict(folder, "each kernel").measured
    tests = verdict(folder, "the tests marked gpu")
    assert tests.status == judge.NOT_MET
    assert tests.measured == "2 of 2 tests, 1 skipped (needs jax-triton); 1 wrong, the first: c: bits differ"


def test_every_line_of_the_table_names_the_card(tmp_path: pathlib.Path) -> None:
    text = summary.text(write(tmp_path, bench_of({"copy": 1.0, OURS: 1.0, SEED: 1.0})))
    rows = [line for line in text.splitlines() if " | " in line and not line.startswith("target |")]
    assert len(rows) == len(targets.TARGETS) + len(plan.STEPS) + 1
    assert all(ABOUT["device"] in row for row in rows)


def test_a_rehearsal_that_left_something_out_fails(tmp_path: pathlib.Path) -> None:
    ran: dict[str, Any] = {name: {"status": "ran"} for name in plan.NAMES}
    folder = write(tmp_path, bench_of({"copy": 1.0, OURS: 1.0}), **(ran | {"tuner": {"status": "late", "why": "slow"}}))
    found = rehearsal.complaints(folder)
    assert "step 4 tuner: late: slow" in found
    assert any(line.startswith("each kernel gives the bits of the reference: not measured") for line in found)
    assert any(line.startswith("None is not slower than the formula: not measured") for line in found)
    assert f"{store.SMOKE} is missing" in found
    assert not any("torch.compile" in line for line in found)


# --- measuring --------------------------------------------------------------------------------------------------------


class Stub:
    """A runner that measures nothing; some cases raise, or end the process."""

    def __init__(self, *raising: int) -> None:
        self.raising, self.ran = raising, []

    def run(self, case: Any) -> dict[str, Any]:
        self.ran.append(case.name)
        if len(self.ran) in self.raising:
            raise RuntimeError("out of memory")
        found = {"operation": case.operation.name, "dtype": case.dtype, "shape": list(case.shape)}
        times = {"median_s": 1.0, "quartiles_s": [1.0, 1.0]}
        return found | {"least_bytes": 1, "baseline": FORMULA, "results": {"copy": times}, "device_time": ["a reason"]}


def measuring(folder: pathlib.Path, runner: Stub, seconds: float = 60.0, **fields: Any) -> Measuring:
    until = time.time() + task.MARGIN + seconds
    found = Measuring(task.Task("headline", folder, until, rehearsal=True, **fields))
    found.runner = runner
    return found


def names_in(folder: pathlib.Path) -> list[str]:
    found = store.read(folder / store.BENCH)["cases"]
    return [f"{c['operation']}, {c['dtype']} [{', '.join(map(str, c['shape']))}]" for c in found]


def test_what_was_measured_is_on_disk_after_every_case_and_a_case_that_fails_does_not_end_the_step(
    tmp_path: pathlib.Path,
) -> None:
    cases = list(worth.headline(rehearsal=True))[:3]
    measuring(tmp_path, runner := Stub(2)).run(cases)
    assert names_in(tmp_path) == runner.ran == [case.name for case in cases]
    report = store.read(tmp_path / store.BENCH)
    assert [case.get("error") for case in report["cases"]] == [None, "RuntimeError: out of memory", None]
    assert report["device_time"] == ["a reason"]
    assert "running" not in report
    measuring(tmp_path, again := Stub()).run(cases)  # as `--from headline` does
    assert again.ran == [cases[1].name]


def test_no_case_is_begun_without_time_for_it(tmp_path: pathlib.Path) -> None:
    measuring(tmp_path, runner := Stub(), seconds=-1.0).run(list(worth.headline(rehearsal=True)))
    assert runner.ran == []
    assert names_in(tmp_path) == []


def test_the_case_that_a_process_ended_with_is_told_and_one_that_was_late_comes_last(tmp_path: pathlib.Path) -> None:
    cases = list(worth.headline(rehearsal=True))[:3]
    running = {"operation": cases[0].operation.name, "dtype": cases[0].dtype, "shape": list(cases[0].shape)}
    late, ended = tmp_path / "late", tmp_path / "ended"
    for folder in (late, ended):
        folder.mkdir()
        store.write(folder / store.BENCH, {"cases": [], "again": [], "running": running})
    measuring(late, runner := Stub()).run(cases)
    assert runner.ran == [case.name for case in (*cases[1:], cases[0])]
    measuring(ended, runner := Stub(), start=1).run(cases)
    assert runner.ran == [case.name for case in cases[1:]]
    assert store.read(ended / store.BENCH)["cases"][0]["error"] == "the process ended by itself while it ran this case"


def test_the_command_itself_imports_no_jax() -> None:
    """A process that has started JAX holds memory of the card, and a broken JAX must not take the table with it."""
    code = "import bench.gpu.__main__, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_page_names_the_steps_and_the_files() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    for step in plan.STEPS:
        assert f"| {step.number} | `{step.name}` |" in page
    for name in store.FILES:
        assert f"`{name}`" in page
    modules = {path.stem for path in (ROOT / "bench" / "gpu").glob("*.py")}
    assert {step.module for step in plan.STEPS} <= modules
