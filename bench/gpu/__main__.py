"""Does everything that waits for a GPU, the most valuable first, within a few minutes, and ends with one table.

    python -m bench.gpu --minutes 5 --out out/gpu           # all steps
    python -m bench.gpu --out out/gpu --from tests          # goes on: what is on disk is not done again
    python -m bench.gpu --rehearsal --out out/gpu-rehearsal # on a CPU, tiny, with the kernels interpreted

Each step is a process of its own with a time limit, and writes what it has after every case: nothing is lost when one
fails, or when time runs out, or when this process is told to end (SIGINT, SIGTERM). At most eight files are left, in a
folder that is named with the card and the versions.

The exit status is 1 where a step failed or a result is wrong; 0 where time ran out or something is slow.
"""

import argparse
import datetime
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.gpu import child, judge, plan, rehearsal, store, summary, task
from bench.gpu.plan import Step
from bench.gpu.targets import Right

PROBE_SECONDS = 150.0  # the first time, gigabytes of libraries are read from a disk
MOST_STARTS = 4  # of a step whose process ends by itself before it is done


class Stopped(Exception):  # noqa: N818 - it is no error
    """Someone asked this process to end."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    steps = ", ".join(f"{step.number} {step.name}" for step in plan.STEPS)
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # fmt: off
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M",
                        help=f"how long all of it may take, at most {plan.MOST_MINUTES:g} (default: %(default)g)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER",
                        help="where the results go, a folder that holds nothing else")
    parser.add_argument("--from", dest="start", metavar="STEP",
                        help=f"go on from a step, by its number or name, where the last call stopped: {steps}")
    parser.add_argument("--rehearsal", action="store_true",
                        help="on a CPU, with tiny arrays and the kernels interpreted: nothing that is measured counts")
    # fmt: on
    options = parser.parse_args(words)
    if not 0 < options.minutes <= plan.MOST_MINUTES:
        parser.error(f"--minutes {options.minutes:g}: give more than 0 and at most {plan.MOST_MINUTES:g}")
    try:
        options.steps = plan.from_step(options.start) if options.start else plan.STEPS
    except ValueError as error:
        parser.error(str(error))
    return options


def probe(is_rehearsal: bool, seconds: float = PROBE_SECONDS) -> dict[str, Any]:
    """What card this is; ends with one line where there is none."""
    command = [sys.executable, "-m", "bench.gpu.probe", *(["--rehearsal"] if is_rehearsal else [])]
    try:
        done = subprocess.run(
            command,
            cwd=task.ROOT,
            env=dict(task.environment(is_rehearsal)),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"JAX did not start within {seconds:g} s: see what nvidia-smi says. Nothing was written.")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        sys.exit(lines[-1] if done.returncode == 1 else f"JAX did not start: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes a signal that asks this process to end an exception."""

    def stop(number: int, _: Any) -> None:
        for asked in before:  # what follows is short, and is not to be cut off
            signal.signal(asked, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Call:
    """One call of the command: what it does to the record of the folder.

    Args:
        folder: Where everything goes.
        about: What card this is.
        options: The command line.
        end: When the last step must have ended, as `time.time()`.
    """

    def __init__(self, folder: pathlib.Path, about: dict[str, Any], options: argparse.Namespace, end: float) -> None:
        self.folder, self.options, self.end = folder, options, end
        folder.mkdir(parents=True, exist_ok=True)
        self.record = (
            {"steps": {}, "calls": []}
            | store.read(folder / store.RUN)
            | {"about": about, "rehearsal": options.rehearsal}
        )
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self.record["calls"].append(
            {"begin": now, "minutes": options.minutes, "from": options.start or "1", "commit": about["commit"]}
        )
        for step in options.steps:
            self.note(step, status="not run", why="the call ended before it")

    def note(self, step: Step, **what: Any) -> None:
        """Keeps how it went with a step, and the table as it is so far."""
        self.record["steps"][step.name] = what
        store.write(self.folder / store.RUN, self.record)
        store.write(self.folder / store.SUMMARY, summary.text(self.folder))

    def run(self) -> None:
        """Every step in turn."""
        for i, step in enumerate(self.options.steps):
            limit = plan.seconds_for(self.options.steps[i:], self.end - time.time(), self.options.rehearsal)
            if limit < plan.LEAST:
                self.note(step, status="not run", why=f"no time was left: {limit:.0f} s, less than {plan.LEAST:g}")
                continue
            begin = time.time()
            try:
                print(f"step {step.number} {step.name}: {step.what}; at most {limit:.0f} s", flush=True)
                status, why = self.one(step, begin + limit)
            except Stopped as stopped:
                self.note(step, status="stopped", why=f"stopped by {stopped}", seconds=round(time.time() - begin, 1))
                raise
            self.note(step, status=status, why=why, seconds=round(time.time() - begin, 1), limit=round(limit, 1))
            print(f"  {status} after {time.time() - begin:.0f} s{': ' if why else ''}{why}", flush=True)

    def one(self, step: Step, until: float) -> tuple[str, str]:
        """Runs a step; where its process ends before it is done, another goes on without what ended the first."""
        killed = 0
        for start in range(MOST_STARTS):
            todo = task.Task(step.name, self.folder, until, self.options.rehearsal, start, killed)
            log = self.folder / store.LOG
            with log.open("a") as file:
                file.write(f"\n=== step {step.number} {step.name}, {time.strftime('%H:%M:%S')}\n")
            environment = task.environment(self.options.rehearsal)
            done = child.run(todo.command(), until - time.time(), log, task.ROOT, environment)
            store.tidy(self.folder)
            if done.is_late:
                return "late", "killed at its limit; what it had found is kept"
            if done.status == 0:
                return "ran", f"its process was started {start + 1} times" if start else ""
            killed += done.status < 0
            can_go_on = done.status < 0 or done.status == task.DEVICE_LOST
            if not can_go_on or until - time.time() < plan.LEAST:
                break
        return "failed", f"exit status {done.status}: {last_line(log)}"


def last_line(log: pathlib.Path) -> str:
    """What a process said last."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        said = file.read().decode(errors="replace").strip().splitlines()
    return said[-1][:200] if said else ""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; the status is 1 where a step failed or a result is wrong, and 0 where time ran out."""
    options, begin = arguments(words), time.time()
    about = probe(options.rehearsal, min(PROBE_SECONDS, 60 * options.minutes))
    try:
        folder = store.folder_in(options.out, about, options.start is not None)
        call = Call(folder, about, options, begin + 60 * options.minutes - plan.RESERVE)
    except (ValueError, OSError) as error:
        sys.exit(f"{error}. Nothing was written.")
    print(
        f"{about['device']}; {', '.join(f'{name} {v}' for name, v in about['versions'].items())}\nall of it: {folder}"
    )
    status = 0
    try:
        with stoppable():
            call.run()
    except Stopped as stopped:
        status = 128 + signal.Signals[str(stopped)]
    store.tidy(folder)
    table = summary.text(folder)
    store.write(folder / store.SUMMARY, table)
    print(f"\n{table}\n{time.time() - begin:.0f} s in all")
    wrong = store.complaints(options.out) + (rehearsal.complaints(folder) if options.rehearsal else [])
    print("".join(f"wrong: {line}\n" for line in wrong), end="")
    has_failed = any(step["status"] == "failed" for step in call.record["steps"].values())
    return status or int(bool(wrong) or has_failed or has_wrong_results(folder))


def has_wrong_results(folder: pathlib.Path) -> bool:
    """Whether anything that must be right is not: what was not measured is not wrong."""
    return any(isinstance(v.target, Right) and v.status == judge.NOT_MET for v in judge.verdicts(folder))


if __name__ == "__main__":
    sys.exit(main())
