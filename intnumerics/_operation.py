"""The description of an operation: the one thing that lowering, differentiation, batching and sharding read.

To add an operation, write a frozen dataclass that derives from `Operation`, and call `_primitive.run` with it. Nothing
else of this package needs to know its name; `_quantization.py` has the operations of the package.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import jax
import numpy as np

if TYPE_CHECKING:
    from ._layout import Layout

Shape = tuple[int, ...]
Role = Literal["x", "noise", "seed", "scale", "mask", "cotangent"]
Arrays = list[jax.Array]
Run = Callable[..., Arrays]  # does an operation, its first argument, with arrays


class Typed(Protocol):
    """Anything with a shape and a dtype: an array, or the type of one."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> np.dtype: ...


@dataclasses.dataclass(frozen=True)
class Groups:
    """An axis that counts groups of elements of the first operand, such as bytes of a packed mask.

    A device has whole groups, or this axis is not split.

    Attributes:
        first: The elements are those of the axes of the first operand from this one on, in row-major order.
        size: Elements of a group.
    """

    first: int
    size: int


# For each axis of an array: the axis of the first operand that is split with it; or the groups that it counts; or None
# for an axis that each device has whole, as one of size 1 along which an array is shared.
Axes = tuple[int | Groups | None, ...]


@dataclasses.dataclass(frozen=True)
class Operand:
    """What an operation takes.

    Attributes:
        role: What the array is.
        broadcasts: Whether it broadcasts: its dimensions may be 1 where the first operand has more. Under `vmap` it has
            a batch axis of size 1 if the examples share it; any other operand is repeated for each example.
    """

    role: Role
    broadcasts: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """What an operation gives: the shape and dtype of one result, and how its axes are split.

    Attributes:
        shape: Its shape, which need not be that of the first operand.
        dtype: Its dtype.
        axes: What is split with each axis.
    """

    shape: Shape
    dtype: np.dtype
    axes: Axes


def every_axis(shape: Shape) -> Axes:
    """The axes of an array that has those of the first operand."""
    return tuple(range(len(shape)))


class Operation(abc.ABC):
    """An operation with all of its static arguments.

    A subclass is a frozen dataclass: two operations are equal, and share a program, only if all of their fields are
    equal. The axes of every array are described by those of the first operand, which has at least one axis. Axes that
    `vmap` adds come first, so a subclass counts the axes that it names from the last one: -1, -2 and so on.

    Attributes:
        name: The name of the function that does it in a room of `kernels`. It names programs and shows in profiles.
        is_linear: Whether it is linear in its first operand, and equal to its own transpose, as a masking is.
        whole_axes: The axes of the first operand, counted from the last, that each device must have whole, as those of
            a reduction. Where one is split, the array is gathered along it.
    """

    name: ClassVar[str]
    is_linear: ClassVar[bool] = False
    whole_axes: ClassVar[tuple[int, ...]] = ()

    @property
    def is_elementwise(self) -> bool:
        """Whether XLA splits its plain form over devices by itself, without sending anything."""
        return False

    @property
    @abc.abstractmethod
    def operands(self) -> tuple[Operand, ...]:
        """What it takes, in order."""

    def results(self, *operands: Typed) -> tuple[Result, ...]:
        """What it gives for operands of some shapes and dtypes: by default one array like the first operand."""
        first = operands[0]
        return (Result(tuple(first.shape), np.dtype(first.dtype), every_axis(first.shape)),)

    @abc.abstractmethod
    def formula(self, *operands: jax.Array) -> Arrays:
        """The operation in plain jnp. It is `implementation="reference"`, and its derivative is the operation's."""

    def operand_axes(self, shapes: Sequence[Shape]) -> list[Axes]:
        """What is split with each axis of each operand: with an axis of the same size, the one in the same place."""
        first = shapes[0]
        return [
            tuple(axis if axis < len(first) and n == first[axis] else None for axis, n in enumerate(shape))
            for shape in shapes
        ]

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        """Calls a room's function, which may take the operands in another form, and the static arguments."""
        return list(function(*operands))

    def jvp(
        self, run: Run, operands: Sequence[jax.Array], results: Arrays, tangents: Mapping[int, jax.Array]
    ) -> Arrays:
        """The tangents of the results: the derivative of the formula.

        Args:
            run: Does an operation.
            operands: The operands.
            results: The results.
            tangents: Tangents of some operands, by number; the others are constant.
        """
        places = list(tangents)

        def of_floats(*floats: jax.Array) -> Arrays:
            arrays = list(operands)
            for place, array in zip(places, floats, strict=True):
                arrays[place] = array
            return self.formula(*arrays)

        return jax.jvp(of_floats, [operands[place] for place in places], list(tangents.values()))[1]

    def on_shard(self, layout: "Layout", run: Run, *shards: jax.Array) -> Arrays:
        """The results for one device's shards of the operands.

        Args:
            layout: How the arrays are split.
            run: Does an operation with arrays that are on one device.
            *shards: This device's shards. `lax.axis_index` has the mesh axes.
        """
        return run(self, *shards)

    # --- which implementation serves it ---

    @property
    def generator(self) -> str | None:
        """The generator of noise that the implementation draws itself, if any."""
        return None

    def sizes(self, *operands: Typed) -> list[Shape]:
        """The shapes that a kernel must know to be compiled."""
        return [operand.shape for operand in operands]

    def fastest(self, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
        """The name of the implementation that is the fastest known on a platform.

        Args:
            platform: As JAX names it.
            operands: The types of the operands.
            allows_kernels: Whether a kernel can be in the program. Otherwise it is "xla" or "reference".
        """
        return "xla"
