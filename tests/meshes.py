"""Meshes of CPU devices, and what tests of sharding look for."""

import itertools
import re
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sharded_programs import COLLECTIVE

# Of one device that is described and not there.
H100, H200 = (
    AbstractMesh((1,), ("x",), abstract_device=AbstractDevice(name, 132, "gpu"))
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H200")
)
KINDS = [pytest.param(AxisType.Auto, id="auto"), pytest.param(AxisType.Explicit, id="explicit")]


def mesh(*kinds: AxisType, sizes: tuple[int, ...] = (4, 2), names: tuple[str, ...] = ("rows", "lanes")) -> Any:
    """A mesh of as many CPU devices as it takes; one kind of axis is that of all."""
    kinds = kinds * len(sizes) if len(kinds) == 1 else kinds
    devices = jax.devices("cpu")[: int(np.prod(sizes))]
    return jax.make_mesh(sizes, names[: len(sizes)], axis_types=kinds, devices=devices)


def collectives(compiled: Any) -> list[str]:
    """The collective operations in a compiled program."""
    return sorted(set(COLLECTIVE.findall(compiled.as_text())))


def collective_lines(compiled: Any) -> list[str]:
    """The lines of a compiled program in which something is sent."""
    sends = re.compile(rf"(?:{COLLECTIVE.pattern})(?:-start)?\(")
    return [line for line in compiled.as_text().splitlines() if sends.search(line)]


def assert_sharded_like(results: Any, x: jax.Array) -> None:
    """Whether every result lies on the devices as x does."""
    for result in jax.tree.leaves(results):
        assert result.sharding.is_equivalent_to(x.sharding, x.ndim), (result.sharding, x.sharding)


def placed(x: np.ndarray, on: Any, *axes: Any) -> jax.Array:
    """An array, split over a mesh."""
    return jax.device_put(x, NamedSharding(on, P(*axes)))


def every_split(rank: int, names: tuple[str, ...], *, few: bool = False) -> list[Any]:
    """All ways to split an array of `rank` axes over a mesh: each mesh axis along one of them, or none.

    If `few`, so many of them that all mesh axes but any one of them meet in every way.
    """
    found = []
    for places in itertools.product(range(rank + 1), repeat=len(names)):
        axes = [tuple(name for name, place in zip(names, places, strict=True) if place == axis) for axis in range(rank)]
        if not few or sum(places) % (rank + 1) == 0:
            found.append(P(*(split or None for split in axes)))
    return found
