"""Writes the stream of random words as raw bytes to stdout, for a battery of statistical tests to read.

    python -m tools.stream --bytes 4GiB | dieharder -g 200 -d 8

The bytes are the draws that the elements of one array have, as little-endian 16-bit numbers; read as 32-bit numbers
they are the words of Philox's blocks. How many were written is told on stderr at the end.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from intnumerics.kernels import Draw
from intnumerics.kernels.generators import philox

BLOCKS = 1 << 18  # of one piece: 4 MiB
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@jax.jit
def draws(seed: jax.Array) -> jax.Array:
    """The draws of `BLOCKS` blocks, uint16, for a seed as `Draw` describes it, drawn as the package does."""
    return philox.draws(Draw("philox", (BLOCKS * philox.DRAWS,)), seed).astype(jnp.uint16)


def pieces(key: tuple[int, int], first_block: int = 0) -> Iterator[np.ndarray]:
    """The draws of a key without end, `BLOCKS` blocks at a time, little-endian."""
    while True:
        element = first_block * philox.DRAWS
        seed = np.asarray([*key, element % 2**32, element >> 32], np.uint32)
        yield np.asarray(draws(seed)).astype("<u2", copy=False)
        first_block = (first_block + BLOCKS) % 2**61


def write(descriptor: int, key: tuple[int, int], first_block: int, limit: int) -> int:
    """Writes up to `limit` bytes; returns how many it wrote until then or until the reader had enough."""
    written = 0
    for piece in pieces(key, first_block):
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


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.stream", description=__doc__.splitlines()[0])
    # fmt: off
    parser.add_argument("--bytes", type=size, metavar="SIZE", default=size("1TiB"),
                        help="how many at most, such as 64MiB (default: 1TiB)")
    parser.add_argument("--key", type=number, nargs=2, metavar="WORD", default=(0, 42),
                        help="the two words of the key (default: 0 42, as jax.random.key(42) has)")
    parser.add_argument("--first-block", type=number, metavar="N", default=0,
                        help="the block to begin at (default: 0)")
    # fmt: on
    options = parser.parse_args()
    written = write(sys.stdout.fileno(), tuple(options.key), options.first_block, options.bytes)
    print(f"{written} bytes ({written / UNITS['GiB']:.2f} GiB) written", file=sys.stderr)


if __name__ == "__main__":
    main()
