"""The stream of 16-bit draws and its noise in plain NumPy, written for the tests."""

import math

import numpy as np

WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """The output, uint32 [n, 4], for counters, uint32 [n, 4]: the ten rounds as the paper's figure has them."""
    left0, right0, left1, right1 = (counter[:, i].astype(np.uint64) for i in range(4))
    for i in range(10):
        k0, k1 = (np.uint64((k + i * w) % 2**32) for k, w in zip(key, WEYL, strict=True))
        p0, p1 = left0 * np.uint64(0xD2511F53), left1 * np.uint64(0xCD9E8D57)
        left0, right0, left1, right1 = (
            (p1 >> np.uint64(32)) ^ right0 ^ k0,
            p1 & LOW,
            (p0 >> np.uint64(32)) ^ right1 ^ k1,
            p0 & LOW,
        )
    return np.stack([left0, right0, left1, right1], axis=1).astype(np.uint32)


def draws(n: int, key: tuple[int, int], first_block: int = 0) -> np.ndarray:
    """n draws, uint16, from the beginning of a block."""
    blocks = [(first_block + i) % 2**64 for i in range(-(-n // 8))]
    counter = np.asarray([[b % 2**32, b >> 32, 0, 0x494E544E] for b in blocks], np.uint32).reshape(-1, 4)
    words = philox4x32(counter, key)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=-1)
    return halves.reshape(-1)[:n].astype(np.uint16)


def uniform(shape: tuple[int, ...], key: tuple[int, int], first_block: int = 0) -> np.ndarray:
    """The noise of `PhiloxUniform`, float32: every number of the sum is exact in float64, and the result in float32."""
    h = draws(math.prod(shape), key, first_block).astype(np.float64)
    return ((h + 0.5) / 65536 - 0.5).astype(np.float32).reshape(shape)


def seed(key: tuple[int, int], first: int = 0) -> np.ndarray:
    """What an implementation takes in the place of noise, for an array whose first element has a number."""
    return np.asarray([*key, first % 2**32, first >> 32], np.uint32)
