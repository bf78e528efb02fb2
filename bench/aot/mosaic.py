"""What Pallas' Mosaic GPU backend made of the calls in a program: their PTX, and how it is launched.

A call holds the kernel as MLIR. Mosaic compiles it inside XLA, once per process, and dumps the PTX and what each of its
passes was given to one folder. The first of these is the MLIR of the call, by which the two are matched. The last in
which the host still launches the kernel says with which grid, and which of the call's arrays the parameters are.
"""

import atexit
import contextlib
import functools
import importlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax._src.lib import mosaic_gpu_dialect
from jax.interpreters import mlir
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir.dialects import gpu

NAME = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = ")
CALL = re.compile(r'custom_call_target="mosaic_gpu[^"]*".*[{ ]module = "((?:[^"\\]|\\.)*)"')
PASS = "// -----// IR Dump "  # what each pass was given begins with it
LOG = ".mlir-passes.log"


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
    _disassemble_nothing(pathlib.Path(made) / "cuda")
    return pathlib.Path(made)


def _disassemble_nothing(folder: pathlib.Path) -> None:
    """Makes a folder of CUDA for Mosaic whose nvdisasm does nothing.

    Mosaic dumps the machine code of each kernel as well, disassembled twice, which takes three quarters of the time.
    """
    importlib.import_module("jax.experimental.mosaic.gpu")  # which sets the variable
    root = pathlib.Path(os.environ["MOSAIC_GPU_CUDA_ROOT"])
    (folder / "bin").mkdir(parents=True)
    for path in (*root.glob("*"), *root.glob("bin/*")):
        if path.name not in ("bin", "nvdisasm"):
            (folder / path.relative_to(root)).symlink_to(path)
    (folder / "bin" / "nvdisasm").symlink_to(str(shutil.which("true")))
    os.environ["MOSAIC_GPU_CUDA_ROOT"] = str(folder)


def launches(program: str) -> dict[str, Launch]:
    """The launch of each call in the text of a compiled program, by the name of the call's instruction."""
    return {name: launch(line) for line in program.splitlines() if CALL.search(line) for name in NAME.findall(line)}


def launch(call: str) -> Launch:
    """The launch of a call, which is a line of the text of a compiled program.

    Raises:
        FileNotFoundError: The kernel was not dumped.
        ValueError: It is launched in a way that is not known, such as with descriptors of TMA.
    """
    [quoted] = CALL.findall(call)
    text = _without_places(_unquoted(quoted), is_serialized=True)
    if text not in _dumps():
        raise FileNotFoundError(
            "Mosaic did not dump this kernel: it compiles each once in a process, and did so before "
            "bench.aot.mosaic.folder was called"
        )
    return _launch(*_dumps()[text])


_taken: dict[str, tuple[str, str]] = {}


def _dumps() -> dict[str, tuple[str, str]]:
    """The PTX of each kernel and how the host launches it, by its MLIR; files have megabytes, so they are removed."""
    for ptx in folder().glob("*.ptx"):
        passes = [text.partition("\n")[2] for text in ptx.with_suffix(LOG).read_text().split(PASS)[1:]]
        host = next(text for text in reversed(passes) if "gpu.launch_func" in text)
        _taken[_without_places(passes[0])] = ptx.read_text(), host
        for file in folder().glob(f"{ptx.stem}.*"):
            file.unlink()
    return _taken


def _launch(ptx: str, host: str) -> Launch:
    """Reads what the host does: its second argument points to the pointers to the arrays."""
    calls = list[gpu.LaunchFuncOp]()

    def look(operation: ir.Operation) -> ir.WalkResult:
        if isinstance(operation.opview, gpu.LaunchFuncOp):
            calls.append(operation.opview)
        return ir.WalkResult.ADVANCE

    with _module(host) as module:
        module.operation.walk(look)
        [call] = calls
        if call.clusterSizeX is not None:
            raise ValueError(f"it launches clusters of blocks: {call}")
        grid = [_number(size) for size in (call.gridSizeX, call.gridSizeY, call.gridSizeZ)]
        block = [_number(size) for size in (call.blockSizeX, call.blockSizeY, call.blockSizeZ)]
        shared, arrays = _number(call.dynamicSharedMemorySize), tuple(map(_position, call.kernelOperands))
        return Launch(ir.SymbolRefAttr(call.kernel).value[-1], ptx, tuple(grid), tuple(block), shared, arrays)


def _number(value: Any) -> int:
    if value.owner.name != "llvm.mlir.constant":
        raise ValueError(f"it is launched with {value}, which is not a constant")
    return value.owner.attributes["value"].value


def _position(value: Any) -> int:
    """Which of the arrays a kernel is given."""
    if value.owner.name == "llvm.load":
        pointer, index = value.owner.operands[0], 0
        if isinstance(pointer, ir.OpResult) and pointer.owner.name == "llvm.getelementptr":
            pointer, [index] = pointer.owner.operands[0], list(pointer.owner.attributes["rawConstantIndices"])
        if isinstance(pointer, ir.BlockArgument) and pointer.arg_number == 1:
            return index
    raise ValueError(f"it is given {value}, which is not one of the call's arrays")


@contextlib.contextmanager
def _module(source: str | bytes) -> Iterator[ir.Module]:
    with mlir.make_ir_context() as context, ir.Location.unknown():
        mosaic_gpu_dialect.register_dialect(context)
        context.allow_unregistered_dialects = True
        yield ir.Module.parse(source)


def _unquoted(text: str) -> bytes:
    r"""The bytes of a string of MLIR, in which they may be written as `\0A` or `\"`."""
    escape = re.compile(rb"\\([0-9A-F]{2}|.)")
    return escape.sub(lambda m: bytes([int(m[1], 16)]) if len(m[1]) == 2 else m[1], text.encode())


def _without_places(source: str | bytes, is_serialized: bool = False) -> str:
    """A module as text, without what a call and a dump differ in: places in source files, and the dump's name."""
    with _module(source) as module:
        if is_serialized:
            passmanager.PassManager.parse("builtin.module(mosaic_gpu-serde{serialize=false})").run(module.operation)
        if (name := "mosaic_gpu.dump_basename") in module.operation.attributes:
            del module.operation.attributes[name]
        return module.operation.get_asm(enable_debug_info=False)
