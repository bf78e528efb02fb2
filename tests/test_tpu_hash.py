"""Where the TPU kernels find each element's word of the hash: odd numbers, single rows, rows of one tile of lanes."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
import streams
from implementations import ON_CPU_HERE, assert_is_formula
from test_parts import begin, window
from test_stream_kernels import KEY, NEAREST, check_each, numbers

from intnumerics.kernels import Draw, generators
from intnumerics.kernels.generators import shifts
from intnumerics.kernels.pallas_tpu.noise import IN_KERNEL

TO_INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CARRY = 2**33  # the number of the first element whose block has another high word
CONSECUTIVE = [  # the shape, the rows of the whole array, and the number of the first element
    ((48, 128), 48, 0),  # a row takes half of the lanes
    ((20, 301), 2**27, 301 * (CARRY // 301 - 5)),
    ((20, 301), 2**27, 301 * (CARRY // 301 - 6)),  # one of the two begins at an odd number
    ((9, 256), 2**28, CARRY - 1501),
    ((40_003,), 0, CARRY - 20_001),
    ((40_960,), 0, CARRY - 20_480),
]
PARTS = [((8, 601), (3, 300), (2, 155)), ((4, 6, 70), (2, 3, 33), (1, 2, 31)), ((8, 4099), (2, 2048), (2, 1025))]


def test_every_element_has_its_half_of_its_word() -> None:
    calls = []
    for shape, rows, first in CONSECUTIVE:
        whole = (rows, *shape[1:]) if rows else (2**35,)
        spec = dataclasses.replace(TO_INT8, draw=Draw("hash", shape, whole, aligned=first % 8 == 0))
        noise = streams.uniform_hash(shape, KEY, first)
        calls.append((numbers(shape, BFLOAT16), streams.seed(KEY, first), spec, noise))
    for whole, part, offset in PARTS:
        first = begin(whole, offset)
        spec = dataclasses.replace(TO_INT8, draw=Draw("hash", part, whole, aligned=first % 8 == 0))
        noise = window(streams.uniform_hash(whole, KEY), part, offset)
        calls.append((numbers(part, BFLOAT16), streams.seed(KEY, first), spec, noise))
    assert all(IN_KERNEL["hash"].serves(spec.draw) for _, _, spec, _ in calls if spec.draw)
    check_each(ON_CPU_HERE["pallas-tpu"], calls)


def test_draws_that_need_more_than_two_pairs_of_subkeys_are_not_for_the_kernels() -> None:
    rows = (3, 8)
    assert not IN_KERNEL["hash"].serves(Draw("hash", rows, (8, 2**33)))
    assert IN_KERNEL["hash"].serves(Draw("hash", rows, (8, 2**31)))
    assert IN_KERNEL["hash"].serves(Draw("hash", (2**33,), (2**34,)))
    assert not IN_KERNEL["hash"].serves(Draw("hash", (2**33,), (2**34,), aligned=False))  # ends in the third block


@pytest.mark.parametrize("multiplier", shifts.STEPS, ids=hex)
def test_a_product_by_shifts_is_the_product(multiplier: int) -> None:
    words = np.random.default_rng(0).integers(0, 1 << 32, 1000, np.uint32)
    found = np.asarray(shifts.product_by_shifts(multiplier, jax.numpy.asarray(words)))
    np.testing.assert_array_equal(found, words * np.uint32(multiplier))


def test_a_chip_without_products_draws_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    products, by_shifts = list[int](), shifts.product_by_shifts

    def counted(multiplier: int, word: jax.Array) -> jax.Array:
        products.append(multiplier)
        return by_shifts(multiplier, word)

    monkeypatch.setattr(shifts, "device_kind", lambda _: "TPU v4")
    monkeypatch.setattr(shifts, "product_by_shifts", counted)
    shape = (3, 1000)
    x, noise = numbers(shape, BFLOAT16), streams.uniform_hash(shape, KEY)
    spec = dataclasses.replace(TO_INT8, draw=Draw("hash", shape))
    kernel = ON_CPU_HERE["pallas-tpu"].operations().quantize
    result = jax.jit(lambda x, seed: kernel(x, seed, spec))(x, streams.seed(KEY))
    assert_is_formula(result, x, noise, spec)
    in_xla = jax.jit(lambda seed: generators.drawn(Draw("hash", shape), seed, "tpu"))(streams.seed(KEY))
    np.testing.assert_array_equal(np.asarray(in_xla), noise)
    assert sorted(products) == sorted([*shifts.STEPS, *shifts.STEPS])  # of the kernel, and of XLA's form
