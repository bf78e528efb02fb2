"""Does everything that waits for a GPU, the most valuable first, within a few minutes, and ends with one table.

    python -m bench.gpu --minutes 5 --out out/gpu           # goes on with what is in --out, if there is something
    python -m bench.gpu --rehearsal --out out/gpu-rehearsal # on a CPU, tiny, with the kernels interpreted

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

from bench.gpu import steps, table, targets
from bench.results import write

ROOT = pathlib.Path(__file__).parent.parent.parent
DESCRIBE = "import json; from bench import machine; print(json.dumps(machine.description()))"
RESERVE = 4.0  # seconds at the end: a late step is killed, and the table is written
LEAST = 10.0  # seconds without which a step is not begun: JAX alone takes some of them to start
STOPPED: list[int] = []  # signals that asked this process to end; an exception could come while a process begins


def environment(rehearsal: bool) -> dict[str, str]:
    """The variables of a step."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu" if rehearsal else "",  # all that are there: the reference runs on the CPU
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch, and the processes of pytest-xdist, need memory too
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes to start and to end
    }


def probe(rehearsal: bool) -> steps.Json:
    """What card this is, asked in a process that gives its memory back; ends with one line if there is none."""
    words, variables = [sys.executable, "-c", DESCRIBE], environment(rehearsal)
    try:  # the first time, gigabytes of libraries are read from a disk
        said = subprocess.check_output(words, env=variables, cwd=ROOT, text=True, timeout=150)
    except subprocess.SubprocessError as error:
        sys.exit(f"JAX did not start: {type(error).__name__}; see above, and nvidia-smi. Nothing was written.")
    about = json.loads(said.splitlines()[-1])
    if about["platform"] != "cuda" and not rehearsal:
        sys.exit(
            f"python -m bench.gpu needs an NVIDIA GPU, and JAX found {about['platform']} only: install JAX's CUDA "
            "plugin (pip install 'jax[cuda13]'), or try it out with --rehearsal. Nothing was written."
        )
    return about


def begin(out: pathlib.Path, rehearsal: bool) -> steps.Json:
    """The record of the folder, with how each step ended last; ends if the folder has other results."""
    run, about = steps.read(out / steps.RUN), probe(rehearsal)
    known = {name: about[name] for name in ("device", "commit", "versions")} | {"rehearsal": rehearsal}
    if run and run["known"] != known:
        sys.exit(f"--out {out} has results of {run['known']}, and this is {known}: give another folder")
    left = {name: {"status": "not run", "why": "no time was left"} for name in steps.SHARES}
    return {"about": about, "known": known, "steps": left | run.get("steps", {})}


def run_step(name: str, seconds: float, out: pathlib.Path, rehearsal: bool) -> steps.Json:
    """Runs a step, and ends all that it started; returns how it ended, and why."""
    words, variables = steps.command(name, out.resolve(), rehearsal, seconds), environment(rehearsal)
    log, started, status = out / steps.LOG, time.time(), None
    with log.open("ab") as output:
        # In a group of processes, which can be killed as one.
        child = subprocess.Popen(words, stdout=output, stderr=output, cwd=ROOT, env=variables, process_group=0)
        while status is None and not STOPPED and time.time() < started + seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = child.wait(0.2)
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    last = "".join(log.read_text(errors="replace").strip().splitlines()[-1:])[:200]
    killed = ("stopped", "this command was told to end") if STOPPED else ("late", "killed at its limit")
    how, why = {None: killed, 0: ("ran", "")}.get(status, ("failed", f"exit status {status}: {last}"))
    return {"status": how, "why": why, "seconds": round(time.time() - started, 1)}


def complaints(out: pathlib.Path, rehearsal: bool) -> list[str]:
    """What failed or is wrong; of a rehearsal also what was left out, but for what its environment need not have."""
    run, allowed = steps.read(out / steps.RUN), ("ran",) if rehearsal else ("ran", "late", "stopped", "not run")
    found = [table.ended(run, name) for name, step in run["steps"].items() if step["status"] not in allowed]
    for target, status, measured in table.verdicts(out):
        is_missing = status in (table.NOT_MEASURED, table.SO_FAR) and "torch" not in target.name
        if (status == table.NOT_MET and isinstance(target, targets.Right)) or (rehearsal and is_missing):
            found.append(f"{target.name}: {status}: {measured}")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line: each step that is left, with its share of the time that is left."""
    began, about = time.time(), "all that waits for a GPU, in minutes; see docs/gpu.md"
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=about)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all of it, at most 9 (default: 5)")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder for the results and nothing else")
    parser.add_argument("--rehearsal", action="store_true", help="on a CPU, tiny and interpreted: no speed counts")
    options = parser.parse_args(words)
    if not 0 < options.minutes <= 9:
        parser.error(f"--minutes {options.minutes:g}: give more than 0 and at most 9")
    out, rehearsal = options.out, options.rehearsal
    run = begin(out, rehearsal)
    out.mkdir(parents=True, exist_ok=True)
    write(out / steps.RUN, run)
    todo = [name for name, step in run["steps"].items() if step["status"] != "ran"]
    for i, name in enumerate(todo):
        left = began + 60 * options.minutes - RESERVE - time.time()
        limit = min(left, max(LEAST, left * steps.SHARES[name] / sum(steps.SHARES[other] for other in todo[i:])))
        if limit < LEAST or STOPPED:
            break
        print(f"{name}: at most {limit:.0f} s", flush=True)
        run["steps"][name] = run_step(name, limit, out, rehearsal)
        write(out / steps.RUN, run)
        write(out / steps.TABLE, table.text(out))
    write(out / steps.TABLE, text := table.text(out))
    print(text, *(found := complaints(out, rehearsal)), f"{time.time() - began:.0f} s in all", sep="\n")
    return 128 + STOPPED[0] if STOPPED else int(bool(found))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: STOPPED.append(number))
    sys.exit(main())
