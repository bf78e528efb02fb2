"""The command for a GPU loses nothing: not when a step is late, fails or crashes, nor when it is told to end itself."""

import contextlib
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
from bench.gpu import steps

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent
FILES = {steps.RUN, steps.BENCH, steps.TESTS, steps.ROWS, steps.LOG, steps.TABLE}
ABOUT: dict[str, Any] = {
    "device": "NVIDIA H100 80GB HBM3",
    "platform": "cuda",
    "versions": {"jax": "0.11.2", "torch": "2.11.0+cu130"},
    "commit": "c0ffee",
}


@pytest.mark.parametrize("minutes", ["10", "0", "nan"])
def test_a_mistake_is_told_before_anything_begins(
    minutes: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--out", str(tmp_path / "out"), "--minutes", minutes])
    assert f"--minutes {minutes}: give more than 0 and at most 9" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_it_says_in_one_line_what_to_do_and_writes_nothing(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-m", "bench.gpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "needs an NVIDIA GPU, and JAX found cpu only: install" in line
    assert not (tmp_path / "out").exists()


def test_the_command_itself_imports_no_jax() -> None:
    """A process that has started JAX holds memory of the card, and a broken JAX must not take the table with it."""
    code = "import bench.gpu.__main__, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- the steps together -----------------------------------------------------------------------------------------------

# What the process of a step does beside `body`: it writes that it began, and that one of two cases is right.
STEP = """
    import json, os, pathlib, signal, subprocess, sys, time
    from bench.gpu import steps
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    with (folder.parent / "began.txt").open("a") as file:
        file.write(name + "\\n")
    if name == "bench":
        from bench import results
        from bench.gpu import measure
        case, other = measure.of_targets()[:2]
        found = case.key | {{"least_bytes": 8, "results": {{"intnumerics": {{"median_s": 1.0}}}}}}
        about = {{"planned": [results.title(case.key), results.title(other.key)]}}
        measure.measure(folder / steps.BENCH, [case], lambda _: found, about)
    {body}
"""


@pytest.fixture
def call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command with other steps: by name what the process of a step does."""

    def run(minutes: float = 1.0, **bodies: str) -> int:
        def step(name: str, folder: pathlib.Path, *_: Any) -> list[str]:
            source = textwrap.dedent(STEP).format(body=bodies.get(name, "pass"))
            return [sys.executable, "-c", source, name, str(folder)]

        monkeypatch.setattr(steps, "command", step)
        monkeypatch.setattr(command, "probe", lambda *_: ABOUT)
        return command.main(["--out", str(tmp_path / "out"), "--minutes", str(minutes)])

    return run


def steps_in(tmp_path: pathlib.Path) -> dict[str, Any]:
    return {name: step["status"] for name, step in steps.read(tmp_path / "out" / steps.RUN)["steps"].items()}


def began(tmp_path: pathlib.Path) -> list[str]:
    return (tmp_path / "began.txt").read_text().split()


def table_in(tmp_path: pathlib.Path) -> str:
    return (tmp_path / "out" / steps.TABLE).read_text()


def running(folder: pathlib.Path) -> list[bytes]:
    """The command lines of the processes that name a folder; one that was killed has none."""
    found = list[bytes]()
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes())
    return [words for words in found if str(folder).encode() in words]


def test_a_failing_or_crashing_step_keeps_its_results_and_does_not_stop_the_next(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call(tests="raise ValueError('no such kernel')", bench="os.abort()") == 1
    assert steps_in(tmp_path) == {"tests": "failed", "bench": "failed", "tuner": "ran"}
    assert began(tmp_path) == ["tests", "bench", "tuner"]
    assert "NOT MET | the tests marked gpu pass | 0 of 0 tests; step tests failed: exit status 1" in table_in(tmp_path)
    assert "ValueError: no such kernel" in table_in(tmp_path)
    assert "| met so far | each result that is timed is right | 1 of 2 cases" in table_in(tmp_path)


STUBBORN = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it does not end when it is asked to
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(folder)])
    time.sleep(600)
"""


def test_a_late_step_is_killed_with_all_that_it_started_its_results_stay_and_the_whole_is_within_the_minutes(
    call: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LEAST", 1.0)
    monkeypatch.setattr(command, "RESERVE", 2.0)
    begin = time.monotonic()
    forever = "time.sleep(600)"
    assert call(0.4, tests=f"exec({textwrap.dedent(STUBBORN)!r})", bench=forever, tuner=forever) == 0
    assert time.monotonic() - begin < 0.4 * 60
    assert set(steps_in(tmp_path).values()) == {"late"}
    assert not running(tmp_path)
    assert "| met so far | each result that is timed is right | 1 of 2 cases" in table_in(tmp_path)
    assert "not measured | the tests marked gpu pass | 0 of 0 tests; step tests late: killed" in table_in(tmp_path)


def test_a_step_without_time_is_not_begun_and_the_table_says_so(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call(0.1) == 0
    assert not (tmp_path / "began.txt").exists()
    assert "| each result that is timed is right | step bench not run: no time was left" in table_in(tmp_path)


def test_it_goes_on_with_the_steps_that_are_left_and_what_failed_is_not_forgotten(
    call: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert call(bench="sys.exit(3)") == 1
    assert call(0.1) == 1
    assert steps_in(tmp_path) == {"tests": "ran", "bench": "failed", "tuner": "ran"}
    assert call() == 0
    assert began(tmp_path) == ["tests", "bench", "tuner", "bench"]
    assert steps_in(tmp_path)["bench"] == "ran"
    assert {path.name for path in (tmp_path / "out").iterdir()} <= FILES


@pytest.mark.parametrize("key", ["device", "commit", "versions"])
def test_results_of_another_card_code_or_jax_are_refused_and_stay(
    key: str, call: Callable[..., int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(bench="sys.exit(3)") == 1
    before = table_in(tmp_path)
    monkeypatch.setitem(ABOUT, key, {"jax": "another"})
    with pytest.raises(SystemExit, match=r"H100.*another.*give another folder"):
        call()
    assert table_in(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_that_is_told_to_end_kills_its_step_and_writes_the_table(number: int, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "bench.gpu", "--rehearsal", "--out", str(out)]
    begun = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert begun.stdout is not None
    next(line for line in begun.stdout if line.startswith("tests"))
    begun.send_signal(number)
    said, _ = begun.communicate(timeout=60)
    assert begun.returncode == 128 + number
    assert not running(out)
    assert steps_in(tmp_path) == {"tests": "stopped", "bench": "not run", "tuner": "not run"}
    assert "step tests stopped: this command was told to end" in table_in(tmp_path)
    assert "Traceback" not in said
