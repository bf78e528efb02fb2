"""The streams of 16-bit draws and their noise in plain NumPy, written for the tests."""

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


def hashed_words(blocks: list[int], key: tuple[int, int]) -> np.ndarray:
    """The words of `HashUniform`'s blocks, uint32, as `generators/hashed.py` describes them."""
    found = []
    for high in sorted({block >> 32 for block in blocks}):
        a, b = (int(word) for word in philox4x32(np.asarray([[high, 0, 0, 0x494E5448]], np.uint32), key)[0, :2])
        w = np.asarray([(block & 0xFFFFFFFF) ^ a for block in blocks if block >> 32 == high], np.uint64)
        x = (w ^ w >> np.uint64(17)) * np.uint64(0xED5AD4BB) & LOW
        x = (x ^ x >> np.uint64(11) ^ np.uint64(b)) * np.uint64(0xAC4C1B51) & LOW
        x = (x ^ x >> np.uint64(15)) * np.uint64(0x31848BAB) & LOW
        found.append(x ^ x >> np.uint64(14) ^ w)
    return np.concatenate(found).astype(np.uint32)


def hashed(n: int, key: tuple[int, int], first: int = 0) -> np.ndarray:
    """n draws of `HashUniform`, uint16, from the element numbered `first`; the numbers do not pass 2**64."""
    blocks = list(range(first // 2, (first + max(n, 1) - 1) // 2 + 1))
    return hashed_words(blocks, key).astype("<u4").view("<u2")[first % 2 :][:n]


def noise_of(draws: np.ndarray) -> np.ndarray:
    """The noise of 16-bit draws: every number of the sum is exact in float64, and the result in float32."""
    return ((draws.astype(np.float64) + 0.5) / 65536 - 0.5).astype(np.float32)


def uniform_hash(shape: tuple[int, ...], key: tuple[int, int], first: int = 0) -> np.ndarray:
    """The noise of `HashUniform`, float32, of consecutive elements, the first of them numbered `first`."""
    return noise_of(hashed(math.prod(shape), key, first)).reshape(shape)


def uniform(shape: tuple[int, ...], key: tuple[int, int], first_block: int = 0) -> np.ndarray:
    """The noise of `PhiloxUniform`, float32."""
    return noise_of(draws(math.prod(shape), key, first_block)).reshape(shape)


def seed(key: tuple[int, int], first: int = 0) -> np.ndarray:
    """What an implementation takes in the place of noise, for an array whose first element has a number."""
    return np.asarray([*key, first % 2**32, first >> 32], np.uint32)
