"""A card that is not there and files of times that nobody measured, for the tests of `python -m bench.gpu`."""

import pathlib
from typing import Any

from bench.gpu import judge, store, targets
from bench.names import SEED

ABOUT: dict[str, Any] = {
    "device": "NVIDIA H100 80GB HBM3",
    "platform": "cuda",
    "versions": {"python": "3.12.3", "jax": "0.11.2", "torch": "2.11.0+cu130"},
    "clocks": {},
    "system": "Linux",
    "commit": "c0ffee",
}
FOLDER = "nvidia-h100-80gb-hbm3_jax-0.11.2_torch-2.11.0-cu130"


def bench_of(speeds: dict[str, float], operation: str = targets.NOISY, **more: Any) -> dict[str, Any]:
    """A document of the benchmark with one case, of the times that are given."""
    case = {"operation": operation, "dtype": "bfloat16", "shape": [1 << 28]}
    results = {name: {"median_s": t, "device_s": t, "quartiles_s": [t, t]} for name, t in speeds.items()}
    measured = case | {"least_bytes": 8, "baseline": SEED, "results": results}
    other = case | {"shape": [1 << 26]}
    return {"cases": [measured], "planned": [case, other], "skipped": ["PyTorch: not installed"]} | more


def write(folder: pathlib.Path, bench: dict[str, Any], **steps: Any) -> pathlib.Path:
    """Writes the files that every folder has."""
    store.write(folder / store.RUN, {"about": ABOUT, "steps": steps})
    store.write(folder / store.BENCH, bench)
    return folder


def verdict(folder: pathlib.Path, words: str) -> judge.Verdict:
    """The verdict on the target that has these words in its name."""
    return next(v for v in judge.verdicts(folder) if words in v.target.name)
