"""What is compiled: each operation of each implementation on a large array, then other shapes, results and noise."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bench import baselines
from intnumerics.kernels import TABLE, Draw, Implementation, QuantSpec, Scaling, packed_shape

NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
TO_127 = Scaling(127.0, fits=True)
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
FLOOR = "floor + 0.5"
GENERATORS: Any = {"Philox": "philox", "hash": "hash", "hardware noise": "hardware", "JaxUniform": "threefry_23_bits"}
FLOATS = ("float32", "bfloat16", "float16")
RESULTS = (("float32", ""), ("bfloat16", ""), ("bfloat16", "int8"))

SIZE, ROWS = 1 << 24, (128 * 128, 1024)
LARGE = (1 << 18, 1024)  # larger than the memory of a TPU's core, where XLA could put a temporary array
RAGGED = ((1,), (10_000_019,), (3, 50257))
ROW_FEATURES = (1024, 4096, 8192, 1000)  # elements that share a scale, in the report
H100, TPUS = ("h100",), ("v4", "v5e", "v5p", "v6e")
BOTH_KINDS = ("v5e", "v6e")  # without bfloat16 arithmetic, and with it


@dataclasses.dataclass(frozen=True)
class Case:
    """A program that is compiled and counted."""

    who: str  # an implementation, or "formula", FJFormer's
    shape: tuple[int, ...]
    chips: tuple[str, ...]
    dtype: str = "bfloat16"  # of x
    to: str = ""  # the dtype of the result, if it is another
    noise: str = ""  # a key of `GENERATORS`, one of the formula's, "noise array", or "shared noise"
    mask: bool = False  # whether the packed mask is a second result
    backward: str = ""  # "x" or "mask", if it is the derivative, from one of them
    note: str = ""  # what its name ends with
    batch: int = 0  # how many axes are of examples that have a seed each
    whole: tuple[int, ...] = ()  # the shape of the array that x is a part of, if it is
    chain: bool = False  # whether gelu comes before
    slices: int = 0  # how many elements share a scale, if x is quantized by their largest magnitude

    @property
    def name(self) -> str:
        beside = " and ".join(filter(None, (self.noise, "mask" * self.mask)))
        what = f"quantize {self.dtype}" + f" -> {self.to}" * bool(self.to) + " by absmax" * bool(self.slices)
        what += f" with {beside}" * bool(beside)
        what = f"clip gradient from {self.backward}, {self.dtype}" if self.backward else what
        return f"{self.who}: {'chain of gelu and ' * self.chain}{what}" + f", {self.note}" * bool(self.note)

    @property
    def is_kernel(self) -> bool:
        """Whether it is one of our kernels, and not what they are compared with."""
        return self.who not in ("xla", "formula")

    @property
    def spec(self) -> QuantSpec:
        """What an implementation is told."""
        to, drawn = jnp.dtype(self.to) if self.to else None, GENERATORS.get(self.noise)
        draw = Draw(drawn, self.shape[self.batch :], self.whole) if drawn else None
        spec = HALVES if self.note == FLOOR else NEAREST
        return dataclasses.replace(spec, with_mask=self.mask, integer_dtype=to, draw=draw)

    @functools.cached_property
    def function(self) -> Callable[..., Any]:
        if self.who == "formula":
            return baselines.backward if self.backward else self._formula
        row = _row(self.who, "cuda" if self.chips == H100 else "tpu")
        spec = self.spec
        if self.backward == "mask":
            return row.operation("clip_gradient_from_mask")
        if self.backward:
            clip: Any = row.operation("clip_gradient_from_x")
            return lambda g, x: clip(g, x, spec)
        if self.slices:
            by_absmax: Any = row.operation("quantize_by_absmax")
            block = self.slices if self.slices < self.shape[-1] else None
            return lambda x, noise=None: by_absmax(x, noise, spec, TO_127, block)
        quantize: Any = row.operation("quantize")
        before = (lambda x: jax.nn.gelu(x) * 16) if self.chain else (lambda x: x)
        return lambda x, noise=None: quantize(before(x), noise, spec)

    def _formula(self, x: jax.Array, words: jax.Array | None = None) -> Any:
        noise = baselines.uniform(self.noise, words, x.shape) if self.noise else None
        if self.slices:
            return baselines.by_rows(x, noise)
        y = baselines.nearest(x, noise)
        return y.astype(self.to) if self.to else y

    @property
    def avals(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        x = jax.ShapeDtypeStruct(self.shape, jnp.dtype(self.dtype))
        if self.backward:
            packed = jax.ShapeDtypeStruct(packed_shape(self.shape), jnp.uint8)
            return x, packed if self.backward == "mask" else x
        if not self.noise:
            return (x,)
        if self.noise in ("noise array", "shared noise"):
            ones = len(self.shape) - 1 if self.noise == "shared noise" else 0
            return x, jax.ShapeDtypeStruct((*(1,) * ones, *self.shape[ones:]), jnp.float32)
        return x, jax.ShapeDtypeStruct((*self.shape[: self.batch], 2 if self.who == "formula" else 4), jnp.uint32)

    def compiled(self, mesh: jax.sharding.Mesh) -> Any:
        """The program for a mesh of one device, which is set because Pallas reads the device from it."""
        sharding = jax.NamedSharding(mesh, jax.P())
        avals = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in self.avals]
        with jax.set_mesh(mesh):
            return jax.jit(self.function).trace(*avals).lower().compile()

    @property
    def elements(self) -> int:
        """How many elements a count is divided by."""
        return max(a.size for a in self.avals)

    @property
    def least_bytes_per_element(self) -> float:
        """What any form must move: each argument read once, each result written once."""
        arrays = (*self.avals, *jax.tree.leaves(jax.eval_shape(self.function, *self.avals)))
        return sum(a.size * a.dtype.itemsize for a in arrays) / self.elements

    def tested_on(self) -> tuple[str, ...]:
        """The chips for which `make test-aot` compiles it; the counts of all chips are stored.

        Most formulas are only reported. A kernel is compiled for both kinds of TPU; for one of them if it is a case of
        a shape or of float16; and for the v4 and v5p, whose code is like that of a v5e, with an int8 result or a mask.
        """
        if self.slices and not self.is_kernel:
            is_compared = self.chips == TPUS and (self.who, self.noise, self.slices) == ("xla", "", 4096)
            return BOTH_KINDS if is_compared else ()
        if self.who == "formula":
            return self.chips if self.chips == H100 and self.to and self.noise else ()
        draws = self.noise in GENERATORS
        if self.noise == "hash" and self.chips == H100 and (self.whole or (self.dtype, self.to) not in RESULTS[::2]):
            return ()
        if self.who == "xla" and self.chips == H100:
            return self.chips if draws and self.dtype != "float16" else ()
        if self.who == "xla":
            return BOTH_KINDS if self.dtype == "bfloat16" and (draws or self.mask or self.backward == "mask") else ()
        if self.chips == H100 and self.slices:
            shapes = (4096, 1000, 65536, 128) if self.noise else (self.slices,)
            to_int8 = (self.dtype, self.to) == ("bfloat16", "int8") and self.slices in shapes
            return self.chips if to_int8 or (self.noise and self.slices == 4096) else ()
        if self.chips == H100:
            return () if self.dtype == "float16" and (self.note or self.noise == "noise array") else self.chips
        if self.slices and (self.dtype, self.to) != ("bfloat16", "int8"):
            return BOTH_KINDS[:1] if self.noise and self.slices == 4096 else ()
        if self.slices:
            return BOTH_KINDS
        if self.dtype == "float16" or (self.note and self.note not in (FLOOR, "a part")):
            return BOTH_KINDS[len(self.note) % 2 :][:1]
        on_all = self.dtype == "bfloat16" and (self.to if not self.mask else self.noise == "")
        return self.chips if on_all else BOTH_KINDS


def _row(who: str, platform: str) -> Implementation:
    [row] = [row for row in TABLE if (row.name, row.platform) == (who, platform)]
    return row


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
        yield from _formulas((SIZE,), H100)
        yield from _rows_in_xla(SIZE, H100)


def _operations(make: Callable[..., Case], dtypes: tuple[str, ...]) -> Iterator[Case]:
    """Every operation in some dtypes."""
    what: tuple[dict[str, Any], ...] = ({}, {"to": "int8"}, {"note": FLOOR}, {"mask": True}, {"noise": "noise array"})
    for dtype in dtypes:
        for one in (*what, {"backward": "mask"}, {"backward": "x"}):
            yield make(dtype=dtype, **one)


def _gpu_kernels(who: str) -> Iterator[Case]:
    make, large = (functools.partial(Case, who, shape=(n,), chips=H100) for n in (SIZE, (1 << 31) + 5))
    yield from _operations(make, FLOATS)
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
