"""The command for a GPU loses nothing: not when a step is late, fails or crashes, nor when it is told to end itself."""

import dataclasses
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
from gpu_call import ABOUT, FOLDER

from bench.gpu import __main__ as command
from bench.gpu import child, plan, store, task

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent


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


def test_the_command_itself_imports_no_jax() -> None:
    """A process that has started JAX holds memory of the card, and a broken JAX must not take the table with it."""
    code = "import bench.gpu.__main__, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


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
    if todo.name == "headline":
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
    ends = {0: "sys.exit(task.DEVICE_LOST)", 1: "os.abort()", 2: "sys.exit(todo.killed != 1)"}
    assert call("--from", "headline", headline=f"exec({ends}[todo.start])") == 0
    assert steps_in(tmp_path)["headline"]["status"] == "ran"
    assert lines_of(tmp_path / "out" / FOLDER / "began.txt").count("headline") == len(ends)


def test_a_late_step_is_killed_its_results_kept_and_the_whole_stays_within_the_minutes(
    call: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LEAST", 1.0)
    monkeypatch.setattr(plan, "RESERVE", 2.0)
    begin = time.monotonic()
    assert call("--from", "headline", minutes=0.25, **dict.fromkeys(plan.NAMES, "time.sleep(600)")) == 0
    assert time.monotonic() - begin < 0.25 * 60
    found = steps_in(tmp_path)
    assert found["headline"]["status"] == "late"
    assert {found[name]["status"] for name in plan.NAMES[2:]} <= {"late", "not run"}
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
