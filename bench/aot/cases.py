"""What is compiled: each operation of each implementation on a large array, then other shapes, results and noise."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from bench import baselines
from bench.aot.case import BOTH_KINDS, FLOOR, H100, RESULTS, TPUS, Case

FLOATS = ("float32", "bfloat16", "float16")
CASTS = (("float32", "bfloat16"), ("float32", "float8_e4m3fn"), ("bfloat16", "float8_e4m3fn"))

SIZE, ROWS = 1 << 24, (128 * 128, 1024)
LARGE = (1 << 18, 1024)  # larger than the memory of a TPU's core, where XLA could put a temporary array
RAGGED = ((1,), (10_000_019,), (3, 50257))
ROW_FEATURES = (1024, 4096, 8192, 1000)  # elements that share a scale, in the report


def cases(platform: str) -> Iterator[Case]:
    """The cases of a platform: `"cuda"`, `"jax_triton"` or `"tpu"`."""
    if platform == "tpu":
        yield from _tpu()
        return
    for who in ("pallas_triton", "pallas_mosaic_gpu") if platform == "cuda" else (platform,):
        yield from _gpu_kernels(who)
    if platform == "cuda":
        xla = functools.partial(Case, "xla", shape=(SIZE,), chips=H100)
        yield from _operations(xla, FLOATS)
        yield from _gpu_streams(xla)
        yield xla(to="int8", noise="JaxUniform")
        yield from (xla(to="int8", noise=noise, chain=True) for noise in ("Philox", "hash"))
        yield from _casts(xla)
        yield from _formulas((SIZE,), H100)
        yield from _rows_in_xla(SIZE, H100)


def _operations(make: Callable[..., Case], dtypes: tuple[str, ...]) -> Iterator[Case]:
    """Every operation in some dtypes."""
    what: tuple[dict[str, Any], ...] = ({}, {"to": "int8"}, {"note": FLOOR}, {"mask": True}, {"noise": "noise array"})
    for dtype in dtypes:
        for one in (*what, {"backward": "mask"}, {"backward": "x"}):
            yield make(dtype=dtype, **one)


def _casts(make: Callable[..., Case], casts: tuple[tuple[str, str], ...] = CASTS) -> Iterator[Case]:
    """Stochastic casts with the noise of the hash."""
    for dtype, to in casts:
        yield make(dtype=dtype, to=to, noise="hash", is_cast=True)


def _gpu_kernels(who: str) -> Iterator[Case]:
    make, large = (functools.partial(Case, who, shape=(n,), chips=H100) for n in (SIZE, (1 << 31) + 5))
    yield from _operations(make, FLOATS)
    yield from _casts(make, CASTS[:1])
    yield make(to="int16")
    yield make(to="int32")
    yield make(noise="shared noise", shape=(SIZE // 4096, 4096))
    yield large(mask=True, note="2**31 + 5")
    yield large(backward="mask", note="2**31 + 5")
    yield make(noise="shared noise", shape=((1 << 20) + 1, 4096), note="2**32 + 4096")
    for shape in RAGGED:
        yield make(dtype="float32", mask=True, shape=shape, note="x".join(map(str, shape)))
    yield from _gpu_streams(make)
    yield make(noise="Philox", mask=True)
    yield make(to="int32", noise="Philox")
    yield make(noise="Philox", shape=(64, SIZE // 64), batch=1, note="64 seeds")
    yield large(noise="Philox", note="2**31 + 5")
    if who != "jax_triton":  # which does not have it
        yield from _by_absmax(who)


def _by_absmax(who: str) -> Iterator[Case]:
    """A scale for each row, or each block of 128 elements; rows of 65,536 elements are read twice."""
    for dtype, to in (("bfloat16", "int8"), ("float32", "int8"), ("bfloat16", "")):
        for noise in ("", "Philox"):
            make = functools.partial(Case, who, chips=H100, dtype=dtype, to=to, noise=noise)
            for features in (1024, 4096, 8192, 1000, 65536):
                yield make(shape=(SIZE // features, features), slices=features, note=f"rows of {features}")
            yield make(shape=(SIZE // 4096, 4096), slices=128, note="blocks of 128")
    yield Case(who, (SIZE // 4096, 4096), H100, to="int8", noise="hash", slices=4096, note="rows of 4096")


def _gpu_streams(make: Callable[..., Case]) -> Iterator[Case]:
    for noise in ("Philox", "hash"):
        some = [make(dtype=dtype, to=to, noise=noise) for dtype in FLOATS for to in ("", "int8")]
        some += [make(to="int8", noise=noise, shape=(4096, SIZE // 4096), whole=(8192, SIZE // 2048), note="a part")]
        yield from (one for one in some if noise != "hash" or not one.is_kernel or one.tested_on())


def _tpu() -> Iterator[Case]:
    pallas, some = (functools.partial(Case, "pallas", shape=ROWS, chips=chips) for chips in (TPUS, BOTH_KINDS))
    yield from _operations(pallas, FLOATS)
    yield some(to="int8", mask=True)
    yield some(to="int16")
    yield some(to="int32")
    yield some(noise="shared noise")
    for dtype in ("bfloat16", "float16"):
        yield some(dtype=dtype, shape=LARGE, note="262144x1024")
    for shape in ((SIZE,), *RAGGED, (512, 197, 768), (7, 5, 130)):
        note = "x".join(map(str, shape))
        yield some(to="int8", mask=True, shape=shape, note=note)
        yield some(backward="mask", shape=shape, note=note)
    xla = functools.partial(Case, "xla", shape=LARGE)
    for noise in ("Philox", "hardware noise"):
        for dtype, to in RESULTS:
            yield pallas(dtype=dtype, to=to, noise=noise)
        for shape, note in (((SIZE,), ""), ((20_000, 1003), ""), ((8, 2048, 1024), "batched ")):
            named = note + "x".join(map(str, shape))
            yield some(to="int8", noise=noise, mask=True, shape=shape, note=named, batch=bool(note))
    for dtype, to in RESULTS:
        yield pallas(dtype=dtype, to=to, noise="hash")
    for shape in ((SIZE,), (20_000, 1003)):
        yield some(to="int8", noise="hash", shape=shape, note="x".join(map(str, shape)))
    yield from _casts(functools.partial(xla, chips=BOTH_KINDS), CASTS[:1])
    yield from _casts(some, CASTS[2:])
    for noise in ("Philox", "hash"):
        yield xla(chips=TPUS, dtype="float32", noise=noise)
    for noise in ("Philox", "hash", "JaxUniform"):
        yield xla(chips=TPUS, to="int8", noise=noise)
    for make in (some, functools.partial(xla, chips=BOTH_KINDS)):
        part: dict[str, Any] = {"shape": (ROWS[0] // 4, ROWS[1]), "whole": (ROWS[0] // 2, 8 * ROWS[1])}
        yield make(to="int8", noise="Philox", note="a part", **part)
    yield from _operations(functools.partial(xla, chips=TPUS), FLOATS[:2])
    yield from _formulas(LARGE, TPUS)
    yield from _tpu_by_absmax()
    yield from _rows_in_xla(LARGE[0] * LARGE[1], TPUS)


def _tpu_by_absmax() -> Iterator[Case]:
    """A scale for each row, or each block of a row."""

    def make(slices: int, columns: int = 0, **fields: Any) -> Case:
        columns, note = columns or slices, f"blocks of {slices}" if columns else f"rows of {slices}"
        shape = (SIZE // columns, columns)
        return Case("pallas", chips=TPUS, shape=shape, slices=slices, note=note, **fields)

    for dtype, to in (("bfloat16", "int8"), ("float32", "int8"), ("bfloat16", "")):
        kind: dict[str, Any] = {"dtype": dtype, "to": to}
        for features in (1024, 4096, 8192, 1000):
            yield make(features, **kind)
        yield make(128, 4096, **kind)
        for features in (4096, 1000):
            yield make(features, noise="Philox", **kind)
        yield make(128, 4096, noise="Philox", **kind)
    for noise in ("hash", "hardware noise"):
        yield make(4096, to="int8", noise=noise)
    yield make(32, 4096, to="int8")


def _rows_in_xla(size: int, chips: tuple[str, ...]) -> Iterator[Case]:
    """What the kernels that quantize by the largest magnitude of a row are compared with."""
    for features in ROW_FEATURES:
        for who in ("xla", "formula"):
            of_rows: dict[str, Any] = {"shape": (size // features, features), "slices": features, "to": "int8"}
            make = functools.partial(Case, who, chips=chips, note=f"rows of {features}", **of_rows)
            for noise in ("", "Philox") if who == "xla" else ("", *baselines.GENERATORS):
                if not noise or features == ROW_FEATURES[1]:
                    yield make(noise=noise)


def _formulas(shape: tuple[int, ...], chips: tuple[str, ...]) -> Iterator[Case]:
    """FJFormer's formula without noise, with each noise that a user can draw, and its backward."""
    formula = functools.partial(Case, "formula", shape=shape, chips=chips)
    for dtype, to in RESULTS:
        yield formula(dtype=dtype, to=to)
        for noise in baselines.GENERATORS:
            if (dtype, to) != ("bfloat16", ""):  # it casts the sum back to bfloat16: the noise costs the same to int8
                yield formula(dtype=dtype, to=to, noise=noise)
    yield formula(backward="x")
