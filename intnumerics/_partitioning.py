"""Two ways to split an operation over a mesh: by the types of arrays (`Explicit` axes), and by XLA (`Auto` axes)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ._layout import Layout, Split, agreed, first_of, split_of_first
from ._operation import Arrays, Axes, Operation, Run, Typed


def split_of(sharding: Any, rank: int) -> Split:
    """How a sharding splits an array of `rank` axes; one that names no mesh axes does not."""
    known = getattr(sharding, "spec", ())
    for name in ("unreduced", "reduced"):
        if axes := getattr(known, name, None):
            raise ValueError(
                f"an array has a sharding with {name}={set(axes)!r}, and rounding is not linear: give an array without "
                "it, as jax.sharding.reshard(x, jax.sharding.PartitionSpec(...)) makes it"
            )
    axes = [() if a is None else (a,) if isinstance(a, str) else tuple(a) for a in known]
    return (*axes, *((),) * (rank - len(axes)))


def sharding(mesh: Any, split: Split) -> NamedSharding:
    """A split, as JAX writes it."""
    return NamedSharding(mesh, P(*(axes or None for axes in split)))


def mesh_of(types: Sequence[Any]) -> Any:
    """The mesh of arrays of some types; if none has one, as constants have none, the mesh of `jax.set_mesh`."""
    meshes: list[Any] = [of.sharding.mesh for of in types]
    return next((mesh for mesh in meshes if not mesh.empty), jax.sharding.get_abstract_mesh())


def layout_by_type(operation: Operation, types: Sequence[Any], mesh: Any) -> Layout:
    """How the arrays of an operation are split over a mesh if the types of its operands tell how those are."""
    shapes = [tuple(of.shape) for of in types]
    splits = [split_of(of.sharding, len(of.shape)) for of in types]
    return Layout(operation, tuple(types), split_of_first(operation, shapes, splits), mesh.shape)


def _shardings(layout: Layout, mesh: Any) -> tuple[list[NamedSharding], list[NamedSharding]]:
    """How the operands and the results are split."""
    operands, results = layout.of_operands(), layout.of_results()
    return [sharding(mesh, split) for split in operands], [sharding(mesh, split) for split in results]


# --- by types ---------------------------------------------------------------------------------------------------------


def split_as_result(operation: Operation, arrays: Sequence[jax.Array]) -> jax.Array:
    """The first operand, split along the `Explicit` axes of a mesh as `by_type` splits it."""
    types = [jax.typeof(array) for array in arrays]
    mesh = mesh_of(types)
    return jax.sharding.reshard(arrays[0], sharding(mesh, layout_by_type(operation, types, mesh).split))


def by_type(operation: Operation, run: Run, *arrays: jax.Array) -> Arrays:
    """Runs an operation where the types of the arrays tell how they are split: along `Explicit` axes of a mesh."""
    types = [jax.typeof(array) for array in arrays]
    mesh = mesh_of(types)
    layout = layout_by_type(operation, types, mesh)
    operands, results = _shardings(layout, mesh)
    placed = [jax.sharding.reshard(array, like) for array, like in zip(arrays, operands, strict=True)]
    # All axes, so that a kernel sees `Manual` axes alone; with `Auto` axes in the mesh, those that the arrays use.
    names = set[str]().union(*layout.split) if mesh.auto_axes else set[str]()
    body = functools.partial(operation.on_shard, layout, run)
    specs = {"in_specs": tuple(a.spec for a in operands), "out_specs": [a.spec for a in results]}
    return jax.shard_map(body, mesh=mesh, axis_names=names, check_vma=False, **specs)(*placed)


# --- by XLA's partitioner ---------------------------------------------------------------------------------------------


def by_partitioner(operation: Operation, run: Run, *arrays: jax.Array) -> Arrays:
    """Runs an operation where XLA's partitioner decides how arrays are split: along `Auto` axes of a mesh."""
    asked = _Partitioner(operation, run)
    partitioned = custom_partitioning(functools.partial(run, operation))
    # The rule is for Shardy; where it is switched off, XLA's older partitioner asks `infer`.
    partitioned.def_partition(
        asked.partition, infer_sharding_from_operands=asked.infer, sharding_rule=_rule(operation, arrays)
    )
    return partitioned(*arrays)


@dataclasses.dataclass(frozen=True)
class _Partitioner:
    """Answers the partitioner's questions about an operation. It stays with the compiled program, and is pickled."""

    operation: Operation
    run: Run

    def partition(self, mesh: Any, operands: Any, results: Any) -> tuple[Any, ...]:
        """The mesh, what a device does, and how results and operands are to be split."""
        if mesh.empty:  # of several devices, but no array says how they are arranged
            mesh = Mesh(list(operands[0].sharding.device_set), ("devices",))
        rank = len(operands[0].shape)
        asked = [split_of(operands[0].sharding, rank), *self._asked_of_results(operands, results)]
        layout = Layout(self.operation, tuple(operands), agreed(*asked), mesh.shape)
        placed, returned = _shardings(layout, mesh)
        return mesh, functools.partial(self.operation.on_shard, layout, self.run), returned, tuple(placed)

    def _asked_of_results(self, operands: Sequence[Any], results: Sequence[Any]) -> list[Split]:
        """The splits that XLA asks for, of the results that have the axes of the first operand."""
        rank = len(operands[0].shape)
        described = zip(self.operation.results(*operands), results, strict=True)
        return [split_of(result.sharding, rank) for of, result in described if of.axes == tuple(range(rank))]

    def infer(self, mesh: Any, operands: Any, _: Any) -> list[NamedSharding]:
        """How the results are split."""
        return _shardings(layout_by_type(self.operation, operands, mesh), mesh)[1]


def _rule(operation: Operation, operands: Sequence[Typed]) -> str:
    """The rule for Shardy: an axis of the first operand, and those of other arrays that are split with it, are one."""

    def factors(name: str, axes: Axes) -> str:
        return " ".join(f"{name}{i}" if axis is None else f"x{first_of(axis)}" for i, axis in enumerate(axes))

    taken = operation.operand_axes([tuple(a.shape) for a in operands])
    given = [result.axes for result in operation.results(*operands)]
    left = ", ".join(factors(f"a{i}_", axes) for i, axes in enumerate(taken))
    return f"{left} -> {', '.join(factors(f'r{i}_', axes) for i, axes in enumerate(given))}"
