"""The time that the device itself took, without starting a program and waiting for it.

JAX's profiler measures it. If the profiler fails or says what cannot be, and for PyTorch's functions, the time is that
of a long queue: many calls are begun one after the other and awaited once, and their time is divided by their number. A
CPU has no time of its own, only the wall time.
"""

import glob
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from bench.timing import Jitted, Prepared

CALLS = 7
QUEUE_SECONDS, QUEUE_CALLS = 0.05, (10, 200)  # how long a queue is
PROFILER, QUEUE = "profiler", "queue"
POSSIBLE = (0.7, 1.2)  # what a profiler can say, as a part of the time in a queue
BOUND_BY_STARTS = 2e-4  # seconds: calls that are shorter wait for the next to be begun

_broken: list[str] = []  # why the profiler is not used again in this process


def of(prepared: Sequence[Prepared], on_cpu: bool = False) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The time of a call of each on the device, by name, and why it is not the profiler's; on a CPU only if asked."""
    is_cpu = jax.devices()[0].platform == "cpu"
    if is_cpu and not on_cpu:
        return {}, []
    profiled = {} if is_cpu else by_profiler([one for one in prepared if isinstance(one, Jitted)])
    found, why = {}, [*_broken]
    for one in prepared:
        queued, told = in_a_queue(one), profiled.get(one.label)
        is_used = told is not None and is_possible(told, queued)
        how = {"device_s": told, "device_by": PROFILER} if is_used else {"device_s": queued, "device_by": QUEUE}
        found[one.name] = how | {"queue_s": queued}
        if profiled and one.label and not is_used:
            why.append(f"{one.name}: the profiler says {told} s per call, a queue {queued:.3g} s")
    return found, why


def is_possible(profiled: float, queued: float) -> bool:
    """Whether a profiler's time of a call can be right: it is about a queue's, or less if calls are short."""
    least, most = POSSIBLE
    return profiled <= most * queued and (profiled >= least * queued or queued < BOUND_BY_STARTS)


def in_a_queue(one: Prepared) -> float:
    """Seconds of a call among many that are begun one after the other, and awaited once."""

    def many(calls: int) -> float:
        begin = time.perf_counter()
        one.call(*range(calls))
        return (time.perf_counter() - begin) / calls

    least, most = QUEUE_CALLS
    first = many(least)
    return many(max(least, min(most, int(QUEUE_SECONDS / first))))


def by_profiler(programs: Sequence[Jitted]) -> dict[str, float]:
    """The median time of calls that take turns, by the label of the program; nothing if the profiler fails."""
    if _broken:
        return {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level, options.host_tracer_level = 0, 1  # Python's own calls are not recorded
            with jax.profiler.trace(folder, profiler_options=options):
                for turn in range(CALLS):
                    for one in programs:
                        one.call(turn)
            paths = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
            found = of_programs(jax.profiler.ProfileData.from_file(path) for path in paths)
        if not any(one.label in found for one in programs):
            raise RuntimeError("it saw none of the kernels")
    except Exception as error:  # as if CUPTI is not installed, or not allowed
        _broken.append(f"the profiler failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return {}
    return found


def of_programs(profiles: Iterable[Any]) -> dict[str, float]:
    """The median time of each program, by what it was called under `jax.jit`.

    A GPU's plane has a line for each stream, whose kernels name their program: there are as many of each kernel as
    there were calls, or a multiple, and those of one call are added up. A TPU's plane has a line of programs.
    """
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for plane in (plane for profile in profiles for plane in profile.planes):
        on_gpu, on_tpu = (plane.name.startswith(f"/device:{kind}") for kind in ("GPU", "TPU"))
        for line in plane.lines:
            if not (on_gpu and line.name.startswith("Stream")) and not (on_tpu and line.name == "XLA Modules"):
                continue
            for event in line.events:
                program = str(dict(event.stats).get("hlo_module", "")) if on_gpu else event.name
                label = program.split("(")[0].removeprefix("jit_")
                spent[label][event.name].append(event.duration_ns * 1e-9)
    return {
        label: sum(statistics.median(times) * max(1, round(len(times) / CALLS)) for times in kernels.values())
        for label, kernels in spent.items()
    }
