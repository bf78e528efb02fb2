"""Step smoke: what nvidia-smi says, and one kernel of each operation and dtype, its bits beside the reference.

The reference runs on the CPU of the same machine, whose bits the tests hold to NumPy's.
"""

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import machine
from bench.cases import here
from bench.gpu import steps, store
from bench.gpu.steps import Rows, Task
from bench.operations import NEAREST, NOISE, how
from intnumerics import _operations, quantize, quantize_to_int
from intnumerics.kernels import KERNEL_DTYPES

SIZE, REHEARSAL_SIZE = (1 << 20) + 24, (1 << 10) + 24  # whole blocks and a tail
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.5, -0.5, 1.5, 126.5, 127.0, -127.5, 100.5, 1e30)
WORDS = (0x243F6A88, 0x85A308D3)  # of the key
# PyTorch's libraries are read from the disk, and its compiler starts, while nothing is timed.
WARM_UP = "import torch; torch.compile(torch.neg)(torch.ones(8, device='cuda'))"

Function = Callable[..., Any]


def operations() -> dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Function]]]:
    """Each operation of the kernels: its arrays, and its function given an implementation."""
    noisy, spec = NEAREST.replace(noise_fn=NOISE["PhiloxUniform"]), NEAREST.spec()
    to_int, partial = quantize_to_int, functools.partial
    wrap = functools.partial(jax.random.wrap_key_data, impl="threefry2x32")
    return {
        "quantize": (("x",), lambda how: partial(quantize, numerics=NEAREST, **how)),
        "quantize to int8": (("x",), lambda how: partial(to_int, numerics=NEAREST, **how)),
        "quantize, noise drawn": (("x", "words"), lambda how: lambda x, w: quantize(x, noisy, key=wrap(w), **how)),
        "quantize to int8, noise drawn": (
            ("x", "words"),
            lambda how: lambda x, w: to_int(x, noisy, key=wrap(w), **how),
        ),
        "quantize, noise read": (
            ("x", "noise"),
            lambda how: lambda x, noise: _operations.quantize(x, noise, spec, **how),
        ),
        "quantize with mask": (("x",), lambda how: lambda x: _operations.quantize_with_mask(x, None, spec, **how)),
        "clip gradient from mask": (("g", "mask"), lambda how: partial(_operations.clip_gradient_from_mask, **how)),
        "clip gradient from x": (("g", "x"), lambda how: partial(_operations.clip_gradient_from_x, spec=spec, **how)),
    }


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
    count = 0
    for a, b in zip(map(np.asarray, jax.tree.leaves(found)), jax.tree.leaves(expected), strict=True):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            count += max(a.size, b.size)
            continue
        bits = np.dtype(f"u{a.dtype.itemsize}")
        count += int(np.count_nonzero((a.view(bits) != b.view(bits)) & ~((a != a) & (b != b))))
    return count


def compiled(function: Function, given: tuple[Any, ...]) -> Function:
    """The program of a kernel."""
    return jax.jit(function).lower(*given).compile()


def jobs(size: int, names: tuple[str, ...], threads: int) -> Iterator[tuple[dict[str, str], Callable[[], Any]]]:
    """Every kernel, with what compares it; if there are threads, several compile ahead, as this takes most of it."""
    pool = ThreadPoolExecutor(threads) if threads else None
    for dtype in ("bfloat16", "float32", *(d for d in KERNEL_DTYPES if d not in ("bfloat16", "float32"))):
        arrays = inputs(size, dtype)
        for operation, (takes, make) in operations().items():
            given = tuple(arrays[name] for name in takes)
            expected = functools.cache(functools.partial(reference, make(how("reference")), *given))
            if pool:
                pool.submit(expected)
            for name in names:
                program = functools.cache(functools.partial(compiled, make(how(name)), given))
                ahead = pool.submit(program) if pool else None

                def compare(program: Any = program, ahead: Any = ahead, given: Any = given, expected: Any = expected):
                    run = ahead.result() if ahead else program()
                    count = differing(jax.block_until_ready(run(*given)), expected())
                    return {"wrong": f"{count} elements differ" if count else ""}

                yield {"implementation": name, "operation": operation, "dtype": dtype}, compare


def main() -> None:
    """Runs the step."""
    task = Task.given()
    if not task.rehearsal:
        subprocess.run(["nvidia-smi"], timeout=5, check=False)
        if importlib.util.find_spec("torch") and not task.start:
            subprocess.Popen([sys.executable, "-c", WARM_UP])  # which ends with this step
    threads = 0 if task.start else min(8, machine.cores())
    size = REHEARSAL_SIZE if task.rehearsal else SIZE
    Rows(task, store.RUN, "kernels").run(jobs(size, here(machine.platform_name(), task.rehearsal), threads))
    steps.end()


if __name__ == "__main__":
    main()
