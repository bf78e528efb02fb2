"""What Pallas' Mosaic GPU backend made of the calls in a program: their PTX, and how it is launched.

A call holds the kernel as MLIR. Mosaic compiles it inside XLA, once per process, and dumps the PTX and what each of its
passes was given to one folder. The first of these is the MLIR of the call, by which the two are matched. The last in
which the host still launches the kernel says with which grid, and which of the call's arrays the parameters are.
"""

import atexit
import functools
import os
import pathlib
import re
import shutil
import tempfile
from typing import NamedTuple

from jax._src.lib import mosaic_gpu_dialect
from jax.interpreters import mlir
from jaxlib.mlir import ir, passmanager

CALL = re.compile(r'%([\w.-]+) = .*custom_call_target="mosaic_gpu[^"]*".*[{ ]module = "((?:[^"\\]|\\.)*)"')
PASS = "// -----// IR Dump "  # what each pass was given begins with it
LOG = ".mlir-passes.log"
LAUNCH = re.compile(
    r"gpu\.launch_func .*?@[\w$]+::@([\w$]+) blocks in \((.*?)\) threads in \((.*?)\) : i64 "
    r"dynamic_shared_memory_size (%\w+) args\((.*?)\)"
)
CONSTANT = re.compile(r"(%\w+) = (?:llvm\.mlir|arith)\.constant\(?\s*(\d+) : ")
ARRAY = re.compile(r"(%\w+) = llvm\.getelementptr (%arg\d+)\[(\d+)\]")
LOAD = re.compile(r"(%\w+) = llvm\.load (%\w+) ")


class Launch(NamedTuple):
    """A launch; `arrays` are what the parameters are: positions among the call's operands and, behind them, results."""

    name: str
    text: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    arrays: tuple[int, ...]


@functools.cache
def folder() -> pathlib.Path:
    """Makes Mosaic dump what it compiles from now on in this process, and returns where."""
    made = tempfile.mkdtemp(prefix="mosaic_gpu_")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ["MOSAIC_GPU_DUMP_TO"] = made
    return pathlib.Path(made)


def launches(program: str) -> dict[str, Launch]:
    """The launch of each call in the text of a program that was compiled, by the name of the call's instruction.

    Raises:
        LookupError: The kernel of a call was not dumped.
        ValueError: A kernel is launched in a way that is not known, such as with descriptors of TMA.
    """
    found = {}
    for name, quoted in CALL.findall(program):
        text = _without_places(_unquoted(quoted), is_serialized=True)
        if text not in _dumped():
            raise LookupError(
                f"Mosaic dumped nothing for {name}: it compiles a kernel once in a process, and did so before "
                "bench.aot.mosaic.folder was called"
            )
        found[name] = _dumped()[text]
    return found


_launches: dict[str, Launch] = {}  # of all kernels of this process, by their MLIR


def _dumped() -> dict[str, Launch]:
    """All launches, after taking in what was dumped since the last call; a dump has megabytes, and is removed."""
    for log in sorted(folder().glob(f"*{LOG}")):
        passes, base = log.read_text().split(PASS)[1:], log.name.removesuffix(LOG)
        ptx = (folder() / f"{base}.ptx").read_text()
        _launches[_without_places(passes[0].partition("\n")[2])] = _launch(ptx, passes)
        for file in folder().glob(f"{base}.*"):
            file.unlink()
    return _launches


def _launch(ptx: str, passes: list[str]) -> Launch:
    """Reads the host's function, whose second argument points to the pointers to the arrays."""
    host = next(text for text in reversed(passes) if "gpu.launch_func" in text)
    if (found := LAUNCH.search(host)) is None:
        call = host[host.index("gpu.launch_func") :].partition("\n")[0]
        raise ValueError(f"a launch of another form: {call[:300]}")
    name, grid, block, shared, given = found.groups()
    numbers = {name: int(value) for name, value in CONSTANT.findall(host)}
    places = {"%arg1": 0} | {name: int(i) for name, base, i in ARRAY.findall(host) if base == "%arg1"}
    arrays = {name: places[place] for name, place in LOAD.findall(host) if place in places}
    try:
        grid, block = (tuple(numbers[one] for one in group.split(", ")) for group in (grid, block))
        parameters = tuple(arrays[one.partition(" ")[0]] for one in given.split(", "))
    except KeyError as error:
        raise ValueError(f"{name} is launched with {error}, which is not a constant or an array: {found[0]}") from None
    return Launch(name, ptx, grid, block, numbers[shared], parameters)


def _unquoted(text: str) -> bytes:
    r"""The bytes of a string of MLIR, in which they may be written as `\0A` or `\"`."""
    escape = re.compile(rb"\\([0-9A-F]{2}|.)")
    return escape.sub(lambda m: bytes([int(m[1], 16)]) if len(m[1]) == 2 else m[1], text.encode())


def _without_places(module: str | bytes, is_serialized: bool = False) -> str:
    """A module as text, without what a call and a dump differ in: places in source files, and the dump's name."""
    with mlir.make_ir_context() as context, ir.Location.unknown():
        mosaic_gpu_dialect.register_dialect(context)
        context.allow_unregistered_dialects = True
        parsed = ir.Module.parse(module)
        if is_serialized:
            passmanager.PassManager.parse("builtin.module(mosaic_gpu-serde{serialize=false})").run(parsed.operation)
        if (name := "mosaic_gpu.dump_basename") in parsed.operation.attributes:
            del parsed.operation.attributes[name]
        return parsed.operation.get_asm(enable_debug_info=False)
