"""Tests of randomness, each a function of draws that gives p-values, and what they take for a failure."""

import numpy as np
from scipy import special, stats

ALPHA = 1e-6  # of a whole family of p-values: keys are fixed, so a failure is a fact and not bad luck


def accept(p_values: np.ndarray) -> bool:
    """Whether no p-value of a family is too small, by Bonferroni."""
    p = np.atleast_1d(p_values)
    return bool(p.min() >= ALPHA / p.size)


def two_sided(z: np.ndarray) -> np.ndarray:
    """The p-values of standard normal numbers."""
    return special.erfc(np.abs(z) / np.sqrt(2))


def uniformity(counts: np.ndarray) -> np.ndarray:
    """Chi-square of counts that should be equal; too even is as bad as too uneven."""
    statistic = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    law = stats.chi2(counts.size - 1)
    return np.asarray(2 * min(law.cdf(statistic), law.sf(statistic)))


def bit_frequencies(draws: np.ndarray) -> np.ndarray:
    """How often each of the 16 bits is set."""
    ones = np.asarray([int((draws >> np.uint16(bit) & np.uint16(1)).sum(dtype=np.int64)) for bit in range(16)])
    return two_sided((ones - draws.size / 2) / np.sqrt(draws.size / 4))


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The correlation along the last axis of draws that should be independent and uniform."""
    deviation = np.sqrt((65536.0**2 - 1) / 12)
    u, v = ((x.astype(np.float32) - np.float32(32767.5)) / np.float32(deviation) for x in (a, b))
    return two_sided(np.einsum("...i,...i->...", u, v, dtype=np.float64) / np.sqrt(u.shape[-1]))


def serial_correlation(draws: np.ndarray, lags: tuple[int, ...]) -> np.ndarray:
    """The correlation of draws with those some elements on."""
    return np.asarray([correlation(draws[:-lag], draws[lag:]) for lag in lags])


def flips(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How often each bit position of two arrays differs, which should be half of the time: [pairs, n, 16 bits]."""
    differs = np.unpackbits(np.ascontiguousarray(a ^ b, "<u2").view(np.uint8), axis=-1).reshape(*a.shape, 16)
    return two_sided((differs.sum(axis=-2, dtype=np.int64) - a.shape[-1] / 2) / np.sqrt(a.shape[-1] / 4))


def binomial(successes: np.ndarray, n: int, p: np.ndarray) -> np.ndarray:
    """The exact two-sided p-values of binomial counts; 0 for a count that cannot be."""
    law = stats.binom(n, p)
    return np.minimum(1.0, 2 * np.minimum(law.cdf(successes), law.sf(successes - 1)))


def pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Chi-square of the joint distribution of the upper bytes of draws that should be independent."""
    joint = (a >> np.uint16(8) << np.uint16(8)) | b >> np.uint16(8)
    return uniformity(np.bincount(joint.reshape(-1), minlength=65536))


def dispersion(successes: np.ndarray, n: int, p: float) -> np.ndarray:
    """Whether the variance of binomial counts is n p (1 - p): neither too large nor too small."""
    statistic = ((successes - n * p) ** 2).sum() / (n * p * (1 - p))
    law = stats.chi2(successes.size)
    return np.asarray(2 * min(law.cdf(statistic), law.sf(statistic)))
