"""Bad scales and calibrations are refused before anything is compiled, with the argument, its value and the remedy."""

from typing import Any

import jax
import numpy as np
import pytest
from refusals import refused

from intnumerics import AbsMax, Fixed, IntNumerics, quantize, quantize_tensor, quantize_to_int

X = np.zeros((4, 96), np.float32)
INT8 = IntNumerics.symmetric(8)
every_function = pytest.mark.parametrize("function", [quantize, quantize_to_int, quantize_tensor])


@every_function
@pytest.mark.parametrize("shape", [(5,), (3, 1), (4, 2), (4, 96, 1), (1, 4, 96), (4, 0), (6,), (4, 97)], ids=str)
def test_a_scale_that_does_not_broadcast_is_refused(function: Any, shape: tuple[int, ...]) -> None:
    """Blocks of 48 are none of the sizes of blocks, and six scales without the other axis are not six blocks."""
    with refused(ValueError, f"scale has shape {shape}", "(4, 96)", "keepdims=True", "16, 32, 64, 128, 256"):
        function(X, INT8, scale=np.ones(shape, np.float32))


@every_function
@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), np.array([[1.0], [0], [1], [1]])], ids=str)
def test_a_scale_that_is_not_above_0_is_refused(function: Any, scale: Any) -> None:
    with refused(ValueError, "scale=", "not above 0 and finite", "size of a bucket"):
        function(X, INT8, scale=scale)


@every_function
@pytest.mark.parametrize("scale", ["absmax", [0.1], True, np.ones((4, 1), np.int32), 1j, {"s": 1.0}], ids=str)
def test_a_scale_that_is_not_a_number_or_an_array_of_floats_is_refused(function: Any, scale: Any) -> None:
    with refused(TypeError, "scale"):
        function(X, INT8, scale=scale)


def test_a_calibration_that_is_a_class_is_refused() -> None:
    with refused(TypeError, "AbsMax", "make an object", "scale=AbsMax(axis=-1)"):
        quantize(X, INT8, scale=AbsMax)  # pyright: ignore[reportArgumentType]
    with refused(TypeError, "calibration=", "AbsMax()"):
        quantize_tensor(X, INT8, calibration=AbsMax)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("scale", [AbsMax(), Fixed(3.0)], ids=str)
def test_integers_without_the_scales_that_were_made_for_them_are_refused(scale: Any) -> None:
    with refused(ValueError, "scale=", "quantize_tensor"):
        quantize_to_int(X, INT8, scale=scale)


@pytest.mark.parametrize("fraction", [0, -0.5, 1e-38, 1.5, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with refused(ValueError, f"fraction={fraction}", "at most 1"):
        AbsMax(fraction)


@pytest.mark.parametrize("fields", [{"fraction": "1"}, {"fraction": True}, {"power_of_two": 1}], ids=str)
def test_a_field_of_another_type_is_refused(fields: Any) -> None:
    with refused(TypeError, *(f"{name}=" for name in fields)):
        AbsMax(**fields)


@pytest.mark.parametrize("bound", [0, -2.5, float("inf"), float("nan")])
def test_a_bound_that_is_not_above_0_is_refused(bound: float) -> None:
    with refused(ValueError, f"bound={bound}", "largest magnitude to keep"):
        Fixed(bound)


@pytest.mark.parametrize("bound", ["max", None, True, [1.0, 2.0], np.ones(3, np.int32)], ids=str)
def test_a_bound_that_is_not_made_of_floats_is_refused_before_it_is_used(bound: Any) -> None:
    with refused(TypeError, "bound"):
        Fixed(bound)


@pytest.mark.parametrize("scale", [1e-300, 1e-38, 1e38, 1e39, np.asarray([0.1, 3e38], np.float32)], ids=str)
@pytest.mark.parametrize("function", [quantize, quantize_tensor])
def test_a_scale_by_which_float32_cannot_be_divided_is_refused(function: Any, scale: Any) -> None:
    x: Any = X[:, :2]
    with refused(ValueError, "scale=", "is not from 2**-126 to 2**126", "float32"):
        function(x, INT8, scale=scale)
    with jax.enable_x64(True):
        function(x.astype(np.float64), INT8, scale=scale)


def test_what_makes_scales_is_no_scale_that_is_there() -> None:
    for scale in (AbsMax(axis=-1), Fixed(3.0)):
        with refused(TypeError, "scale=", "calibration"):
            quantize_tensor(X, INT8, scale=scale)  # pyright: ignore[reportArgumentType]


def test_a_bound_whose_scale_has_no_reciprocal_is_refused() -> None:
    """Its scale would be 1, and nothing would be clipped."""
    with refused(ValueError, "bound=1e-37", "larger bound"):
        quantize(X, INT8, scale=Fixed(1e-37))


def test_a_bound_is_shown_without_its_numbers() -> None:
    assert "shape (3,)" in repr(Fixed(np.ones(3, np.float32)))


def test_a_bound_that_does_not_broadcast_is_refused() -> None:
    with refused(ValueError, "bound has shape (5,)", "(4, 96)"):
        quantize(X, INT8, scale=Fixed(np.ones(5, np.float32)))


@pytest.mark.parametrize("block", [8, 48, 512, 0, 32.0, True], ids=str)
def test_a_size_of_blocks_that_is_not_supported_is_refused(block: Any) -> None:
    with refused(ValueError, f"block={block}", "16, 32, 64, 128, 256"):
        AbsMax(block=block)
    with refused(ValueError, f"block={block}", "16, 32, 64, 128, 256"):
        quantize_tensor(X, INT8, block=block)


@pytest.mark.parametrize("shape", [(4, 96), (), (3, 32)], ids=str)
def test_blocks_that_do_not_divide_the_last_axis_are_refused(shape: tuple[int, ...]) -> None:
    with refused(ValueError, "block=64 does not divide the last axis", "axis=-1"):
        quantize_tensor(np.zeros(shape, np.float32), INT8, block=64)
    with refused(ValueError, "block=64 does not divide the last axis"):
        quantize(np.zeros(shape, np.float32), INT8, scale=AbsMax(block=64))


def test_two_answers_to_one_question_are_refused() -> None:
    with refused(ValueError, "axis=0 and block=32 are both given"):
        AbsMax(axis=0, block=32)
    with refused(ValueError, "axis=0 and block=32 are both given"):
        quantize_tensor(X, INT8, axis=0, block=32)
    for calibration in (AbsMax(axis=-1), AbsMax(block=32), Fixed(1.0, axis=0)):
        with refused(ValueError, "calibration=", "arguments of its own"):
            quantize_tensor(X, INT8, calibration=calibration)
    for extra in ({"axis": 0}, {"block": 32}, {"calibration": Fixed(1.0)}):
        with refused(ValueError, "scale is given, and so is"):
            quantize_tensor(X, INT8, scale=0.1, **extra)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("axis", [2, -3, (0, 0), "rows", 1.0], ids=str)
def test_an_axis_that_x_does_not_have_is_refused(axis: Any) -> None:
    with refused(TypeError if isinstance(axis, str | float) else ValueError, "axis="):
        quantize_tensor(X, INT8, axis=axis)
    with refused(TypeError if isinstance(axis, str | float) else ValueError, "axis="):
        quantize(X, INT8, scale=AbsMax(axis=axis))


def test_numerics_with_one_bucket_have_no_scale() -> None:
    one = IntNumerics.symmetric(1, preserve_zero=True, preserve_max_val=True)
    with refused(ValueError, "one bucket", "preserve_zero=False"):
        quantize(X, one, scale=AbsMax(axis=-1))
    with refused(ValueError, "one bucket", "preserve_zero=False"):
        quantize_tensor(X, one)


@pytest.mark.parametrize("name", ["clip", "round"])
def test_integers_that_are_not_clipped_and_rounded_are_refused(name: str) -> None:
    with refused(ValueError, f"numerics.{name}=False", f"replace({name}=True)"):
        quantize_tensor(X, INT8.replace(**{name: False}))


def test_a_kernel_does_not_take_a_scale_that_is_given() -> None:
    with pytest.raises(ValueError, match="does not have the operation 'quantize_by_scale', only 'reference' and 'xla'"):
        jax.jit(lambda x: quantize(x, INT8, scale=0.1, implementation="pallas_mosaic_gpu", interpret="cuda"))(X)
    traced = jax.jit(lambda x: quantize_tensor(x, INT8, implementation="jax_triton")).trace(X)
    with pytest.raises(ValueError, match="does not have the operation 'quantize_by_absmax'"):
        traced.lower(lowering_platforms=("cuda",))
