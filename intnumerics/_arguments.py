"""Checks of the arguments that the public functions share."""

from typing import Any

import jax

from . import _checks, _dispatch
from ._calibration import AbsMax, Fixed
from ._dispatch import Choice
from .int_numerics import check_numerics
from .kernels import QuantSpec

Scale = float | jax.Array | AbsMax | Fixed  # what users give as `scale=`


def checked(x: Any, numerics: Any, choice: Choice) -> jax.Array:
    """x as an array, after a check of the arguments that the public functions share."""
    check_numerics(numerics, x)
    x = _checks.floats("x", x)
    _dispatch.check(choice, x.dtype)
    return x


def check_noise(noise: jax.Array | None, spec: QuantSpec, choice: Choice) -> None:
    """Refuses an array of noise whose dtype the chosen implementation does not take."""
    if noise is not None and spec.draw is None:
        _dispatch.check(choice, noise.dtype)
