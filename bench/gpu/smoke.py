"""Step 1: what nvidia-smi says, and one kernel of each operation and dtype, its bits beside the reference.

The reference runs on the CPU of the same machine, whose bits the tests hold to NumPy's.
"""

import contextlib
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import machine
from bench.cases import here
from bench.gpu import store, task
from bench.gpu.task import Task
from bench.operations import NEAREST, NOISE, how
from intnumerics import _operations, quantize, quantize_to_int
from intnumerics.kernels import KERNEL_DTYPES

SIZE, REHEARSAL_SIZE = (1 << 20) + 24, (1 << 10) + 24  # whole blocks and a tail
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.5, -0.5, 1.5, 126.5, 127.0, -127.5, 100.5, 1e30)
KEY = ("implementation", "operation", "dtype")  # what a kernel is known by
FAILED = "failed"
WORDS = (0x243F6A88, 0x85A308D3)  # of the key

Function = Callable[..., Any]


def operations() -> dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Function]]]:
    """Each operation of the kernels: its arrays, and its function given an implementation."""
    noisy, spec = NEAREST.replace(noise_fn=NOISE["PhiloxUniform"]), NEAREST.spec()
    to_int, partial = quantize_to_int, functools.partial
    return {
        "quantize": (("x",), lambda how: partial(quantize, numerics=NEAREST, **how)),
        "quantize to int8": (("x",), lambda how: partial(to_int, numerics=NEAREST, **how)),
        "quantize, noise drawn": (("x", "words"), lambda how: lambda x, w: quantize(x, noisy, key=key(w), **how)),
        "quantize to int8, noise drawn": (("x", "words"), lambda how: lambda x, w: to_int(x, noisy, key=key(w), **how)),
        "quantize, noise read": (
            ("x", "noise"),
            lambda how: lambda x, noise: _operations.quantize(x, noise, spec, **how),
        ),
        "quantize with mask": (("x",), lambda how: lambda x: _operations.quantize_with_mask(x, None, spec, **how)),
        "clip gradient from mask": (("g", "mask"), lambda how: partial(_operations.clip_gradient_from_mask, **how)),
        "clip gradient from x": (("g", "x"), lambda how: partial(_operations.clip_gradient_from_x, spec=spec, **how)),
    }


def key(words: jax.Array) -> jax.Array:
    """The key of two words."""
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def reference(function: Function, *given: Any) -> Any:
    """What a function of NumPy's arrays returns on the CPU."""
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.tree.map(np.asarray, jax.jit(function)(*given))


def inputs(size: int, dtype: str) -> dict[str, Any]:
    """The arrays that operations name: numbers on both sides of the bound, and those that are special."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=size) * 90).astype(np.float32)
    x[: len(SPECIAL)] = SPECIAL
    x = x.astype(jnp.dtype(dtype))
    return {
        "x": x,
        "g": rng.normal(size=size).astype(jnp.dtype(dtype)),
        "noise": rng.uniform(-0.5, 0.5, size).astype(np.float32),
        "mask": reference(lambda x: _operations.quantize_with_mask(x, None, NEAREST.spec(), "reference")[1], x),
        "words": np.asarray(WORDS, np.uint32),
    }


def differing(found: Any, expected: Any) -> int:
    """How many elements have other bits; any NaN is as good as any other."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return sum(_differing(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _differing(a: np.ndarray, b: np.ndarray) -> int:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return max(a.size, b.size)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return int(np.count_nonzero((a.view(bits) != b.view(bits)) & ~((a != a) & (b != b))))


def kernels(size: int, names: tuple[str, ...]) -> Iterator[tuple[str, str, str, Callable[[], str]]]:
    """Every kernel by its implementation, operation and dtype, with what tells what is wrong with it, or nothing."""
    for dtype in ("bfloat16", "float32", *(d for d in KERNEL_DTYPES if d not in ("bfloat16", "float32"))):
        arrays = inputs(size, dtype)
        for operation, (takes, make) in operations().items():
            given = tuple(arrays[name] for name in takes)

            @functools.cache
            def expected(make: Any = make, given: Any = given) -> Any:
                return reference(make(how("reference")), *given)

            for name in names:

                def wrong(name: str = name, make: Any = make, given: Any = given, expected: Any = expected) -> str:
                    try:
                        found = jax.block_until_ready(jax.jit(make(how(name)))(*given))
                        count = differing(found, expected())
                    except Exception as error:
                        return f"{FAILED}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    return f"{count} elements differ" if count else ""

                yield name, operation, dtype, wrong


def say_what_is_here() -> None:
    """Prints what nvidia-smi says."""
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"nvidia-smi: {error}", flush=True)
        return
    print(done.stdout + done.stderr, flush=True)


def try_torch(rehearsal: bool) -> subprocess.Popen[bytes] | None:
    """Begins to find out whether PyTorch works here, in a process that is killed with this one."""
    if importlib.util.find_spec("torch") is None:
        return None
    return subprocess.Popen([sys.executable, "-m", "bench.gpu.try_torch", "cpu" if rehearsal else "cuda"])


class Smoke:
    """What was found, and what is still to be compared.

    Args:
        todo: What the step is told.
        trial: Of PyTorch, which runs meanwhile.
    """

    def __init__(self, todo: Task, trial: "subprocess.Popen[bytes] | None" = None) -> None:
        self.todo, self.path, self.trial = todo, todo.folder / store.SMOKE, trial
        names = here(machine.platform_name(), todo.rehearsal)
        self.all = list(kernels(REHEARSAL_SIZE if todo.rehearsal else SIZE, names))
        before = store.read(self.path).get("kernels", []) if todo.start else []
        self.report: dict[str, Any] = {"device": machine.device_name(), "implementations": names}
        self.report |= {"planned": len(self.all), "kernels": before}

    def add(self, key: tuple[str, str, str], wrong: str) -> None:
        """Keeps what is wrong with a kernel, or that nothing is."""
        row = dict(zip(KEY, key, strict=True)) | {"wrong": wrong}
        self.report["kernels"].append(row)
        store.write(self.path, self.report)
        print(f"{self.report['device']}: {', '.join(key)}: {wrong or 'the same bits'}", flush=True)
        if wrong.startswith(FAILED) and not task.is_well():
            task.end(task.DEVICE_LOST)

    def run(self) -> None:
        """Compares every kernel: many at a time, for compiling takes most of it; one, where one has lost the device."""
        done = {tuple(row[name] for name in KEY) for row in self.report["kernels"]}
        with ThreadPoolExecutor(1 if self.todo.start else min(8, machine.cores())) as pool:
            running = {pool.submit(wrong): key for *key, wrong in self.all if tuple(key) not in done}
            with contextlib.suppress(TimeoutError):
                for one in as_completed(running, timeout=max(0.0, self.todo.left)):
                    self.add(tuple(running[one]), one.result())
            pool.shutdown(wait=False, cancel_futures=True)
            self.end()

    def end(self) -> None:
        """Says how PyTorch's trial ended, and ends the process, for threads that still compile are not waited for."""
        if self.trial is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if status := self.trial.wait(max(0.0, self.todo.left)):
                    self.report["without_pytorch"] = f"its trial ended with status {status}: see {store.LOG}"
                    store.write(self.path, self.report)
        print(f"{len(self.report['kernels'])} of {len(self.all)} kernels", flush=True)
        task.end()


def main() -> None:
    """Runs the step."""
    todo = task.from_command_line()
    say_what_is_here()
    trial = None if todo.start else try_torch(todo.rehearsal)
    Smoke(todo, trial).run()


if __name__ == "__main__":
    main()
