"""The time that the device itself took, from JAX's profiler: without starting a program and waiting for it.

A CPU has no such time apart from the wall's.
"""

import glob
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from bench.timing import Jitted, Prepared

CALLS = 7
NS = 1e-9


def by_name(prepared: Sequence[Prepared]) -> dict[str, float]:
    """Seconds of one call on the device, by the name of the variant; nothing where no profiler gives it.

    The median over calls that take turns. PyTorch's variants say it themselves.
    """
    found = {one.name: seconds for one in prepared if (seconds := getattr(one, "device_seconds", None))}
    programs = [one for one in prepared if isinstance(one, Jitted)]
    if jax.devices()[0].platform not in ("gpu", "tpu") or not programs:
        return found
    with tempfile.TemporaryDirectory() as folder:
        try:
            with jax.profiler.trace(folder):
                for turn in range(CALLS):
                    for one in programs:
                        one.call(turn)
        except RuntimeError as error:  # as where CUPTI is not installed
            print(f"no times of the device alone: {str(error).splitlines()[0]}", file=sys.stderr)
            return found
        paths = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        times = of_programs(jax.profiler.ProfileData.from_file(path) for path in paths)
    return found | {one.name: times[one.label] for one in programs if one.label in times}


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
                spent[label][event.name].append(event.duration_ns * NS)
    return {
        label: sum(statistics.median(times) * max(1, round(len(times) / CALLS)) for times in kernels.values())
        for label, kernels in spent.items()
    }
