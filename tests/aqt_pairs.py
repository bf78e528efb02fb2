"""AQT's own `IntSymmetric` and ours side by side. A test file that imports this is skipped where AQT is not."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("aqt", reason="needs AQT, which `make test-aqt` installs")

from aqt.jax.v2 import aqt_conv_general as aqt_conv_general
from aqt.jax.v2 import aqt_dot_general as aqt_dot_general
from aqt.jax.v2 import calibration as calibration
from aqt.jax.v2 import config, stochastic_rounding, utils
from aqt.jax.v2.flax import aqt_flax as aqt_flax
from aqt.jax.v2.numerics import int_numerics

from intnumerics import aqt

# AQT takes an array for its dtype, which JAX will refuse some day.
MARKS = [pytest.mark.aqt, pytest.mark.filterwarnings("ignore:Implicit conversion of an array:DeprecationWarning")]

Theirs = int_numerics.IntSymmetric
Config = Callable[[], Any]

NOISE: dict[str, Any] = {
    "JaxUniform": stochastic_rounding.JaxUniform(),
    "RandomCenteredUniform": stochastic_rounding.RandomCenteredUniform(),
    "JaxUniform, shared": functools.partial(stochastic_rounding.JaxUniform(), noise_sharing_axes=(1,)),
    "RandomCenteredUniform, shared": functools.partial(
        stochastic_rounding.RandomCenteredUniform(), noise_sharing_axes=[0, 1]
    ),
    "an axis that is not there": functools.partial(stochastic_rounding.JaxUniform(), noise_sharing_axes=(0, -1, 7)),
}

CONFIGS: dict[str, Config] = {
    "config_v4": config.config_v4,
    "config_v4, 4 bits": functools.partial(config.config_v4, fwd_bits=4, dlhs_bits=4, drhs_bits=4, rng_type="custom-1"),
    "config_v4, 1 bit forward": functools.partial(config.config_v4, fwd_bits=1),
    "config_v3": config.config_v3,
    "fully_quantized": config.fully_quantized,
    "fully_quantized, lhs": functools.partial(
        config.fully_quantized,
        use_stochastic_rounding=None,
        vjp_lhs_stochastic_rounding=True,
        vjp_rhs_stochastic_rounding=False,
    ),
}


def shared_noise() -> Any:
    """A config whose noise is shared along an axis, and whose gradient is clipped."""
    made = config.config_v4(drhs_bits=8)
    config.set_stochastic_rounding(made, True, True, "custom-1", noise_sharing_axes=(0,))
    config.set_absmax_calib_scale(made, 0.6)
    return made


CONFIGS["noise shared, gradient clipped"] = shared_noise


def pair(bits: int = 8, **fields: Any) -> tuple[Any, Any]:
    """AQT's numerics and ours with the same fields."""
    usual = {"preserve_zero": True, "preserve_max_val": False, "clip": True, "clip_gradient": True, "round": True}
    fields = {"bits": bits, "noise_fn": None, **usual, **fields}
    return Theirs(**fields), aqt.IntSymmetric(**fields)


def context(key: Any = None) -> Any:
    return utils.Context(key=key, train_step=None)


def array(*shape: int, seed: int = 0, scale: float = 1.0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape) * scale


def assert_equal(ours: Any, theirs: Any) -> None:
    """Equal dtypes and numbers in two pytrees; NaN equals NaN, and -0.0 equals 0.0."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        wide = np.int32 if jnp.issubdtype(a.dtype, jnp.integer) else np.float64
        np.testing.assert_array_equal(np.asarray(a).astype(wide), np.asarray(b).astype(wide))


def numerics_in(value: Any) -> Iterator[Any]:
    """Every `IntSymmetric`, AQT's and ours, in the dataclasses of a config."""
    if isinstance(value, Theirs):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numerics_in(getattr(value, field.name))


@pytest.fixture(autouse=True)
def settings_of_aqt() -> Iterator[None]:
    """AQT relies on JAX's implicit promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
