"""Runs the real compilers, that for GPUs and that for TPUs side by side: each keeps one core busy."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent

# What `python -m bench.aot` is asked for, what takes longest first; one for TPUs at a time, for libtpu locks a file.
# Sharded programs are those of sharded_programs.py.
LINES = (("tpu", "tpu sharded"), ("cuda", "jax_triton", "cuda sharded"))
ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
ARGUMENTS = [arguments for line in LINES for arguments in line]


def compile_all(arguments: str) -> dict[str, Any]:
    """Runs a compiler in a process of its own, for it reads its environment once."""
    platform, _, is_sharded = arguments.partition(" ")
    module = [str(ROOT / "tests" / "sharded_programs.py")] if is_sharded else ["-m", "bench.aot"]
    variables = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *module, platform]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


class Compilers:
    """What was asked for, being compiled."""

    def __init__(self, asked: Iterable[str]) -> None:
        wanted = set(asked)
        self.pools = [ThreadPoolExecutor(max_workers=1) for _ in LINES]
        self.reports: dict[str, Future[dict[str, Any]]] = {
            arguments: pool.submit(compile_all, arguments)
            for pool, line in zip(self.pools, LINES, strict=True)
            for arguments in line
            if arguments in wanted
        }

    def report(self, arguments: str) -> dict[str, Any]:
        """What `python -m bench.aot` prints, once it has."""
        return self.reports[arguments].result()

    def close(self) -> None:
        """Begins nothing more."""
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)
