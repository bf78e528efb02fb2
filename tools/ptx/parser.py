"""PTX text to instructions, whose registers are declared and whose labels are found."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator

from .errors import Unsupported

TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<string>"[^"]*")
    |(?P<number>0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|0[xX][0-9a-fA-F]+U?\b|0[bB][01]+U?\b|\d+\.\d+|\d+U?\b)
    |(?P<word>[.%]?[A-Za-z_$][\w$]*(?:(?:\.|::)[\w$]+)*)
    |(?P<mark>[{}()\[\]<>,;:@!|+\-=])""",
    re.VERBOSE | re.DOTALL,
)
OF_A_LINE = (".version", ".target", ".address_size", ".file", ".loc")
ABOUT_A_KERNEL = (".reqntid", ".maxntid", ".minnctapersm", ".maxnreg", ".noreturn")
LINKAGE = (".visible", ".extern", ".weak")


@dataclasses.dataclass(frozen=True)
class Token:
    text: str
    line: int


@dataclasses.dataclass(frozen=True)
class Vector:
    """`{a, b}`."""

    elements: tuple["Operand", ...]


@dataclasses.dataclass(frozen=True)
class Address:
    """`[base + offset]`; a base of None is an address in numbers."""

    base: "Operand"
    offset: int


@dataclasses.dataclass(frozen=True)
class Complement:
    """`!p`."""

    register: str


@dataclasses.dataclass(frozen=True)
class Pair:
    """`p|q`."""

    first: str
    second: str


Operand = str | int | Vector | Address | Complement | Pair  # a str is the name of a register or a symbol


@dataclasses.dataclass(frozen=True)
class Instruction:
    line: int
    text: str
    opcode: str
    operands: tuple[Operand, ...]
    guard: str | Complement | None = None


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of a module or a kernel, or a parameter: the state space, the type, how many, and its bytes."""

    name: str
    space: str
    kind: str
    count: int | None  # None if the launch says how many
    align: int
    is_pointer: bool = False
    values: tuple[int, ...] = ()


@dataclasses.dataclass
class Entry:
    """A kernel."""

    name: str
    parameters: list[Variable] = dataclasses.field(default_factory=list)
    registers: dict[str, str] = dataclasses.field(default_factory=dict)  # the type of each
    variables: list[Variable] = dataclasses.field(default_factory=list)
    code: list[Instruction] = dataclasses.field(default_factory=list)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    threads: tuple[int, ...] = ()  # the block that it requires


@dataclasses.dataclass
class Module:
    entries: dict[str, Entry]
    variables: list[Variable]


def tokens_of(text: str) -> Iterator[Token]:
    position, line = 0, 1
    while position < len(text):
        if (found := TOKEN.match(text, position)) is None:
            raise Unsupported(f"line {line}: cannot read {text[position : position + 20]!r}")
        if found.lastgroup != "skip":
            yield Token(found.group(), line)
        position, line = found.end(), line + found.group().count("\n")


def number(text: str) -> int:
    """The value of an integer, or the bits of a float."""
    if text[:2] in ("0f", "0F", "0d", "0D"):
        return int(text[2:], 16)
    return int(text.rstrip("U"), 0 if text[:1] != "0" or not text.rstrip("U").isdigit() else 8)


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Module:
    return _Parser(text).module()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = [*tokens_of(text), Token("", text.count("\n") + 1)]
        self.lines = text.split("\n")
        self.at = 0
        self.scopes: list[dict[str, str]] = []  # what the names in braces stand for
        self.fresh = itertools.count()

    # --- tokens

    def peek(self) -> str:
        return self.tokens[self.at].text

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1].text

    def accept(self, text: str) -> bool:
        if self.peek() == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.unsupported(f"{self.peek()!r} where {text!r} is expected")

    def unsupported(self, what: str) -> Unsupported:
        line = self.tokens[self.at].line
        return Unsupported(f"line {line}: {what}: {self.lines[line - 1].strip()}")

    def skip_line(self) -> None:
        line = self.tokens[self.at].line
        while self.peek() and self.tokens[self.at].line == line:
            self.at += 1

    def skip_braces(self) -> None:
        while not self.accept("{"):
            self.at += 1
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.next(), 0)

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if not self.peek()[:1].isdigit():
            raise self.unsupported(f"{self.peek()!r} where a number is expected")
        return sign * number(self.next())

    # --- a module

    def module(self) -> Module:
        found = Module({}, [])
        while self.peek():
            if self.peek() in OF_A_LINE:
                self.skip_line()
            elif self.peek() == ".section":
                self.skip_braces()
            elif self.peek() in LINKAGE:
                self.next()
            elif self.accept(".entry"):
                entry = self.entry()
                found.entries[entry.name] = entry
            elif self.peek() in (".global", ".const", ".shared"):
                found.variables.append(self.variable())
            else:
                raise self.unsupported(f"unknown directive {self.peek()!r}")
        return found

    def variable(self, ends: str = ";") -> Variable:
        space, kind, align, is_pointer = self.next(), "", 0, False
        while self.peek().startswith("."):
            word = self.next()
            if word == ".align":
                align = self.integer()
            elif word in (".ptr", ".global"):
                is_pointer = True
            else:
                kind = word[1:]
        name, count, values = self.next(), 1, ()
        if self.accept("["):
            count = None if self.peek() == "]" else self.integer()
            self.expect("]")
        if self.accept("="):
            self.accept("{")
            values = (self.integer(),)
            while self.accept(","):
                values += (self.integer(),)
            self.accept("}")
        if ends:
            self.expect(ends)
        return Variable(name, space[1:], kind, count, align, is_pointer, values)

    def entry(self) -> Entry:
        self.kernel = Entry(self.next())
        if self.accept("("):
            while not self.accept(")"):
                self.kernel.parameters.append(self.variable(ends=""))
                self.accept(",")
        while self.peek() != "{":
            if (word := self.next()) not in ABOUT_A_KERNEL:
                self.at -= 1
                raise self.unsupported(f"unknown directive {word!r}")
            numbers = [self.integer()] if self.peek()[:1].isdigit() else []
            while self.accept(","):
                numbers.append(self.integer())
            if word == ".reqntid":
                self.kernel.threads = tuple(numbers)
        self.body()
        return self.kernel

    # --- the body of a kernel

    def body(self) -> None:
        self.expect("{")
        self.scopes.append({})
        while not self.accept("}"):
            if self.peek() == "{":
                self.body()
            elif self.peek() == ".reg":
                self.declare()
            elif self.peek() in (".shared", ".const", ".global"):
                self.kernel.variables.append(self.variable())
            elif self.peek() in OF_A_LINE:
                self.skip_line()
            elif self.accept(".pragma"):
                self.next()
                self.expect(";")
            elif self.tokens[self.at + 1].text == ":":
                self.kernel.labels[self.next()] = len(self.kernel.code)
                self.next()
            else:
                self.kernel.code.append(self.instruction())
        self.scopes.pop()

    def declare(self) -> None:
        self.expect(".reg")
        kind = self.next()[1:]
        while True:
            name = self.next()
            names = [name]
            if self.accept("<"):
                names = [f"{name}{i}" for i in range(self.integer())]
                self.expect(">")
            for name in names:
                unique = name if len(self.scopes) == 1 else f"{name}@{next(self.fresh)}"
                self.scopes[-1][name] = unique
                self.kernel.registers[unique] = kind
            if not self.accept(","):
                break
        self.expect(";")

    def resolve(self, name: str) -> str:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), name)

    def instruction(self) -> Instruction:
        start, guard = self.tokens[self.at], None
        if self.accept("@"):
            guard = Complement(self.resolve(self.next())) if self.accept("!") else self.resolve(self.next())
        opcode, operands = self.next(), []
        if not opcode[:1].isalpha():
            self.at -= 1
            raise self.unsupported(f"unknown directive {opcode!r}")
        while not self.accept(";"):
            operands.append(self.operand())
            if self.peek() != ";":
                self.expect(",")
        return Instruction(start.line, self.lines[start.line - 1].strip(), opcode, tuple(operands), guard)

    def operand(self) -> Operand:
        if self.accept("{"):
            elements = [self.operand()]
            while self.accept(","):
                elements.append(self.operand())
            self.expect("}")
            return Vector(tuple(elements))
        if self.accept("["):
            base, offset = self.operand(), 0
            while self.peek() in ("+", "-"):
                offset += self.integer() if not self.accept("+") else self.integer()
            self.expect("]")
            return Address(base, offset)
        if self.accept("!"):
            return Complement(self.resolve(self.next()))
        if self.peek() == "-" or self.peek()[:1].isdigit():
            return self.integer()
        name = self.resolve(self.next())
        return Pair(name, self.resolve(self.next())) if self.accept("|") else name
