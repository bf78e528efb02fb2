"""PTX text to instructions, with the registers, variables and labels that they name."""

import dataclasses
import functools
import itertools
import re

from .errors import UnsupportedError

TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/)|(?P<string>"[^"]*")
    |(?P<number>0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|0[xX][0-9a-fA-F]+U?\b|0[bB][01]+U?\b|\d+\.\d+|\d+U?\b)
    |(?P<word>[.%]?[A-Za-z_$][\w$]*(?:(?:\.|::)[\w$]+)*)|(?P<mark>[{}()\[\]<>,;:@!|+\-=])""",
    re.VERBOSE | re.DOTALL,
)
OF_A_LINE = (".version", ".target", ".address_size", ".file", ".loc")
ABOUT_A_KERNEL = (".reqntid", ".maxntid", ".minnctapersm", ".maxnreg", ".noreturn")


@dataclasses.dataclass(frozen=True)
class Vector:
    """`{a, b}`, or `p|q`."""

    elements: tuple["Operand", ...]


@dataclasses.dataclass(frozen=True)
class Address:
    """`[base + offset]`, or as a number `variable + offset`."""

    base: "Operand"
    offset: int


@dataclasses.dataclass(frozen=True)
class Complement:
    """`!p`."""

    register: str


Operand = str | int | Vector | Address | Complement  # a str names a register or a variable; a float is its bits


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction; without a guard all threads execute it."""

    line: int
    text: str
    opcode: str
    operands: tuple[Operand, ...]
    guard: str | Complement | None = None


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable or parameter: `count` elements of a type, None if the launch says how many."""

    name: str
    space: str
    kind: str
    count: int | None
    align: int
    is_pointer: bool
    values: tuple[int, ...]


@dataclasses.dataclass
class Entry:
    """A kernel; `labels` are places in the code, `required` and `at_most` the block that it was compiled for."""

    name: str
    parameters: list[Variable] = dataclasses.field(default_factory=list)
    registers: dict[str, str] = dataclasses.field(default_factory=dict)  # the type of each
    code: list[Instruction] = dataclasses.field(default_factory=list)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    required: tuple[int, ...] = ()
    at_most: tuple[int, ...] = ()


@dataclasses.dataclass
class Module:
    """The kernels of a module, and all variables, those of kernels too."""

    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)
    variables: list[Variable] = dataclasses.field(default_factory=list)


def number(text: str) -> int:
    """The value of an integer, or the bits of a float."""
    if text[:2].lower() in ("0f", "0d"):
        return int(text[2:], 16)
    digits = text.rstrip("U")
    return int(digits, 8 if digits[0] == "0" and digits.isdigit() else 0)


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Module:
    """Reads a module.

    Raises:
        UnsupportedError: A directive or a form of an operand that is not known, with its line.
    """
    return _Parser(text).module()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens, at, line = [], 0, 1
        while at < len(text):
            if (found := TOKEN.match(text, at)) is None:
                raise UnsupportedError(f"line {line}: cannot read {text[at : at + 20]!r}")
            if found.lastgroup != "skip":
                self.tokens.append((found.group(), line, at))
            at, line = found.end(), line + found.group().count("\n")
        self.tokens.append(("", line, at))
        self.source, self.at = text, 0
        self.found = Module()
        self.scopes: list[dict[str, str]] = []  # what the names that are declared in braces stand for
        self.fresh = itertools.count()

    # --- tokens

    @property
    def word(self) -> str:
        return self.tokens[self.at][0]

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][0]

    def accept(self, *texts: str) -> bool:
        """Whether the next token is one of these; if it is, it is passed."""
        is_there = self.word in texts
        self.at += is_there
        return is_there

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.unsupported(f"{text!r} is expected")

    def unsupported(self, what: str) -> UnsupportedError:
        line = self.tokens[self.at][1]
        row = self.source.split("\n")[line - 1].strip()
        return UnsupportedError(f"line {line}: {what} at {self.word!r}: {row}")

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if not self.word[:1].isdigit() or "." in self.word:
            raise self.unsupported("an integer or the bits of a float are expected")
        return sign * number(self.next())

    def listed(self, item: object, end: str) -> list[object]:
        """What `item` reads, with commas between, up to `end`."""
        found = []
        while not self.accept(end):
            found.append(item())
            if self.word != end:
                self.expect(",")
        return found

    # --- declarations

    def module(self) -> Module:
        while self.word:
            if not self.declaration():
                raise self.unsupported("unknown directive")
        return self.found

    def declaration(self) -> bool:
        """Passes what may stand in a module or a kernel and is not an instruction; whether there was one."""
        if self.word in OF_A_LINE:
            line = self.tokens[self.at][1]
            while self.tokens[self.at][1] == line and self.word:
                self.next()
        elif self.accept(".section"):
            while self.next() != "}":
                pass
        elif self.accept(".pragma"):
            self.listed(self.next, ";")
        elif self.accept(".entry"):
            self.entry()
        elif self.word in (".global", ".const", ".shared"):
            self.found.variables.append(self.variable())
            self.expect(";")
        else:
            return self.accept(".visible", ".extern", ".weak")
        return True

    def variable(self) -> Variable:
        space, kind, align, is_pointer, count, values = self.next()[1:], "", 0, False, 1, ()
        while self.word.startswith("."):
            if self.accept(".align"):
                align = self.integer()
            elif self.accept(".ptr", ".global"):
                is_pointer = True
            else:
                kind = self.next()[1:]
        name = self.next()
        if self.accept("["):
            count = None if self.word == "]" else self.integer()
            self.expect("]")
        if self.accept("="):
            values = tuple(self.listed(self.integer, "}")) if self.accept("{") else (self.integer(),)
        return Variable(name, space, kind, count, align, is_pointer, values)

    def entry(self) -> None:
        self.kernel = Entry(self.next())
        self.found.entries[self.kernel.name] = self.kernel
        if self.accept("("):
            self.kernel.parameters = self.listed(self.variable, ")")
        while self.word != "{":
            if not self.accept(*ABOUT_A_KERNEL):
                raise self.unsupported("unknown directive")
            name, numbers = self.tokens[self.at - 1][0], []
            while self.word[:1].isdigit():
                numbers.append(self.integer())
                self.accept(",")
            if name in (".reqntid", ".maxntid"):
                setattr(self.kernel, "required" if name == ".reqntid" else "at_most", tuple(numbers))
        self.body()

    # --- the body of a kernel

    def body(self) -> None:
        self.expect("{")
        self.scopes.append({})
        while not self.accept("}"):
            if self.word == "{":
                self.body()
            elif self.accept(".reg"):
                self.registers()
            elif self.tokens[self.at + 1][0] == ":":
                self.kernel.labels[self.next()] = len(self.kernel.code)
                self.next()
            elif not self.declaration():
                self.kernel.code.append(self.instruction())
        self.scopes.pop()

    def registers(self) -> None:
        kind, names = self.next()[1:], []
        while not self.accept(";"):
            names.append(self.next())
            if self.accept("<"):
                names[-1:] = [f"{names[-1]}{i}" for i in range(self.integer())]
                self.expect(">")
            self.accept(",")
        for name in names:
            unique = name if len(self.scopes) == 1 else f"{name}@{next(self.fresh)}"
            self.scopes[-1][name] = unique
            self.kernel.registers[unique] = kind

    def name(self) -> str:
        text = self.next()
        return next((scope[text] for scope in reversed(self.scopes) if text in scope), text)

    def instruction(self) -> Instruction:
        (_, line, start), guard = self.tokens[self.at], None
        if self.accept("@"):
            guard = Complement(self.name()) if self.accept("!") else self.name()
        if not self.word[:1].isalpha():
            raise self.unsupported("unknown directive")
        opcode, operands = self.next(), tuple(self.listed(self.operand, ";"))
        text = " ".join(self.source[start : self.tokens[self.at - 1][2]].split())
        return Instruction(line, text, opcode, operands, guard)

    def operand(self) -> Operand:
        if self.accept("{"):
            return Vector(tuple(self.listed(self.operand, "}")))
        if self.accept("["):
            base, offset = self.operand(), 0
            if isinstance(base, Address):
                base, offset = base.base, base.offset
            while self.accept("+") or self.word == "-":
                offset += self.integer()
            self.expect("]")
            return Address(base, offset)
        if self.accept("!"):
            return Complement(self.name())
        if self.word == "-" or self.word[:1].isdigit():
            return self.integer()
        name = self.name()
        if self.accept("+"):
            return Address(name, self.integer())
        return Vector((name, self.name())) if self.accept("|") else name
