"""A QTensor that is reshaped, transposed or indexed has the values that its array would have, or it refuses."""

import itertools
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from oracle import assert_same_bits
from qtensors import dequantized, made, spread

from intnumerics import QTensor

ANY = hypothesis.settings(max_examples=200, deadline=None)
STRUCTURE = jax.tree.structure(made((1,), (1,))[0])


def values_of(q: QTensor) -> np.ndarray:
    return dequantized(q.qvalue, q.scale, q.numerics, np.float32)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def qtensors(draw: st.DrawFn, sizes: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 4, 6), empty: bool = False) -> QTensor:
    """QTensors of NumPy arrays, with which nothing is compiled."""
    shape = draw(st.lists(st.sampled_from(sizes), max_size=4, min_size=empty))
    if empty:
        shape[draw(st.integers(0, len(shape) - 1))] = 0
    scale = [n if draw(st.booleans()) else 1 for n in shape]
    if shape and shape[-1]:
        scale[-1] = draw(st.sampled_from(divisors(shape[-1])))
    qvalue = np.arange(math.prod(shape), dtype=np.int16).reshape(shape)
    of_each = np.arange(math.prod(scale), dtype=np.float32).reshape(scale) + 1
    return jax.tree.unflatten(STRUCTURE, [qvalue, of_each])


# --- reshape ----------------------------------------------------------------------------------------------------------


@st.composite
def new_shapes(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shapes of as many elements: neighbouring prime factors joined, with sizes of 1 between them."""
    primes = [p for n in shape for p in ((2, 2) if n == 4 else draw(st.permutations((2, 3))) if n == 6 else (n,))]
    found, joins = [1], draw(st.lists(st.booleans(), min_size=len(primes), max_size=len(primes)))
    for prime, join in zip(primes, joins, strict=True):
        found[-1:] = [found[-1] * prime] if join else [found[-1], prime]
    ones = [n for n in found if n != 1 or draw(st.booleans())]
    return tuple(draw(st.permutations(ones))) if draw(st.integers(0, 4)) == 0 else tuple(ones)


def scales_that_fit(q: QTensor, new: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes of scales with which each element would keep its scale: all shapes are tried."""
    count = np.arange(q.scale.size)
    wanted = spread(count.reshape(q.scale.shape), q.shape).reshape(new)
    sizes = [[*{1, n}] for n in new[:-1]] + [divisors(n) for n in new[-1:]]
    candidates = [c for c in itertools.product(*sizes) if math.prod(c) == q.scale.size]
    return [c for c in candidates if np.array_equal(spread(count.reshape(c), new), wanted)]


@ANY
@hypothesis.given(data=st.data())
def test_reshape_keeps_each_scale_and_refuses_where_no_shape_of_scales_would(data: st.DataObject) -> None:
    q = data.draw(qtensors((1, 2, 3, 4, 6, 4, 6)))
    new = data.draw(new_shapes(q.shape))
    fitting = scales_that_fit(q, new)
    if not fitting:
        with pytest.raises(ValueError, match=r"shape=.* different scales.* dequantize\(\)\.reshape"):
            q.reshape(new)
        return
    again = q.reshape(new)
    assert again.scale.shape in fitting
    assert_same_bits(values_of(again), values_of(q).reshape(new))


@ANY
@hypothesis.given(data=st.data())
def test_an_empty_array_keeps_its_scales_or_refuses(data: st.DataObject) -> None:
    q = data.draw(qtensors(empty=True))
    new = data.draw(new_shapes(q.shape))
    try:
        again = q.reshape(new)
    except ValueError:
        return
    assert again.scale.size == q.scale.size
    assert_same_bits(values_of(again), np.empty(new, np.float32))


@pytest.mark.parametrize(
    ("shape", "scale", "new", "expected"),
    [
        ((6, 64), (6, 1), (2, 3, 64), (2, 3, 1)),
        ((6, 64), (6, 1), (6, 8, 8), (6, 1, 1)),
        ((6, 64), (6, 1), (1, 6, -1), (1, 6, 1)),
        ((6, 64), (6, 1), (384,), (6,)),
        ((6, 64), (6, 4), (6, 4, 16), (6, 4, 1)),
        ((6, 4, 16), (6, 4, 1), (6, 64), (6, 4)),
        ((6, 64), (6, 4), (2, 3 * 64), (2, 12)),
        ((6, 64), (6, 1), (3, 128), (3, 2)),
        ((6, 64), (1, 1), (64, 6), (1, 1)),
        ((6, 64), (1, 64), (2, 3, 8, 8), (1, 1, 8, 8)),
        ((6, 64), (6, 64), (64, 6), (64, 6)),
        ((2, 1, 3, 4), (2, 1, 3, 1), (6, 2, 2), (6, 1, 1)),
        ((2, 1, 3), (1, 1, 1), (6,), (1,)),
        ((0, 5, 8), (0, 5, 1), (0, 8), (0, 1)),
        ((0, 8), (0, 1), (0, 5, 8), (0, 5, 1)),
        ((1,), (1,), (), ()),
    ],
    ids=str,
)
def test_reshape_finds_the_shape_of_the_scales(shape: Any, scale: Any, new: Any, expected: Any) -> None:
    q, values = made(shape, scale)
    again = q.reshape(new)
    assert again.scale.shape == expected
    assert_same_bits(again.dequantize(), values.reshape(new))
    assert_same_bits(jax.jit(lambda q: q.reshape(*new).dequantize())(q), values.reshape(new))


@pytest.mark.parametrize(
    ("shape", "scale", "new"),
    [
        ((6, 64), (6, 1), (64, 6)),
        ((6, 64), (1, 64), (384,)),
        ((6, 64), (6, 4), (6, 8, 8)),
    ],
    ids=str,
)
def test_reshape_says_why_it_refuses(shape: Any, scale: Any, new: Any) -> None:
    with pytest.raises(ValueError, match="different scales") as caught:
        made(shape, scale)[0].reshape(new)
    assert all(str(word) in str(caught.value) for word in (new, shape, scale, "dequantize().reshape"))


def test_reshape_refuses_another_number_of_elements_as_jnp_does() -> None:
    with pytest.raises(TypeError, match="reshape"):
        made((6, 64), (6, 1))[0].reshape(5, 64)


# --- transpose --------------------------------------------------------------------------------------------------------


@ANY
@hypothesis.given(data=st.data())
def test_transpose_keeps_each_scale_and_blocks_at_the_end(data: st.DataObject) -> None:
    q = data.draw(qtensors())
    axes = data.draw(st.permutations(range(q.ndim)))
    axes = [axis - q.ndim if data.draw(st.booleans()) else axis for axis in axes]
    if q.block and axes[-1] not in (-1, q.ndim - 1):
        with pytest.raises(ValueError, match=r"axes=.*do not end in the last axis.*dequantize\(\)\.transpose"):
            q.transpose(*axes)
        return
    expected = values_of(q).transpose(axes)
    for again in (q.transpose(*axes), q.transpose(tuple(axes))) if axes else (q.transpose(),):
        assert_same_bits(values_of(again), expected)


def test_transpose_without_axes_reverses_them() -> None:
    q, values = made((2, 3, 4), (2, 1, 4))
    for again in (q.T, q.transpose(), q.transpose(None)):
        assert again.scale.shape == (4, 1, 2)
        assert_same_bits(again.dequantize(), values.T)
    with pytest.raises(ValueError, match="in the last axis"):
        _ = made((2, 3, 4), (2, 1, 2))[0].T
    with pytest.raises((TypeError, ValueError), match=r"permutation|axes"):
        q.transpose(0, 1)


# --- indexing ---------------------------------------------------------------------------------------------------------


@st.composite
def parts(draw: st.DrawFn, n: int, shapes: list[tuple[int, ...]], block: int) -> Any:
    """What indexes an axis of n elements in bounds: a slice, often of whole blocks, an integer or an array."""
    ends = st.none() | st.integers(-n - 1, n + 1) | st.integers(-n // block, n // block).map(lambda i: i * block)
    kinds = [st.slices(n), st.builds(slice, ends, ends)]
    if n:
        shape, inside = draw(st.sampled_from(shapes)), st.integers(-n, n - 1)
        numbers = st.lists(inside, min_size=math.prod(shape), max_size=math.prod(shape))
        kinds += [inside, inside.map(np.int64), numbers.map(lambda found: np.asarray(found).reshape(shape))]
    return draw(st.one_of(kinds))


@st.composite
def indices(draw: st.DrawFn, q: QTensor) -> tuple[tuple[Any, ...], Any]:
    """An index, with `...` and None in it, and the part of it for the last axis."""
    shapes = draw(st.sampled_from([[(3,), (1,)], [(2, 1), (1, 3)], [()]]))
    index = [draw(parts(n, shapes, q.block or 1)) for n in q.shape]
    first = draw(st.integers(0, q.ndim))
    left_out = range(first, draw(st.integers(first, q.ndim)))
    last = slice(None) if not q.ndim or q.ndim - 1 in left_out else index[-1]
    index[left_out.start : left_out.stop] = [...] if left_out.stop < q.ndim or draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        index.insert(draw(st.integers(0, len(index))), None)
    return tuple(index), last


def is_whole_blocks(part: Any, q: QTensor) -> bool:
    if not isinstance(part, slice):
        return False
    start, stop, step = part.indices(q.shape[-1])
    return (start % (q.block or 1), stop % (q.block or 1), step) == (0, 0, 1)


@ANY
@hypothesis.given(data=st.data())
def test_an_index_takes_the_values_that_it_takes_of_an_array_or_divides_a_block(data: st.DataObject) -> None:
    q = data.draw(qtensors())
    index, last = data.draw(indices(q))
    expected = values_of(q)[index]
    given = [part for part in index if part is not None]
    ends_in_none = len(index) > 0 and index[-1] is None and (len(given) == q.ndim or any(part is ... for part in given))
    if q.block and (ends_in_none or not is_whole_blocks(last, q)):
        with pytest.raises(ValueError, match=r"has a scale for each .*dequantize\(\) first"):
            q[index]
        return
    again = q[index]
    assert_same_bits(values_of(again), expected)
    if len(index) == 1:
        assert_same_bits(values_of(q[index[0]]), expected)


ROWS = np.asarray([2, 0, 2])
INDICES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "int": (1, (3, 4)),
    "negative int": ((..., -1, slice(None)), (4, 4)),
    "slices": (np.s_[1:3, ::2, 16:48], (2, 2, 2)),
    "None": (np.s_[None, :, 0], (1, 4, 4)),
    "array": (ROWS, (3, 3, 4)),
    "arrays": (np.s_[ROWS[:, None], ROWS[None]], (3, 3, 4)),
    "array of the second axis": (np.s_[:, ROWS], (4, 3, 4)),
    "int and array": (np.s_[0, ROWS], (3, 4)),
    "array of rank 0": (np.asarray(3), (3, 4)),
}


@pytest.mark.parametrize(("index", "shape"), INDICES.values(), ids=INDICES)
def test_an_index_of_arrays_of_jax_takes_what_numpy_takes(index: Any, shape: tuple[int, ...]) -> None:
    q, values = made((4, 3, 64), (4, 3, 4))
    again = q[index]
    assert again.scale.shape == shape
    assert_same_bits(again.dequantize(), values[index])
    assert_same_bits(jax.jit(lambda q: q[index].dequantize())(q), values[index])


def test_an_index_may_be_traced() -> None:
    q, values = made((4, 3, 64), (4, 1, 4))
    row = jax.jit(lambda q, i: q[i, i].dequantize())
    assert_same_bits(row(q, 2), values[2, 2])
    rows = jax.jit(lambda q, i: q[i].dequantize())
    assert_same_bits(rows(q, ROWS), values[ROWS])


def test_an_array_along_a_shared_axis_takes_no_copies_of_its_scale() -> None:
    q, values = made((4, 6), (4, 1))
    many = q[:, np.zeros(100, np.int32)]
    assert (many.qvalue.shape, many.scale.shape) == ((4, 100), (4, 1))
    assert_same_bits(many.dequantize(), values[:, [0] * 100])


@pytest.mark.parametrize(
    ("index", "kind", "words"),
    [
        (np.s_[:, 3], ValueError, ("index 3", "16", "whole blocks", "dequantize() first")),
        (np.s_[:, ROWS], ValueError, ("index <numpy.ndarray", "16", "dequantize() first")),
        (np.s_[:, 8:24], ValueError, ("slice(8, 24, None)", "multiples of 16", "dequantize() first")),
        (np.s_[:, :24], ValueError, ("slice(None, 24, None)", "multiples of 16")),
        (np.s_[:, ::16], ValueError, ("slice(None, None, 16)", "step 1")),
        (np.s_[:, :, None], ValueError, ("ends in None", "16", "dequantize() first")),
        (np.s_[..., None], ValueError, ("ends in None",)),
        (np.s_[0, 0, 0], IndexError, ("3 parts", "2 axes")),
        (np.s_[..., ...], IndexError, ("two Ellipsis",)),
        (np.asarray([True, False, True, True]), TypeError, ("<numpy.ndarray, shape (4,), dtype bool>", "flatnonzero")),
        (True, TypeError, ("index True", "integer")),
        ([0, 1], TypeError, ("index [0, 1]", "jnp.asarray")),
        (1.5, TypeError, ("index 1.5", "integer")),
        ("rows", TypeError, ("index 'rows'",)),
    ],
    ids=str,
)
def test_an_index_that_is_refused_says_why(index: Any, kind: type[Exception], words: tuple[str, ...]) -> None:
    q, _ = made((4, 64), (4, 4))
    with pytest.raises(kind) as caught:
        q[index]
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_length_is_that_of_the_first_axis() -> None:
    with pytest.raises(TypeError, match="no length"):
        len(made((), ())[0])
