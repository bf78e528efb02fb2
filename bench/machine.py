"""The machine that a benchmark ran on: what a reader of the results needs to know of it."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import jax

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("jax", "jaxlib", "numpy", "jax-triton", "triton", "torch", "aqtp", "qwix")
CPU_CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
LAST_LEVEL_CACHE = {"NVIDIA H100": 50 << 20, "NVIDIA H200": 50 << 20, "NVIDIA A100": 40 << 20}  # NVIDIA's data sheets
UNKNOWN_CACHE = 64 << 20  # more than a GPU or TPU of today has
NVIDIA_SMI = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit")


def platform_name() -> str:
    """What JAX calls the platform where it lowers programs for it, and so `kernels.TABLE`."""
    backend = jax.default_backend()
    return "cuda" if backend == "gpu" else backend


def device_name() -> str:
    """What the device is called: a CPU by its model and the cores that this process may use."""
    if (device := jax.devices()[0]).platform != "cpu":
        return device.device_kind
    [model, *_] = re.findall(r"^model name\s*:\s*(.+?)\s*$", _read("/proc/cpuinfo"), re.MULTILINE) or [""]
    return f"{model or platform.processor() or platform.machine()}, {cores()} cores"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_level_cache() -> int:
    """Bytes of the cache before memory, or more if that is not known."""
    if (device := jax.devices()[0]).platform == "cpu":
        sizes = [_read(path).strip() for path in CPU_CACHES.glob("index*/size")]
        return max((int(size[:-1]) << 10 for size in sizes if size.endswith("K")), default=UNKNOWN_CACHE)
    known = (size for name, size in LAST_LEVEL_CACHE.items() if device.device_kind.startswith(name))
    return next(known, UNKNOWN_CACHE)


def free_memory() -> int:
    """Bytes that the device's memory has free."""
    if (device := jax.devices()[0]).platform != "cpu":
        stats = device.memory_stats() or {}
        return stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0)
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else 4 << 30


def description() -> dict[str, Any]:
    """The device, its driver and clocks as found, the versions of packages, and the commit of the code."""
    installed = {name: d.version for name in PACKAGES for d in [*importlib.metadata.distributions(name=name)][:1]}
    return {
        "device": device_name(),
        "platform": platform_name(),
        "last_level_cache_bytes": last_level_cache(),
        "clocks": _clocks(),
        "system": platform.platform(),
        "versions": {"python": platform.python_version()} | installed,
        "commit": _commit(),
    }


def _clocks() -> dict[str, str]:
    if jax.devices()[0].platform == "cpu":
        found = re.findall(r"^cpu MHz\s*:\s*(\S+)$", _read("/proc/cpuinfo"), re.MULTILINE)
        return {"cpu MHz": " ".join(found)} if found else {}
    query = ["nvidia-smi", "--query-gpu=" + ",".join(NVIDIA_SMI), "--format=csv,noheader", "--id=0"]
    values = [value.strip() for value in _said(query).split(",")]
    return dict(zip(NVIDIA_SMI, values, strict=True)) if len(values) == len(NVIDIA_SMI) else {}


def _commit() -> str:
    """The commit that is checked out, and whether files differ from it; without git, a digest of the files."""
    if commit := _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]):
        return commit
    paths = sorted(path for folder in ("intnumerics", "kernels", "bench") for path in (ROOT / folder).rglob("*.py"))
    return f"none; files {hashlib.sha256(b''.join(path.read_bytes() for path in paths)).hexdigest()[:12]}"


def _said(command: list[str]) -> str:
    """What a command prints; nothing if it is not installed, or does not end."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _read(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
