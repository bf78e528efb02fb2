"""The clip mask is packed to one bit per element, in groups that shards have whole."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_same_bits

from intnumerics import IntNumerics
from intnumerics._mask_packing import BY_THE_BYTE, Packing, packing, packing_of
from intnumerics.kernels import Draw

SHAPES = [
    (1,),
    (7,),
    (8,),
    (1000,),
    (1001,),
    (0,),
    (3, 0),
    (3, 17),
    (100, 1),
    (5, 4, 4),
    (6, 1000),
    (32, 4096),
    (7, 5, 130),
    (9, 14, 3),
]


def by_groups(mask: np.ndarray, how: Packing) -> np.ndarray:
    """The bytes of a mask, group after group."""
    groups = mask.reshape(mask.size // how.group, how.group)
    return np.packbits(groups, axis=1, bitorder="little").reshape(how.shape(mask.shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_group_has_bytes_of_its_own_low_bit_first(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    for how in (packing(shape), BY_THE_BYTE):
        packed = how.pack(jnp.asarray(mask))
        assert_same_bits(packed, by_groups(mask, how))
        assert_same_bits(how.unpack(packed, shape), mask)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_residual_of_vjp_fwd_is_the_packed_mask(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 9
    n = IntNumerics(4, True, True, True, True, True, None)
    y, (packed,) = n.vjp_fwd(jnp.asarray(x), None)
    assert_same_bits(packed, by_groups(np.abs(x) <= 7, packing(shape)))
    assert_same_bits(n.vjp_bwd((packed,), y)[0], np.where(np.abs(x) <= 7, y, np.float32(0)))


@hypothesis.given(st.lists(st.integers(1, 3000), min_size=1, max_size=3).map(tuple))
def test_padding_is_a_sixteenth_at_most_or_that_of_the_last_byte(shape: tuple[int, ...]) -> None:
    bits, size = 8 * math.prod(packing(shape).shape(shape)), math.prod(shape)
    assert bits <= max(size * 17 / 16, -(-size // 8) * 8)


@pytest.mark.parametrize("size", [256, 768, 1000, 4096, 5120, 10_000, 11_008, 14_336, 50_257, 151_936])
def test_a_split_over_a_power_of_two_of_devices_leaves_whole_groups(size: int) -> None:
    how = packing((3, size))
    assert how.axes == 1
    for devices in (2, 4, 8, 16, 32):
        shard = size // devices
        if size % devices == 0 and (shard % 8 == 0 or shard > 128):
            assert shard % how.group == 0


def test_the_packing_is_known_from_the_packed_shape() -> None:
    for shape, how in itertools.product(SHAPES, (None, BY_THE_BYTE)):
        wanted = how or packing(shape)
        assert packing_of(wanted.shape(shape), shape).shape(shape) == wanted.shape(shape)


def test_the_mask_of_another_array_is_refused() -> None:
    n = IntNumerics(4, True, True, True, True, True, None)
    _, residual = n.vjp_fwd(jnp.zeros((4, 16)), None)
    with pytest.raises(ValueError, match=r"packed mask has shape \(4, 2\), and that of an array of shape \(4, 24\)"):
        n.vjp_bwd(residual, jnp.zeros((4, 24)))


def test_noise_that_is_drawn_in_the_pass_goes_with_the_rows_of_the_mask() -> None:
    """Or it is None, where rows would not be rows of the whole, and the mask is packed apart."""
    thousands = packing((6, 1000))
    assert thousands.draw_in_rows(Draw("philox", (6, 1000))) == Draw("philox", (6, 8, 125))
    assert thousands.draw_in_rows(Draw("philox", (6, 1000), (6, 2000))) == Draw("philox", (6, 8, 125), (6, 16, 125))
    assert thousands.draw_in_rows(Draw("philox", (6, 1000), (6, 2001))) is None
    pixels = packing((768, 3))
    assert pixels.draw_in_rows(Draw("philox", (768, 3), (1536, 3))) == Draw("philox", (2304,), (4608,))
    assert pixels.draw_in_rows(Draw("philox", (768, 3), (768, 4))) is None
    assert pixels.draw_in_rows(Draw("hardware", (768, 3))) is None
