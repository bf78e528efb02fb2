"""The two ways in which a program is split over a mesh, by types and by the partitioner; either runs `Shards`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ._call import Call
from ._device_shard import Leaf, Shape, Shards, Split, agreed, along_x
from ._mask_packing import BY_THE_BYTE, Packing, packing


def split_of(sharding: Any, rank: int) -> Split:
    """How a sharding splits an array of `rank` axes; one that names no mesh axes does not.

    Raises:
        ValueError: The array is a sum that is still to be taken over a mesh axis, or its cotangent is.
    """
    known = getattr(sharding, "spec", ())
    for name in ("unreduced", "reduced"):
        if axes := getattr(known, name, None):
            raise ValueError(
                f"an array has a sharding with {name}={set(axes)!r}, and rounding is not linear: give an array without "
                "it, as jax.sharding.reshard(x, jax.sharding.PartitionSpec(...)) makes it"
            )
    axes = [() if a is None else (a,) if isinstance(a, str) else tuple(a) for a in known]
    return (*axes, *((),) * (rank - len(axes)))


def spec(split: Split) -> P:
    """A split, as JAX writes it."""
    return P(*(axes or None for axes in split))


def split_of_any(call: Call, shapes: Sequence[Shape], shardings: Sequence[Any]) -> Split:
    """How x is split if, as of a sum in jnp, the result is split as any of the operands is."""
    splits: list[Split] = []
    for i, (shape, sharding) in enumerate(zip(shapes, shardings, strict=True)):
        of_x: list[tuple[str, ...]] = [()] * len(shapes[0])
        for place, axes in zip(along_x(call, i, shape, shapes[0]), split_of(sharding, len(shape)), strict=True):
            if place is not None:
                of_x[place] = axes
        splits.append(tuple(of_x))
    return agreed(*splits)


def mesh_of(arrays: Sequence[jax.Array]) -> Any:
    """The mesh that the types of arrays speak of; where none speaks of one, as of constants, that of `jax.set_mesh`."""
    meshes: list[Any] = [jax.typeof(array).sharding.mesh for array in arrays]
    return next((mesh for mesh in meshes if not mesh.empty), jax.sharding.get_abstract_mesh())


def packing_by_type(x: jax.Array) -> Packing:
    """How the mask of x is packed: so that no shard has parts of groups, as far as its type tells how it is split."""
    how, sharding = packing(x.shape), jax.typeof(x).sharding
    call = Call("clip_gradient_from_mask", packing=how)
    shards = Shards(call, (x.shape,), split_of(sharding, x.ndim), sharding.mesh.shape)
    return BY_THE_BYTE if shards.is_cut() else how


def split_as_result(call: Call, arrays: Sequence[jax.Array]) -> jax.Array:
    """The first array, split along the `Explicit` axes of a mesh as `by_type` splits it."""
    split = split_of_any(call, _shapes(arrays), [jax.typeof(array).sharding for array in arrays])
    return jax.sharding.reshard(arrays[0], NamedSharding(mesh_of(arrays), spec(split)))


def by_type(leaf: Leaf, call: Call, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Runs a call where the types of the arrays tell how they are split: along the `Explicit` axes of a mesh."""
    mesh, shapes = mesh_of(arrays), _shapes(arrays)
    split = split_of_any(call, shapes, [jax.typeof(array).sharding for array in arrays])
    shards = Shards(call, shapes, split, mesh.shape)
    operands, results = ([spec(split) for split in splits] for splits in (shards.operands(), shards.results()))
    placed = [
        jax.sharding.reshard(a, NamedSharding(mesh, operand)) for a, operand in zip(arrays, operands, strict=True)
    ]
    # All axes, so that a kernel finds none but `Manual` ones; where some are XLA's, the others that matter here.
    names = set[str]().union(*shards.split) if mesh.auto_axes else set[str]()
    run = functools.partial(shards.run, leaf)
    specs = {"in_specs": tuple(operands), "out_specs": results}
    return jax.shard_map(run, mesh=mesh, axis_names=names, check_vma=False, **specs)(*placed)


def by_partitioner(leaf: Leaf, call: Call, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Runs a call where the partitioner decides how they are split: along the `Auto` axes of a mesh."""
    asked = _Partitioner(leaf, call)
    run = custom_partitioning(functools.partial(leaf, call))
    # The rule is for Shardy; where it is switched off, XLA's older partitioner asks `infer`.
    run.def_partition(asked.partition, infer_sharding_from_operands=asked.infer, sharding_rule=_rule(call, arrays))
    return run(*arrays)


@dataclasses.dataclass(frozen=True)
class _Partitioner:
    """What the partitioner asks of a call. It stays with the compiled program, so it can be pickled."""

    leaf: Leaf
    call: Call

    def partition(self, mesh: Any, operands: Any, results: Any) -> tuple[Any, ...]:
        """The mesh, what a device does, and how results and operands are to be split."""
        if mesh.empty:  # of several devices, but no array says how they are arranged
            mesh = Mesh(list(operands[0].sharding.device_set), ("devices",))
        split = agreed(*(split_of(a.sharding, len(a.shape)) for a in (operands[0], results[0])))
        shards = Shards(self.call, _shapes(operands), split, mesh.shape)
        placed, returned = (
            [NamedSharding(mesh, spec(split)) for split in splits] for splits in (shards.operands(), shards.results())
        )
        return mesh, lambda *local: shards.run(self.leaf, *local), returned, tuple(placed)

    def infer(self, mesh: Any, operands: Any, _: Any) -> list[NamedSharding]:
        """How the results are split."""
        split = split_of_any(self.call, _shapes(operands), [a.sharding for a in operands])
        results = Shards(self.call, _shapes(operands), split, mesh.shape).results()
        return [NamedSharding(mesh, spec(split)) for split in results]


def _rule(call: Call, arrays: Sequence[jax.Array]) -> str:
    """What goes with what, for the partitioner: each axis of x with that of all other arrays, if they have it whole."""
    shapes = _shapes(arrays)
    axes = [f"x{axis}" for axis in range(len(shapes[0]))]

    def factors(i: int, shape: Shape) -> str:
        places = enumerate(along_x(call, i, shape, shapes[0]))
        return " ".join(f"a{i}{axis}" if place is None else axes[place] for axis, place in places)

    operands = ", ".join(factors(i, shape) for i, shape in enumerate(shapes))
    results = ", ".join(" ".join(axes[: len(shape)]) for shape, _ in call.results(arrays[0]))
    return f"{operands} -> {results}"


def _shapes(arrays: Sequence[Any]) -> tuple[Shape, ...]:
    return tuple(tuple(a.shape) for a in arrays)
