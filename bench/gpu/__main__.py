"""Does everything that waits for a GPU, the most valuable first, within a few minutes, and ends with one table.

    python -m bench.gpu --minutes 5 --out out/gpu           # all steps
    python -m bench.gpu --out out/gpu --from tests          # goes on: what is on disk is not done again
    python -m bench.gpu --rehearsal --out out/gpu-rehearsal # on a CPU, tiny, with the kernels interpreted

Each step is a process of its own with a time limit, and writes what it has after every case: nothing is lost if one
fails, if time runs out, or if this process is told to end (SIGINT, SIGTERM). At most eight files are left.

The exit status is 1 if a step failed or a result is wrong; 0 if time ran out or something is slow.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.gpu import store, table
from bench.gpu.steps import DEVICE_LOST, STEPS, Task
from bench.gpu.targets import Right

ROOT = pathlib.Path(__file__).parent.parent.parent
MOST_MINUTES = 9.0
PROBE_SECONDS = 150.0  # the first time, gigabytes of libraries are read from a disk
RESERVE = 4.0  # seconds at the end: a late step is killed, and the table is written
LEAST = 10.0  # seconds without which a step is not begun: JAX alone takes some of them to start
MOST_STARTS = 4  # of a step whose process ends by itself before it is done
DESCRIBE = "import json; from bench import machine; print(json.dumps(machine.description()))"
STOPPED: list[int] = []  # signals that asked this process to end; an exception could come while a process begins


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # fmt: off
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M",
                        help=f"how long all of it may take, at most {MOST_MINUTES:g} (default: %(default)g)")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER",
                        help="where the results go, a folder that holds nothing else")
    parser.add_argument("--from", dest="start", choices=STEPS,
                        help="go on from a step where the last call stopped")
    parser.add_argument("--rehearsal", action="store_true",
                        help="on a CPU, with tiny arrays and the kernels interpreted: nothing that is measured counts")
    # fmt: on
    options = parser.parse_args(words)
    if not 0 < options.minutes <= MOST_MINUTES:
        parser.error(f"--minutes {options.minutes:g}: give more than 0 and at most {MOST_MINUTES:g}")
    return options


def environment(rehearsal: bool) -> dict[str, str]:
    """The variables of a step."""
    platforms = "cpu" if rehearsal else os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        platforms += ",cpu"  # which the reference runs on
    return {
        **os.environ,
        **({"JAX_PLATFORMS": platforms} if platforms else {}),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch, and the processes of pytest-xdist, need memory too
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes to start and to end
    }


def probe(rehearsal: bool) -> dict[str, Any]:
    """What card this is, asked in a process that gives its memory back; ends with one line if there is none."""
    command, variables = [sys.executable, "-c", DESCRIBE], environment(rehearsal)
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PROBE_SECONDS, "check": False}
    try:
        done = subprocess.run(command, cwd=ROOT, env=variables, **how)
    except subprocess.TimeoutExpired:
        sys.exit(f"JAX did not start within {PROBE_SECONDS:g} s: see what nvidia-smi says. Nothing was written.")
    if done.returncode:
        sys.exit(f"JAX did not start: {(done.stderr.strip().splitlines() or [done.returncode])[-1]}")
    about = json.loads(done.stdout.splitlines()[-1])
    if about["platform"] != "cuda" and not rehearsal:
        sys.exit(
            f"python -m bench.gpu needs an NVIDIA GPU, and JAX {about['versions']['jax']} found {about['platform']} "
            "only: install JAX's CUDA plugin (pip install 'jax[cuda13]'), or try it out with --rehearsal. "
            "Nothing was written."
        )
    return about


def asked(options: argparse.Namespace) -> list[str]:
    """The steps of this call."""
    names = list(STEPS)
    return names[names.index(options.start) if options.start else 0 :]


def begin(options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """The record of the folder, in which no step of this call has run yet; ends if it holds other results."""
    run = store.read(options.out / store.RUN)
    known = {"device": about["device"], "rehearsal": options.rehearsal}
    known |= {name: about["versions"].get(name) for name in ("jax", "torch")}
    if run and not options.start:
        sys.exit(f"--out {options.out} has the results of an earlier call: give --from STEP, or another folder")
    if run and run["known"] != known:
        sys.exit(f"--out {options.out} has results of {run['known']}, and this is {known}: give another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    steps = {name: {"status": "not run", "why": "not asked for"} for name in STEPS} | run.get("steps", {})
    steps |= {name: {"status": "not run", "why": "no time was left"} for name in asked(options)}
    return run | {"about": about, "known": known, "rehearsal": options.rehearsal, "steps": steps}


def run_child(command: Sequence[str], seconds: float, log: pathlib.Path, rehearsal: bool) -> int | None:
    """The exit status of a command, or None if it was killed; whatever it started ends with it."""
    with log.open("ab") as output:
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, "cwd": ROOT}
        # In a group of processes, which can be killed as one.
        child = subprocess.Popen(command, env=environment(rehearsal), process_group=0, **how)
        try:
            until = time.monotonic() + seconds
            while not STOPPED and time.monotonic() < until:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(0.2)
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody is left
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def run_step(name: str, until: float, options: argparse.Namespace) -> tuple[str, str]:
    """Runs a step; if its process crashes, another goes on after what ended the first."""
    log, status = options.out / store.LOG, None
    for start in range(MOST_STARTS):
        task = Task(name, str(options.out.resolve()), until, options.rehearsal, start)
        status = run_child(task.command(), until - time.time(), log, options.rehearsal)
        if STOPPED:
            return "stopped", "this command was told to end"
        if status is None:
            return "late", "killed at its limit; what it had found is kept"
        if status == 0:
            return "ran", f"its process was started {start + 1} times" if start else ""
        if (status > 0 and status != DEVICE_LOST) or until - time.time() < LEAST:
            break
    said = log.read_text(errors="replace").strip().splitlines()
    return "failed", f"exit status {status}: {said[-1][:200] if said else ''}"


def run_steps(options: argparse.Namespace, end: float) -> None:
    """Every step in turn, each with its share of the time that is left; a rehearsal's steps have equal shares."""
    path, todo = options.out / store.RUN, asked(options)
    for i, name in enumerate(todo):
        shares = [1.0 if options.rehearsal else STEPS[one].share for one in todo[i:]]
        left, started = end - time.time(), time.time()
        limit = min(left, max(LEAST, left * shares[0] / sum(shares)))
        if limit < LEAST or STOPPED:
            break
        print(f"{name}: {STEPS[name].what}; at most {limit:.0f} s", flush=True)
        status, why = run_step(name, started + limit, options)
        run = store.read(path)
        run["steps"][name] = {"status": status, "why": why, "seconds": round(time.time() - started, 1)}
        store.write(path, run)
        store.write(options.out / store.TABLE, table.text(options.out))
        print(f"  {status} {why}", flush=True)


def complaints(folder: pathlib.Path, rehearsal: bool) -> list[str]:
    """What failed or is wrong; of a rehearsal also what was left out, but for what its environment need not have."""
    found = []
    for name, step in store.read(folder / store.RUN)["steps"].items():
        if step["status"] == "failed" or (rehearsal and step["status"] != "ran"):
            found.append(f"step {name}: {step['status']}: {step['why']}")
    for verdict in table.verdicts(folder):
        is_wrong = verdict.status == table.NOT_MET and isinstance(verdict.target, Right)
        is_missing = verdict.status in (table.NOT_MEASURED, table.SO_FAR) and "torch" not in verdict.target.name
        if is_wrong or (rehearsal and is_missing):
            found.append(f"{verdict.target.name}: {verdict.status}: {verdict.measured}")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    options, began = arguments(words), time.time()
    about = probe(options.rehearsal)
    store.write(options.out / store.RUN, begin(options, about))
    print(f"{about['device']}: all of it is in {options.out}", flush=True)
    run_steps(options, began + 60 * options.minutes - RESERVE)
    for path in options.out.glob("*.new"):  # what a killed process was about to write
        path.unlink()
    text = table.text(options.out)
    store.write(options.out / store.TABLE, text)
    found = complaints(options.out, options.rehearsal)
    print(f"\n{text}\n{time.time() - began:.0f} s in all", *found, sep="\n")
    return 128 + STOPPED[0] if STOPPED else int(bool(found))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: STOPPED.append(number))
    sys.exit(main())
