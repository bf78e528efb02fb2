"""PTX text to instructions, with the registers, variables and labels that they name."""

import dataclasses
import functools
import re
from typing import NamedTuple

from .errors import UnsupportedError
from .kinds import KINDS, Kind

NAME = r"[%A-Za-z_$][\w$.]*"
NUMBER = r"-?(?:0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|0[bB][01]+U?|\d+U?)"  # of floats: bits
IGNORED = re.compile(
    r"//[^\n]*|/\*.*?\*/|^[ \t]*\.(?:version|target|address_size|file|loc)\b[^\n]*", re.DOTALL | re.MULTILINE
)
ITEM = re.compile(
    rf"""\s+|\.section\b[^{{}}]*\{{[^{{}}]*\}}|(?P<label>[\w$]+)\s*:(?!:)|(?P<brace>[{{}}])
    |(?:\.visible\s+|\.weak\s+)?\.entry\s+(?P<entry>{NAME})\s*(?:\((?P<parameters>[^()]*)\))?(?P<about>[^{{}};]*)\{{
    |(?P<statement>[^{{}};\s][^;]*);""",
    re.VERBOSE,
)
VARIABLE = re.compile(
    rf"""(?:\.(?:visible|extern|weak)\s+)?\.(?P<space>param|global|const|shared)
    (?:\s+(?:\.align\s+(?P<align>\d+)|\.(?P<pointer>ptr)|\.global|\.(?P<kind>{"|".join(KINDS)})))+\s+(?P<name>{NAME})
    \s*(?:(?P<array>\[)\s*(?P<count>\d*)\s*\])?(?:\s*=\s*\{{?(?P<values>\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*)\}}?)?""",
    re.VERBOSE,
)
INSTRUCTION = re.compile(rf"(?:@\s*(!?{NAME})\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
COMMA = re.compile(r",(?![^{\[]*[}\]])")  # not between braces or brackets
OPERAND = re.compile(rf"({NUMBER})|(!?)({NAME})(?:\s*(?:\+\s*|(?=-))({NUMBER}))?")
REGISTERS = re.compile(rf"\.reg\s+\.({'|'.join(KINDS)})\s+((?:{NAME}\s*(?:<\d+>)?\s*(?:,\s*|$))+)")
ABOUT = re.compile(r"([^\s\d,]\S*)([\s\d,]*)")  # a directive, and its numbers
ABOUT_A_KERNEL = {".reqntid", ".maxntid", ".minnctapersm", ".maxnreg", ".noreturn"}


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
    """A variable or parameter: `count` elements of a type, None if the launch says how many."""

    name: str
    space: str
    kind: Kind
    count: int | None
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


@dataclasses.dataclass
class Module:
    """The kernels of a module, and all variables, those of kernels too."""

    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)
    variables: dict[str, Variable] = dataclasses.field(default_factory=dict)


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Module:
    """Reads a module.

    Raises:
        UnsupportedError: A directive or a form of an operand that is not known, with its line.
    """
    parser, at, line = _Parser(), 0, 1
    text = IGNORED.sub(lambda ignored: "\n" * ignored[0].count("\n"), text)
    while at < len(text):
        found = ITEM.match(text, at)
        try:
            parser.take(found, line)
        except UnsupportedError as error:
            shown = " ".join(text[at:].partition(";")[0].split())
            raise UnsupportedError(f"line {line}: {error}: {shown[:200]}") from None
        at, line = found.end(), line + found[0].count("\n")
    if parser.scopes:
        raise UnsupportedError(f"line {line}: the text ends within a kernel")
    return parser.module


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
    count = int(found["count"] or 0) or None if found["array"] else 1
    values = tuple(map(number, re.findall(NUMBER, found["values"] or "")))
    kind, align, is_pointer = KINDS[found["kind"]], int(found["align"] or 0), bool(found["pointer"])
    return Variable(found["name"], found["space"], kind, count, align, is_pointer, values)


class _Parser:
    """The module as far as it was read; `scopes` say what the names that are declared in braces stand for."""

    def __init__(self) -> None:
        self.module, self.scopes = Module(), list[dict[str, str]]()
        self.kernel = Entry("", [], {})

    def take(self, found: re.Match[str] | None, line: int) -> None:
        """Takes the next item of the text in."""
        if found is None:
            raise UnsupportedError("neither an instruction nor a directive")
        label, brace, entry, parameters, about, statement = found.groups()
        if entry:
            self.entry(entry, parameters or "", about)
        elif statement and statement[0] == "." and not statement.startswith((".reg", ".pragma")):
            one = variable(statement)
            if self.module.variables.setdefault(one.name, one) is not one:
                raise UnsupportedError("a variable of this name was declared before")
        elif not self.scopes and (label or brace or statement):
            raise UnsupportedError("unknown directive")
        elif label:
            if label in self.kernel.labels:
                raise UnsupportedError("a label of this name was there before")
            self.kernel.labels[label] = len(self.kernel.code)
        elif brace == "{":
            self.scopes.append({})
        elif brace:
            self.scopes.pop()
        elif statement and statement.startswith(".reg"):
            self.registers(statement)
        elif statement and statement[0] != ".":
            self.kernel.code.append(self.instruction(statement, line))

    def entry(self, name: str, parameters: str, about: str) -> None:
        numbers = {word: tuple(map(int, re.findall(r"\d+", more))) for word, more in ABOUT.findall(about)}
        if unknown := numbers.keys() - ABOUT_A_KERNEL:
            raise UnsupportedError(f"unknown directive {', '.join(unknown)}")
        listed = [variable(one) for one in parameters.split(",") if one.strip()]
        self.kernel = self.module.entries[name] = Entry(name, listed, numbers)
        self.scopes.append({})

    def registers(self, text: str) -> None:
        if (found := REGISTERS.fullmatch(text.rstrip())) is None:
            raise UnsupportedError("registers of another form")
        for name, count in re.findall(rf"({NAME})\s*(?:<(\d+)>)?", found[2]):
            for one in [f"{name}{i}" for i in range(int(count))] if count else [name]:
                unique = one if len(self.scopes) == 1 else f"{one}@{len(self.kernel.registers)}"
                self.scopes[-1][one] = unique
                self.kernel.registers[unique] = KINDS[found[1]]

    def name(self, text: str) -> str:
        return next((scope[text] for scope in reversed(self.scopes) if text in scope), text)

    def instruction(self, text: str, line: int) -> Instruction:
        if (found := INSTRUCTION.fullmatch(text.rstrip())) is None:
            raise UnsupportedError("unknown instruction")
        guard, opcode, operands = found.groups()
        guard = guard and guard[: guard[0] == "!"] + self.name(guard.removeprefix("!"))
        return Instruction(line, " ".join(text.split()), opcode, self.operands(operands), guard)

    def operands(self, text: str) -> tuple[Operand, ...]:
        return tuple(map(self.operand, COMMA.split(text))) if text else ()

    def operand(self, text: str) -> Operand:
        text = text.strip()
        if text[:1] + text[-1:] == "{}":
            return self.operands(text[1:-1])
        if text[:1] + text[-1:] == "[]":
            base = self.operand(text[1:-1])
            return base if isinstance(base, Address) else Address(base, 0)
        if "|" in text:
            return tuple(map(self.operand, text.split("|")))
        if (found := OPERAND.fullmatch(text)) is None:
            raise UnsupportedError(f"operand {text!r}")
        bits, complement, name, offset = found.groups()
        if bits:
            return number(bits)
        return Address(self.name(name), number(offset)) if offset else complement + self.name(name)
