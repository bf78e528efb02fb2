"""What an instruction that computes does, from its opcode: `form("mul.wide.u32")`."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from .errors import Unsupported
from .kinds import KINDS, Kind

Compute = Callable[..., np.ndarray | tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True)
class Form:
    """The types of the results and the sources of an opcode, and how the former follow from the latter.

    Registers have exactly these types' widths; if `is_relaxed`, they may be wider, as the manual allows for some.
    """

    results: tuple[Kind, ...]
    sources: tuple[Kind, ...]
    compute: Compute
    is_relaxed: bool = False


class Parts:
    """An opcode: its name, and the modifiers and types that no one has asked for yet."""

    def __init__(self, opcode: str) -> None:
        self.opcode = opcode
        self.name, *self.rest = opcode.split(".")

    def take(self, *options: str) -> str:
        """The one of the options that is there, or the empty string."""
        found = next((option for option in options if option in self.rest), "")
        if found:
            self.rest.remove(found)
        return found

    def has(self, modifier: str) -> bool:
        return bool(self.take(modifier))

    def kind(self, letters: str = "busf") -> Kind:
        """The last type."""
        if not self.rest or (kind := KINDS.get(self.rest[-1])) is None or kind.letter not in letters:
            raise self.unsupported()
        self.rest.pop()
        return kind

    def mode(self, kind: Kind) -> str:
        """The rounding of a float operation: the letter of .rn, .rz, .rm or .rp; .rn without one."""
        mode = (self.take("rn", "rz", "rm", "rp") or "rn")[1]
        if mode != "n" and kind.name != "f32":
            raise self.unsupported()
        return mode

    def ftz(self, kind: Kind) -> bool:
        return kind.name in ("f32", "f16", "f16x2") and self.has("ftz")

    def sat(self, kind: Kind) -> bool:
        return kind.name in ("f32", "f16", "f16x2") and self.has("sat")

    def unsupported(self) -> Unsupported:
        return Unsupported(f"unknown instruction {self.opcode}")


FAMILIES: dict[str, Callable[[Parts], Form]] = {}


def family(*names: str) -> Callable[[Callable[[Parts], Form]], Callable[[Parts], Form]]:
    """Says that a function knows the forms of instructions of some names."""

    def register(function: Callable[[Parts], Form]) -> Callable[[Parts], Form]:
        FAMILIES.update(dict.fromkeys(names, function))
        return function

    return register


@functools.cache
def form(opcode: str) -> Form:
    """The form of an opcode.

    Raises:
        Unsupported: The name, a type or a modifier is unknown, or is not known together with the others.
    """
    parts = Parts(opcode)
    if parts.name not in FAMILIES:
        raise parts.unsupported()
    found = FAMILIES[parts.name](parts)
    if parts.rest:
        raise parts.unsupported()
    return found


def uniform(kind: Kind, sources: int, compute: Compute) -> Form:
    """A form whose result and sources have one type."""
    return Form((kind,), (kind,) * sources, compute)
