"""PTX text to instructions, with the registers, variables and labels that they name."""

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import UnsupportedError
from .kinds import KINDS, Kind

NAME = r"[%A-Za-z_$][\w$.]*"
NUMBER = r"-?(?:0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|0[bB][01]+U?|\d+U?)"  # of floats: bits
IGNORED = re.compile(r"(?ms)//[^\n]*|/\*.*?\*/|^[ \t]*\.(?:version|target|address_size|file|loc)\b[^\n]*")
ABOUT = r"(\.reqntid|\.maxntid|\.minnctapersm|\.maxnreg|\.noreturn)\b([\s\d,]*)"  # a directive, and its numbers
ITEM = re.compile(rf"""(?x)[\s;]+|\.section\b[^{{}}]*\{{[^{{}}]*\}}|(?P<label>[\w$]+)\s*:(?!:)|(?P<brace>[{{}}])
    |(?:\.visible\s+|\.weak\s+)?\.entry\s+(?P<entry>{NAME})\s*(?:\((?P<parameters>[^()]*)\))?(?P<about>[^{{}};]*)\{{
    |(?P<statement>[^{{}};\s][^;]*)(?:;|$)""")  # each character is of one
VARIABLE = re.compile(rf"""(?x)(?:\.(?:visible|extern|weak)\s+)?\.(?P<space>param|global|const|shared)
    (?:\s+(?:\.align\s+(?P<align>\d+)|\.(?P<pointer>ptr)|\.global|\.(?P<kind>{"|".join(KINDS)})))+\s+(?P<name>{NAME})
    \s*(?:(?P<array>\[)\s*(?P<length>\d*)\s*\])?(?:\s*=\s*\{{?(?P<values>\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*)\}}?)?""")
INSTRUCTION = re.compile(rf"(?:@\s*(!?{NAME})\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
COMMA = re.compile(r",(?![^{\[]*[}\]])")  # not between braces or brackets
OPERAND = re.compile(rf"({NUMBER})|(!?{NAME})(?:\s*(?:\+\s*|(?=-))({NUMBER}))?")
REGISTERS = re.compile(rf"\.reg\s+\.({'|'.join(KINDS)})\s+((?:{NAME}\s*(?:<\d+>)?\s*(?:,\s*|$))+)")


@dataclasses.dataclass(frozen=True)
class Address:
    """`[base + offset]`, or as a number `variable + offset`."""

    base: "Operand"
    offset: int


# A str names a register, its complement (`!%p`), a variable or a label; a tuple is `{a, b}` or `p|q`.
Operand = str | int | tuple["Operand", ...] | Address


class Instruction(NamedTuple):
    """One instruction; without a guard, which is a predicate or its complement, all threads execute it."""

    line: int
    text: str
    opcode: str
    operands: tuple[Operand, ...]
    guard: str | None


class Variable(NamedTuple):
    """A variable or parameter: `length` elements of a type, None if the launch says how many."""

    name: str
    space: str
    kind: Kind
    length: int | None
    align: int
    is_pointer: bool
    values: tuple[int, ...]


@dataclasses.dataclass
class Entry:
    """A kernel; `about` has the numbers of directives such as .reqntid, and `labels` are places in the code."""

    name: str
    parameters: list[Variable]
    about: dict[str, tuple[int, ...]]
    registers: dict[str, Kind] = dataclasses.field(default_factory=dict)
    code: list[Instruction] = dataclasses.field(default_factory=list)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)


class Module(NamedTuple):
    """The kernels of a module, and all variables, those of kernels too."""

    entries: dict[str, Entry]
    variables: dict[str, Variable]


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Module:
    """Reads a module.

    Raises:
        UnsupportedError: A directive or a form of an operand that is not known, with its line.
    """
    parser, line = _Parser(), 1
    for found in ITEM.finditer(IGNORED.sub(lambda ignored: "\n" * ignored[0].count("\n"), text)):
        try:
            parser.take(found, line)
        except UnsupportedError as error:
            raise UnsupportedError(f"line {line}: {error}: {' '.join(found[0].split())[:200]}") from None
        line += found[0].count("\n")
    if parser.depth:
        raise UnsupportedError(f"line {line}: the text ends within a kernel")
    return parser.module


class _Parser:
    """The module as far as it was read, the kernel that is read, and the depth of braces.

    A register that is declared in inner braces has another name in the kernel: what it is, `scopes` say for each depth.
    Labels and variables are the kernel's, so a second declaration raises.
    """

    def __init__(self) -> None:
        self.module, self.kernel, self.depth = Module({}, {}), Entry("", [], {}), 0
        self.scopes: list[dict[str, str]] = []

    def take(self, found: re.Match[str], line: int) -> None:
        """Takes the next item of the text in."""
        label, brace, entry, parameters, about, statement = found.groups()
        if entry:
            self.depth += 1
            self.entry(entry, parameters or "", about)
        elif statement and statement[0] == "." and not statement.startswith((".reg", ".pragma")):
            one = variable(statement)
            add(self.module.variables, one.name, one)
        elif not self.depth and (label or brace or statement):
            raise UnsupportedError("unknown directive")
        elif label:
            add(self.kernel.labels, label, len(self.kernel.code))
        elif brace:
            self.depth += 1 if brace == "{" else -1
            self.scopes = [*self.scopes, {}] if brace == "{" else self.scopes[:-1]
        elif statement and statement.startswith(".reg"):
            self.registers(statement.rstrip(), line)
        elif statement and statement[0] != ".":
            one, names = instruction(statement.rstrip(), line), collections.ChainMap(*self.scopes[::-1])
            self.kernel.code.append(renamed(one, names) if names else one)

    def entry(self, name: str, parameters: str, about: str) -> None:
        if not re.fullmatch(rf"\s*(?:{ABOUT})*", about):
            raise UnsupportedError("unknown directive")
        numbers = {word: tuple(map(int, re.findall(r"\d+", more))) for word, more in re.findall(ABOUT, about)}
        self.kernel = Entry(name, [variable(one) for one in parameters.split(",") if one.strip()], numbers)
        add(self.module.entries, name, self.kernel)

    def registers(self, text: str, line: int) -> None:
        if (found := REGISTERS.fullmatch(text)) is None:
            raise UnsupportedError("registers of another form")
        for name, count in re.findall(rf"({NAME})\s*(?:<(\d+)>)?", found[2]):
            for one in [f"{name}{i}" for i in range(int(count))] if count else [name]:
                if self.scopes:
                    add(self.scopes[-1], one, f"{one}@{line}")
                add(self.kernel.registers, f"{one}@{line}" if self.scopes else one, KINDS[found[1]])


def add(names: dict[str, Any], name: str, value: Any) -> None:
    """Gives a name its value, which it must not have yet."""
    if name in names:
        raise UnsupportedError(f"{name} for the second time")
    names[name] = value


def number(text: str) -> int:
    """The value of an integer, or the bits of a float."""
    digits = text.lstrip("-").rstrip("U")
    if digits[:2].lower() in ("0f", "0d"):
        return int(digits[2:], 16)
    value = int(digits, 8 if digits[0] == "0" and digits.isdigit() else 0)
    return -value if text[0] == "-" else value


def variable(text: str) -> Variable:
    """Reads a declaration of a variable or parameter."""
    if (found := VARIABLE.fullmatch(text.strip())) is None or not found["kind"]:
        raise UnsupportedError("unknown directive")
    length = int(found["length"] or 0) or None if found["array"] else 1
    values = tuple(map(number, re.findall(NUMBER, found["values"] or "")))
    kind, align, is_pointer = KINDS[found["kind"]], int(found["align"] or 0), bool(found["pointer"])
    return Variable(found["name"], found["space"], kind, length, align, is_pointer, values)


def instruction(text: str, line: int) -> Instruction:
    if (found := INSTRUCTION.fullmatch(text)) is None:
        raise UnsupportedError("unknown instruction")
    guard, opcode, operands = found.groups()
    return Instruction(line, " ".join(text.split()), opcode, listed(operands), guard)


def renamed(one: Instruction, names: Mapping[str, str]) -> Instruction:
    """The instruction with other names of registers."""

    def rename(what: Operand) -> Operand:
        match what:
            case str():
                return "!" * what.startswith("!") + names.get(what.lstrip("!"), what.lstrip("!"))
            case tuple():
                return tuple(map(rename, what))
            case Address(base, offset):
                return Address(rename(base), offset)
            case _:
                return what

    guard = str(rename(one.guard)) if one.guard else None
    return one._replace(operands=tuple(map(rename, one.operands)), guard=guard)


def listed(text: str) -> tuple[Operand, ...]:
    return tuple(operand(one.strip()) for one in COMMA.split(text)) if text else ()


@functools.lru_cache(maxsize=1 << 12)  # a third of the time: most kernels use the same names
def operand(text: str) -> Operand:
    if text[:1] + text[-1:] == "{}":
        return listed(text[1:-1])
    if text[:1] + text[-1:] == "[]":
        base = operand(text[1:-1].strip())
        return base if isinstance(base, Address) else Address(base, 0)
    if "|" in text:
        return tuple(operand(one.strip()) for one in text.split("|"))
    if (found := OPERAND.fullmatch(text)) is None:
        raise UnsupportedError(f"operand {text!r}")
    bits, name, offset = found.groups()
    if bits:
        return number(bits)
    return Address(name, number(offset)) if offset else name
