"""Which device a program is compiled for, as JAX names it."""

from typing import Literal

import jax

NAMES = {"cuda": ("gpu", "cuda"), "tpu": ("tpu",)}  # of a platform, as devices have it


def device_kind(platform: Literal["cuda", "tpu"]) -> str | None:
    """JAX's name for the device of a platform to compile for: the device of the current mesh, or of this process.

    None if there is neither, for instance if a program is exported on a machine without such a device.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None and device.platform in NAMES[platform]:
        return device.device_kind
    try:
        return jax.local_devices(backend=platform)[0].device_kind
    except RuntimeError:  # JAX has no such backend
        return None
