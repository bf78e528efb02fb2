"""Noise that turns rounding into stochastic rounding: uniform, centred, one bucket wide.

Added before rounding to the nearest bucket, it makes the result unbiased: x = 0.3 becomes 1 three times in ten.
`IntNumerics.symmetric(8, noise_fn=PhiloxUniform())` draws it in the same pass that rounds. Each noise function can also
be called, `noise_fn(shape, key)`, and gives the numbers that the pass adds, bit for bit.

How unbiased it is depends on x too, because `x + noise` is a float and is rounded itself. The error of the mean is at
most `r + ulp / 2`. Here `r` is the resolution that each class states, and `ulp` is the distance between neighbouring
floats at |x| + 1/2 in the dtype of the sum. This holds for every x that is not clipped. The error of the chance to
round up has the same bound.

In float32 ulp is `2**(floor(log2(|x| + 1/2)) - 23)`. So with 16 bits of noise, where `r = 2**-17`, the mean is right to
`2**-16` up to 255 buckets and to `2**-15` up to 511; at 1,000,001.25 it is off by `2**-5`. A whole number leaves its
bucket with a chance of up to an ulp: 20,001.0 in `2**-9` of the draws, as often up as down. Where the sum is rounded to
bfloat16 or float16 (`noise_dtype=None`), add half an ulp of that dtype.
"""

import abc
import dataclasses
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from . import _checks, _operations, _seeds, _shape_checks
from .kernels import Draw, Generator
from .kernels.generators import noise


class NoiseFn(Protocol):
    """A function that draws noise: any callable with two positional arguments.

    It is called as `noise_fn(shape, key)` with the shape of x, and returns real numbers, in buckets, whose shape
    broadcasts to that of x (a dimension of 1 shares one draw along that axis). Uniform noise in [-0.5, 0.5) makes
    rounding unbiased; `jax.random.uniform` without the `- 0.5` below would round up.

    To a compiled function that takes the numerics as an argument, two noise functions are one value if they are equal.
    So are lambdas of the same line that read nothing but their arguments and modules, and `functools.partial` of the
    same function with equal arguments. Any other function that is made anew at each call, such as one that closes over
    values, is another value each time, and compiles again: make it once, or bind the values with `functools.partial`.

    Example:
        >>> import jax
        >>> def noise_fn(shape, key):
        ...     return jax.random.uniform(key, shape) - 0.5
    """

    def __call__(self, shape: tuple[int, ...], key: jax.Array, /) -> jax.Array:
        """Draws noise for an array of `shape`."""
        ...


class Seeded(NamedTuple):
    """Noise that is still to be drawn: what, and from which seed (see `kernels.Draw`)."""

    draw: Draw
    seed: jax.Array


class DrawnInPass(abc.ABC):
    """A noise function whose numbers an implementation can draw while it quantizes."""

    @abc.abstractmethod
    def seeded(self, shape: tuple[int, ...], key: jax.Array) -> Seeded | None:
        """The draw and its seed, or None if the noise must be made as an array first."""

    def __call__(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        """The noise for an array of `shape`.

        Args:
            shape: The shape of x.
            key: One key, typed (`jax.random.key`) or legacy uint32.

        Returns:
            float32 of `shape`, with 1 for the axes along which a draw is shared.

        Raises:
            TypeError, ValueError: The shape is not a shape, the key is not a key, or x does not have an axis to share.
        """
        shape, key = _shape_checks.shape(shape), _checks.key(key)
        seeded = self.seeded(shape, key)
        return self._made(shape, key) if seeded is None else _operations.drawn(*seeded)

    def _made(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        """The noise of keys for which there is no seed."""
        raise NotImplementedError(
            f"{type(self).__name__} draws no noise for this key: define `__call__`, or return a seed from `seeded`"
        )


@dataclasses.dataclass(frozen=True)
class CounterBased(DrawnInPass):
    """Noise of a generator in `kernels.generators`: that of an element depends on the key and on its number alone.

    Attributes:
        generator: Its name in `kernels.generators.TABLE`.
        noise_sharing_axes: Axes of x along which one draw is shared.
    """

    generator: ClassVar[Generator]

    noise_sharing_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        remedy = "give the axes along which one draw is shared, as in (0,)"
        axes = _shape_checks.sequence_of_integers("noise_sharing_axes", self.noise_sharing_axes, remedy)
        object.__setattr__(self, "noise_sharing_axes", axes)

    def seeded(self, shape: tuple[int, ...], key: jax.Array) -> Seeded | None:
        """See `DrawnInPass`."""
        return Seeded(Draw(self.generator, self._shared(shape)), _seeds.of_key(key))

    def _shared(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return _shape_checks.shared_shape(shape, self.noise_sharing_axes)


@dataclasses.dataclass(frozen=True)
class PhiloxUniform(CounterBased):
    """Uniform noise from Philox4x32-10, a published generator, drawn in the pass itself.

    Reproducible to the bit: the noise of an element depends on the key and on its row-major index in the array, and not
    on the device, the sharding, `jit`, the dtype or the implementation. Under `vmap` it depends on the index in one
    example, as for `jax.random`.

    Distribution: (h + 0.5) / 65536 - 0.5 with h uniform in 0 ... 65535: 65,536 values in steps of 2**-16, symmetric
    about 0, none of them 0 or +-0.5. Resolution: 2**-17. The mean is right to that plus half an ulp of the sum, which
    in float32 is 2**-17 or more from 128 buckets on (see `intnumerics.stochastic_rounding`).

    The words of a key that has two, as threefry's do, are used as they are; of another, `jax.random.bits(key, (2,))`
    are.

    Attributes:
        noise_sharing_axes: Axes of x along which one draw is shared.

    Raises:
        TypeError: noise_sharing_axes is not a sequence of integers.

    Source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from intnumerics import IntNumerics, quantize
        >>> int8 = IntNumerics.symmetric(8, noise_fn=PhiloxUniform())
        >>> x = jnp.full(10_000, 0.3)
        >>> y = quantize(x, int8, key=jax.random.key(0))
        >>> sorted(set(y.tolist())), bool(abs(y.mean() - 0.3) < 0.02)
        ([0.0, 1.0], True)
        >>> PhiloxUniform()((2,), jax.random.key(42)) * 65536  # 0x410b and 0x5d3c, as centred numbers
        Array([-16116.5,  -8899.5], dtype=float32)
    """

    generator: ClassVar[Generator] = "philox"


@dataclasses.dataclass(frozen=True)
class HashUniform(CounterBased):
    """Uniform noise from a hash of the index, drawn in the pass itself: the fastest reproducible noise here.

    Reproducible to the bit, as `PhiloxUniform` is: the noise of an element depends on the key and on its row-major
    index in the array alone. It takes one hash of 32 bits, three products, for two elements.

    What it is not: a published generator, or a cryptographic one. The hash is this package's own composition of known
    parts, one word serves two elements, and its evidence is what it passed: SmallCrush and Crush of TestU01, and
    PractRand (`tools/results`). If you want a published generator, use `PhiloxUniform`.

    Distribution: that of `PhiloxUniform`, and its resolution.

    The words of a key that has two, as threefry's do, are used as they are; of another, `jax.random.bits(key, (2,))`
    are.

    Attributes:
        noise_sharing_axes: Axes of x along which one draw is shared.

    Raises:
        TypeError: noise_sharing_axes is not a sequence of integers.

    Source: `triple32` of C. Wellons' hash-prospector, keyed with two words of Philox4x32-10.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from intnumerics import IntNumerics, quantize
        >>> int8 = IntNumerics.symmetric(8, noise_fn=HashUniform())
        >>> x = jnp.full(10_000, 0.3)
        >>> y = quantize(x, int8, key=jax.random.key(0))
        >>> sorted(set(abs(y).tolist())), bool(abs(y.mean() - 0.3) < 0.02)
        ([0.0, 1.0], True)
    """

    generator: ClassVar[Generator] = "hash"


class _FromJax(CounterBased):
    """The bits of `jax.random`, drawn in the pass for threefry keys under `jax_threefry_partitionable`, JAX's default.

    For any other key, or without that setting, `jax.random` makes an array of noise first.
    """

    def seeded(self, shape: tuple[int, ...], key: jax.Array) -> Seeded | None:
        """See `DrawnInPass`."""
        is_drawn = _seeds.impl_of(key) == "threefry2x32" and _checks.SETTINGS.jax_threefry_partitionable
        return super().seeded(shape, key) if is_drawn else None


@dataclasses.dataclass(frozen=True)
class JaxUniform(_FromJax):
    """`jax.random.uniform(key, shape) - 0.5`, the same bits, faster: AQT's class of that name.

    For threefry keys it is one expression that XLA fuses with the quantization, and on a CPU one that uses vector
    registers and all cores. It takes a threefry block for each element, where `PhiloxUniform` takes a block for eight.

    Distribution: uniform in [-0.5, 0.5), 2**23 values in steps of 2**-23, whose mean is -2**-24. Resolution: 2**-23.
    The mean is right to that plus half an ulp of the sum, which in float32 is 2**-23 or more from 2 buckets on (see
    `intnumerics.stochastic_rounding`).

    Attributes:
        noise_sharing_axes: Axes of x along which one draw is shared.

    Raises:
        TypeError: noise_sharing_axes is not a sequence of integers.

    Source: `JaxUniform` in AQT (`aqt/jax/v2/stochastic_rounding.py`).

    Example:
        >>> import jax
        >>> key = jax.random.key(0)
        >>> bool((JaxUniform()((2, 3), key) == jax.random.uniform(key, (2, 3)) - 0.5).all())
        True
    """

    generator: ClassVar[Generator] = "threefry_23_bits"

    def _made(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, self._shared(shape), jnp.float32) - jnp.float32(0.5)


@dataclasses.dataclass(frozen=True)
class RandomCenteredUniform(_FromJax):
    """16 bits of `jax.random` per element, centred: AQT's class of that name, and FJFormer's `random_centered_uniform`.

    The same bits as theirs, faster. The cost is that of `JaxUniform`.

    Distribution: bits * 2**-16 + 2**-17 - 0.5, that of `PhiloxUniform`, and its resolution.

    Attributes:
        noise_sharing_axes: Axes of x along which one draw is shared.

    Raises:
        TypeError: noise_sharing_axes is not a sequence of integers.

    Source: `RandomCenteredUniform` in AQT (`aqt/jax/v2/stochastic_rounding.py`).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> key = jax.random.key(0)
        >>> bits = jax.random.bits(key, (2, 3), jnp.uint16)
        >>> bool((RandomCenteredUniform()((2, 3), key) == bits * 2.0**-16 + 2.0**-17 - 0.5).all())
        True
    """

    generator: ClassVar[Generator] = "threefry_16_bits"

    def _made(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        return noise.from_16_bits(jax.random.bits(key, self._shared(shape), jnp.uint16).astype(jnp.uint32))


@dataclasses.dataclass(frozen=True)
class HardwareUniform(DrawnInPass):
    """Uniform noise from the generator that a TPU has in hardware: nearly free, and not reproducible elsewhere.

    What is lost: the noise depends on the chip's generation, on how the kernel splits the array into blocks, and so on
    its shape, its sharding and the version of this package. The generator is not documented, and this package has not
    tested its quality. The same program on the same chips gives the same bits.

    Distribution: i * 2**-32 in float32, with i uniform over the integers of 32 bits: [-0.5, 0.5], either end with a
    chance of about 2**-26. Resolution: 2**-25. The mean is right to that plus half an ulp of the sum (see
    `intnumerics.stochastic_rounding`).

    Raises:
        ValueError: When it is used on a platform that is not a TPU, or by an implementation that is not `"pallas"`.

    Source: `prng_seed` and `prng_random_bits` of Pallas for TPU.

    Example:
        >>> import jax
        >>> HardwareUniform()((2, 3), jax.random.key(0))  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ValueError: HardwareUniform needs a TPU ...
    """

    def seeded(self, shape: tuple[int, ...], key: jax.Array) -> Seeded:
        """See `DrawnInPass`."""
        return Seeded(Draw("hardware", shape), _seeds.of_key(key))


# The noise classes of the package: they run no code of the user, and are stored with exported programs.
NOISE_CLASSES = (HashUniform, PhiloxUniform, JaxUniform, RandomCenteredUniform, HardwareUniform)
