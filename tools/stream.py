"""Writes a stream of random words as raw bytes to stdout, for a battery of statistical tests to read.

    python -m tools.stream --generator hash --stream keys --bytes 16GiB | RNG_test stdin32

A generator gives words of 32 bits for a key and the number of a block, and a stream is an order of keys and blocks. The
bytes are little-endian, so read as 16-bit numbers those of `sequential` are the draws that the elements of one array
have. How many were written is told on stderr at the end.
"""

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bench import baselines
from intnumerics.kernels.generators import hashed, philox

WORDS = 1 << 20  # of one piece
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

Words = tuple[jax.Array, ...]


# --- generators: the words of blocks, from the words of their keys and the low and high words of their numbers --------


def _philox(k0: jax.Array, k1: jax.Array, low: jax.Array, high: jax.Array) -> Words:
    zero = jnp.zeros_like(low)
    return philox.philox4x32((low, high, zero, zero + jnp.uint32(philox.DOMAIN)), (k0, k1), philox.product32)


def _hash(k0: jax.Array, k1: jax.Array, low: jax.Array, high: jax.Array) -> Words:
    return (hashed.word(low, *hashed.subkeys((k0, k1), high)),)


def _lowbias32(k0: jax.Array, k1: jax.Array, low: jax.Array, _high: jax.Array) -> Words:
    """A generator known to be bad, for a battery to turn down: see `bench/baselines.py`."""
    return (baselines.lowbias32(low, k0, k1),)


GENERATORS: dict[str, tuple[int, Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Words]]] = {  # words of a block
    "philox": (4, _philox),
    "hash": (1, _hash),
    "lowbias32": (1, _lowbias32),
}


# --- streams: the key and the block that stand at each place, both uint64, the key's first word the high one ----------


def _strided(stride: int) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    return lambda place, key: (key, place * jnp.uint64(stride))


def _reversed(place: jax.Array) -> jax.Array:
    """Numbers with their low 32 bits in reverse order."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        low, s = jnp.uint64(mask), jnp.uint64(shift)
        swapped = (place >> s & low) | (place & low) << s
        place = place & jnp.uint64(0xFFFFFFFF << 32) | swapped
    return place


STREAMS: dict[str, Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]] = {
    "sequential": _strided(1),
    "low": _strided(1),
    "high": _strided(1),
    "strided-1024": _strided(1024),
    "strided-2048": _strided(2048),
    "reversed": lambda place, key: (key, _reversed(place)),
    "keys": lambda place, key: (key + place, jnp.zeros_like(place)),
    "interleaved": lambda place, key: (key + place % jnp.uint64(256), place // jnp.uint64(256)),
}
HALF = {"low": 0, "high": 16}  # the shift that gives the half of each word that such a stream has, as uint16


def first_key(stream: str) -> tuple[int, int]:
    """The key that a stream has, or begins with, if none is given: `jax.random.key(42)`, or `jax.random.key(0)`."""
    return (0, 0 if stream in ("keys", "interleaved") else 42)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _piece(generator: str, stream: str, key: jax.Array, first: jax.Array) -> jax.Array:
    """`WORDS` words, or halves of words, from the place `first` on."""
    block_size, words_of = GENERATORS[generator]
    place = first + jnp.arange(WORDS // block_size, dtype=jnp.uint64)
    keys, block = STREAMS[stream](place, key)
    pairs = [jnp.broadcast_to(number, place.shape) for number in (keys >> jnp.uint64(32), keys)]
    k0, k1, low, high = (word.astype(jnp.uint32) for word in (*pairs, block, block >> jnp.uint64(32)))
    words = jnp.stack(words_of(k0, k1, low, high), 1).reshape(-1)
    return words if stream not in HALF else (words >> jnp.uint32(HALF[stream])).astype(jnp.uint16)


def pieces(generator: str, stream: str, key: tuple[int, int], first: int = 0) -> Iterator[np.ndarray]:
    """A stream without end, in arrays of little-endian numbers."""
    while True:
        with jax.enable_x64(True):
            piece = np.asarray(_piece(generator, stream, np.uint64(key[0] << 32 | key[1]), np.uint64(first)))
        yield piece.astype(piece.dtype.newbyteorder("<"), copy=False)
        first = (first + WORDS // GENERATORS[generator][0]) % 2**64


def write(descriptor: int, source: Iterator[np.ndarray], limit: int) -> int:
    """Writes up to `limit` bytes; returns how many it wrote until then or until the reader had enough."""
    written = 0
    for piece in source:
        rest = memoryview(piece).cast("B")[: limit - written]
        while rest:
            try:
                count = os.write(descriptor, rest)
            except BrokenPipeError:
                return written
            written, rest = written + count, rest[count:]
        if written == limit:
            return written
    return written


def size(text: str) -> int:
    """A number of bytes, such as `4GiB`."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]iB|)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes such as 4096, 64MiB or 4GiB")
    return int(found[1]) * UNITS[found[2]]


def number(text: str) -> int:
    """A number in decimal, or in hexadecimal after 0x."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number such as 42 or 0x2a") from None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which generator, from where on."""
    # fmt: off
    parser.add_argument("--generator", choices=GENERATORS, default="philox",
                        help="lowbias32 is a bad one, to show what a battery finds (default: philox)")
    parser.add_argument("--key", type=number, nargs=2, metavar="WORD",
                        help="the two words of the key, or of the first of many (default: 0 42, as "
                             "jax.random.key(42) has; 0 0 for keys and interleaved)")
    parser.add_argument("--first-block", type=number, metavar="N", default=0,
                        help="the block of the stream to begin at (default: 0)")
    # fmt: on


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.stream", description=__doc__.splitlines()[0])
    add_options(parser)
    # fmt: off
    parser.add_argument("--stream", choices=STREAMS, default="sequential",
                        help="sequential: block after block; low, high: that half of each word alone; strided-N: each "
                             "N-th block; reversed: the block's number has the 32 bits of a counter in reverse; keys: "
                             "the first block of key after key; interleaved: a block of each of 256 keys in turn "
                             "(default: sequential)")
    parser.add_argument("--bytes", type=size, metavar="SIZE", default=size("1TiB"),
                        help="how many at most, such as 64MiB (default: 1TiB)")
    # fmt: on
    options = parser.parse_args()
    key = tuple(options.key or first_key(options.stream))
    source = pieces(options.generator, options.stream, key, options.first_block)
    written = write(sys.stdout.fileno(), source, options.bytes)
    print(f"{written} bytes ({written / UNITS['GiB']:.2f} GiB) written", file=sys.stderr)


if __name__ == "__main__":
    main()
