"""The time that the device itself took, from JAX's profiler: without starting a program and waiting for it.

A CPU has no such time apart from the wall's.
"""

import glob
import statistics
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
        with jax.profiler.trace(folder):
            for turn in range(CALLS):
                for one in programs:
                    one.call(turn)
        paths = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        times = of_programs(jax.profiler.ProfileData.from_file(path) for path in paths)
    return found | {one.name: times[one.label] for one in programs if one.label in times}


def of_programs(profiles: Iterable[Any]) -> dict[str, float]:
    """The median time of each program, by what it was called under `jax.jit`.

    A GPU's plane has a line for each stream, whose kernels name their program; kernels of one program that follow one
    another within a call are added up: there are as many of each as there were calls. A TPU's has a line of programs.
    """
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for profile in profiles:
        for plane in profile.planes:
            if not plane.name.startswith(("/device:GPU", "/device:TPU")):
                continue
            for line in plane.lines:
                of_modules = line.name == "XLA Modules"
                if not of_modules and not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    stats = dict(event.stats)
                    module = event.name if of_modules else str(stats.get("hlo_module", ""))
                    label = module.split("(")[0].removeprefix("jit_")
                    if label:
                        spent[label][event.name].append(event.duration_ns * NS)
    return {
        label: sum(statistics.median(times) * max(1, round(len(times) / CALLS)) for times in kernels.values())
        for label, kernels in spent.items()
    }
