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
from bench.gpu import store
from bench.gpu.steps import STEPS, Task

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent
ABOUT: dict[str, Any] = {
    "device": "NVIDIA H100 80GB HBM3",
    "platform": "cuda",
    "versions": {"python": "3.12.3", "jax": "0.11.2", "torch": "2.11.0+cu130"},
    "clocks": {},
    "system": "Linux",
    "commit": "c0ffee",
}
NAMES = list(STEPS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "10"], "--minutes 10: give more than 0 and at most 9"),
        (["--minutes", "nan"], "--minutes nan: give more than 0"),
        (["--from", "seven"], "invalid choice: 'seven'"),
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
    assert not (tmp_path / "out").exists()


def test_the_command_itself_imports_no_jax() -> None:
    """A process that has started JAX holds memory of the card, and a broken JAX must not take the table with it."""
    code = "import bench.gpu.__main__, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_late_process_is_killed_with_all_that_it_started_and_what_it_wrote_stays(tmp_path: pathlib.Path) -> None:
    source = f"""
        import pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it does not end when it is asked to
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(sleeper.pid))
        print("some of it", flush=True)
        time.sleep(600)
    """
    words = [sys.executable, "-c", textwrap.dedent(source)]
    assert command.run_child(words, 3.0, tmp_path / "log.txt", rehearsal=True) is None
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


# --- the steps together -----------------------------------------------------------------------------------------------

# What the process of a step does beside `body`: it writes that it began, and a kernel that it found right.
STEP = """
    import os, sys, time
    from bench.gpu import store
    from bench.gpu.steps import DEVICE_LOST, Rows, Task
    task = Task.given()
    with (task.folder.parent / "began.txt").open("a") as file:
        file.write(task.name + "\\n")
    if task.name == "headline":
        found = {{"operation": "quantize", "dtype": "float32", "shape": [8], "results": {{}}}}
        rows = Rows(task)
        rows.add(found | {{"results": {{"intnumerics": {{"median_s": 1.0}}}}}})
        rows.document["planned"] = {{"headline": [found, found | {{"dtype": "bfloat16"}}]}}
        rows.write()
    {body}
"""


@pytest.fixture
def call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command with other steps: by name what the process of a step does."""

    def run(*words: str, minutes: float = 1.0, **bodies: str) -> int:
        def step(task: Task) -> list[str]:
            source = textwrap.dedent(STEP).format(body=bodies.get(task.name, "pass"))
            return [sys.executable, "-c", source, json.dumps(dataclasses.asdict(task))]

        monkeypatch.setattr(Task, "command", step)
        monkeypatch.setattr(command, "probe", lambda *_: ABOUT)
        return command.main(["--out", str(tmp_path / "out"), "--minutes", str(minutes), *words])

    return run


def steps_in(tmp_path: pathlib.Path) -> dict[str, Any]:
    return store.read(tmp_path / "out" / store.RUN)["steps"]


def began(tmp_path: pathlib.Path) -> list[str]:
    path = tmp_path / "began.txt"
    return path.read_text().split() if path.exists() else []


def test_a_failing_or_crashing_step_does_not_stop_the_next(call: Callable[..., int], tmp_path: pathlib.Path) -> None:
    assert call(smoke="raise ValueError('no such kernel')", headline="os.abort()", tests="sys.exit(3)") == 1
    found = steps_in(tmp_path)
    assert [found[name]["status"] for name in NAMES] == ["failed", "failed", "failed", "ran", "ran"]
    assert "ValueError: no such kernel" in found["smoke"]["why"]
    assert began(tmp_path) == ["smoke", *["headline"] * command.MOST_STARTS, "tests", "tuner", "rest"]


def test_a_process_that_is_started_again_is_told_how_often_and_may_end_well(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    ends = {0: "sys.exit(DEVICE_LOST)", 1: "os.abort()", 2: "pass"}
    assert call("--from", "headline", headline=f"exec({ends}[task.start])") == 0
    assert steps_in(tmp_path)["headline"]["status"] == "ran"
    assert began(tmp_path).count("headline") == len(ends)


def test_a_late_step_is_killed_its_results_kept_and_the_whole_stays_within_the_minutes(
    call: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LEAST", 1.0)
    monkeypatch.setattr(command, "RESERVE", 2.0)
    begin = time.monotonic()
    assert call("--from", "headline", minutes=0.4, **dict.fromkeys(NAMES, "time.sleep(600)")) == 0
    assert time.monotonic() - begin < 0.4 * 60
    found = steps_in(tmp_path)
    assert found["headline"]["status"] == "late"
    table = (tmp_path / "out" / store.TABLE).read_text()
    assert "| met so far | each result that is timed is right | 1 of 2 cases" in table
    assert "not measured | the tests marked gpu pass | step tests late: killed at its limit" in table


def test_a_step_without_time_is_not_begun_and_the_table_says_so(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call(minutes=0.1) == 0
    assert began(tmp_path) == []
    table = (tmp_path / "out" / store.TABLE).read_text()
    assert "not measured | the tests marked gpu pass | step tests not run: no time was left" in table


def test_it_goes_on_from_a_step_keeps_what_is_there_and_mixes_it_with_no_other_results(
    call: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call() == 0
    before = steps_in(tmp_path)
    with pytest.raises(SystemExit, match="has the results of an earlier call: give --from STEP"):
        call()
    assert call("--from", "tuner", tuner="sys.exit(3)") == 1
    assert began(tmp_path) == [*NAMES, "tuner", "rest"]
    after = steps_in(tmp_path)
    assert {name: after[name] for name in NAMES[:3]} == {name: before[name] for name in NAMES[:3]}
    assert after["tuner"]["status"] == "failed"
    monkeypatch.setitem(ABOUT, "device", "another card")
    with pytest.raises(SystemExit, match=r"H100.*another card.*give another folder"):
        call("--from", "tuner")
    assert len(store.FILES) <= 8
    assert {path.name for path in (tmp_path / "out").iterdir()} <= set(store.FILES)


def words_of(path: pathlib.Path) -> bytes:
    """The command line of a process, or nothing if it has ended meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


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
    next(line for line in begun.stdout if line.startswith("smoke"))
    begun.send_signal(number)
    said, _ = begun.communicate(timeout=60)
    assert begun.returncode == 128 + number
    assert not [path for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if str(out).encode() in words_of(path)]
    found = store.read(out / store.RUN)["steps"]
    assert found["smoke"]["status"] == "stopped"
    assert found["headline"]["status"] == "not run"
    assert "step smoke stopped: this command was told to end" in (out / store.TABLE).read_text()
    assert "Traceback" not in said
