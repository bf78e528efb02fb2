"""A program that is compiled and counted."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench import baselines
from intnumerics.kernels import TABLE, Draw, FloatRounding, Implementation, QuantSpec, Scaling, packed_shape

NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
TO_127 = Scaling(127.0, fits=True)
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
FLOOR = "floor + 0.5"
GENERATORS: Any = {"Philox": "philox", "hash": "hash", "hardware noise": "hardware", "JaxUniform": "threefry_23_bits"}
RESULTS = (("float32", ""), ("bfloat16", ""), ("bfloat16", "int8"))
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
    is_cast: bool = False  # whether x is rounded to `to`, a smaller float dtype, stochastically

    @property
    def name(self) -> str:
        beside = " and ".join(filter(None, (self.noise, "mask" * self.mask)))
        does = "cast" if self.is_cast else "quantize"
        what = f"{does} {self.dtype}" + f" -> {self.to}" * bool(self.to) + " by absmax" * bool(self.slices)
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
        if self.is_cast:
            how = FloatRounding(jnp.dtype(self.to), saturates=True, by_draws=True)
            return QuantSpec(math.inf, clip=False, rounding=None, draw=draw, to_float=how)
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
        if self.is_cast:
            return self.chips
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
