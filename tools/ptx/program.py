"""Compiles a function for an H100 that need not be there, and runs what was compiled on NumPy arrays."""

import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bench.aot.cuda import h100

from .dump import Array, Dump, Instruction, Kernel, Place
from .machine import Execution
from .running import run

OPTIONS = {"xla_dump_hlo_as_text": True, "xla_dump_large_constants": True, "xla_dump_emitter_re": "ptx"}
Blocks = Mapping[str, Sequence[int]]
UNWRITTEN = 0xA5  # the bytes of a result that no kernel wrote
NUMBER = re.compile(r"-?(?:inf|nan|[\d.]+(?:e[+-]?\d+)?)")


@dataclasses.dataclass(frozen=True)
class Copy:
    """A copy of an array within the device's memory, or of some of its bytes from the byte `begin`, to a byte `at`."""

    source: Place
    target: Place
    begin: int = 0
    size: int | None = None
    at: int = 0


class Program:
    """What XLA made of a function. Called with NumPy arrays, it runs that and returns the function's results.

    Attributes:
        kernels: The launches.
        executions: What each launch of the last call executed.
    """

    def __init__(self, dump: Dump, arguments: Any, results: Any) -> None:
        self._arguments, self._tree = arguments, results
        self._given: dict[int, Place] = {}
        self._constants: dict[Place, np.ndarray] = {}
        self._steps: list[Kernel | Copy] = []
        self._results: list[tuple[Array, Place]] = []
        self.executions: list[Execution] = []
        places: dict[str, tuple[Place, ...]] = {}
        kinds: dict[str, list[Array]] = {}
        for one in dump.instructions:
            kinds[one.name] = one.results
            operands = [places[name] for name in one.operands]
            if one.operation == "copy" and kinds[one.operands[0]] != kinds[one.name]:
                raise one.unsupported("it changes the order of the axes in memory")
            places[one.name] = self._add(one, dump, operands)
            for i, place in enumerate(places[one.name]):  # as JAX 0.11 and later write an element of a tuple
                places[f"{one.name}#{i}"], kinds[f"{one.name}#{i}"] = (place,), [one.results[i]]
            is_outside = one.is_root or one.operation in ("parameter", "constant")
            if is_outside and any(kind.order != tuple(range(len(kind.shape))) for kind in one.results):
                raise one.unsupported("the order of its axes in memory")
            if one.is_root:
                self._results = list(zip(one.results, places[one.name], strict=True))
        self.kernels = [step for step in self._steps if isinstance(step, Kernel)]

    def _add(self, one: Instruction, dump: Dump, operands: list[tuple[Place, ...]]) -> tuple[Place, ...]:
        """Takes an instruction in; returns where its results lie."""
        match one.operation:
            case "bitcast" | "tuple":
                return sum(operands, ())
            case "get-tuple-element":
                return (operands[0][int(one.rest.partition("index=")[2].partition(",")[0])],)
            case "parameter" | "constant" | "copy" | "fusion" | "custom-call":
                results = tuple(dump.places[f"{one.name}/{i}"] for i in range(len(one.results)))
            case _:
                raise one.unsupported("what it launches is not known")
        match one.operation:
            case "parameter":
                self._given[int(one.inside)] = results[0]
            case "constant":
                self._constants[results[0]] = _bytes(_literal(one))
            case "copy":
                self._steps.append(Copy(operands[0][0], results[0]))
            case _ if (copied := dump.copied(one)) is not None:
                which, *numbers = copied
                self._steps.append(Copy(operands[which][0], results[0], *numbers))
            case _:
                self._steps.append(dump.kernel(one, sum(operands, ()), results))
        return results

    def __call__(self, *arrays: Any, blocks: Blocks | None = None, trace: tuple[str, int, int] | None = None) -> Any:
        """Runs the program.

        Args:
            *arrays: NumPy arrays of the shapes and dtypes that it was compiled for.
            blocks: The numbers of the blocks to run, by the name of the kernel; other kernels run in full. Bytes that
                no block wrote are `UNWRITTEN`.
            trace: A kernel's name, and the block and the thread in it whose instructions are recorded.

        Raises:
            ValueError: If a shape, a dtype or the name of a kernel is not the program's.
        """
        blocks, names = blocks or {}, {kernel.name for kernel in self.kernels}
        if unknown := sorted({*blocks, *(trace or ())[:1]} - names):
            raise ValueError(f"no kernel {', '.join(unknown)}: the kernels are {', '.join(sorted(names))}")
        memory = dict(self._constants)
        given, tree = jax.tree.flatten(arrays)
        wanted, expected = jax.tree.flatten(self._arguments)
        if tree != expected:
            raise ValueError(f"the arguments are {tree}; the program was compiled for {expected}")
        for i, (value, aval) in enumerate(zip(map(np.asarray, given), wanted, strict=True)):
            if (value.shape, value.dtype) != (aval.shape, aval.dtype):
                raise ValueError(f"argument {i} is {value.dtype}{value.shape}, compiled for {aval.dtype}{aval.shape}")
            memory[self._given[i]] = _bytes(value)
        self.executions = []
        for step in self._steps:
            if isinstance(step, Copy):
                source = memory[step.source][step.begin :][: step.size]
                memory.setdefault(step.target, np.empty(step.target.size, np.uint8))
                memory[step.target][step.at : step.at + source.size] = source
            else:
                traced = trace[1:] if trace and trace[0] == step.name else None
                self.executions.append(_launch(step, memory, blocks=blocks.get(step.name), trace=traced))
        results = [memory[place].view(kind.dtype).reshape(kind.shape) for kind, place in self._results]
        return jax.tree.unflatten(self._tree, results)


def compile(function: Callable[..., Any], *avals: Any) -> Program:
    """Compiles a function for an H100.

    Args:
        function: A function of pytrees of arrays.
        *avals: Its arguments, as arrays or as `jax.ShapeDtypeStruct`.

    Raises:
        ptx.UnsupportedError: An instruction of the program is not a kernel, a copy or a view; the message names it.
        RuntimeError: If the compiler is not there.
    """
    try:
        sharding = jax.NamedSharding(h100(), jax.P())
    except NotImplementedError as error:
        raise RuntimeError(
            "JAX did not load its compiler for CUDA: `make test-ptx` installs it in .venv-aot, or pip install "
            "'jax[cuda13-local]'; and if there is no GPU, set JAX_PLATFORMS=cpu before JAX starts"
        ) from error
    described = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), avals)
    with tempfile.TemporaryDirectory() as folder:
        with jax.set_mesh(h100()):  # Pallas reads the device from it
            lowered = jax.jit(function, keep_unused=True).trace(*described).lower()
            lowered.compile(compiler_options={**OPTIONS, "xla_dump_to": folder})
        return Program(Dump(pathlib.Path(folder)), described, lowered.out_tree)


def _launch(kernel: Kernel, memory: dict[Place, np.ndarray], **options: Any) -> Execution:
    """Runs a kernel; a result in the memory of an operand is the same array, and other operands cannot be written."""
    for i in kernel.results:
        memory[kernel.parameters[i]] = np.full(kernel.parameters[i].size, UNWRITTEN, np.uint8)
    buffers = [memory[place].view() for place in kernel.parameters]
    for i in kernel.operands:
        buffers[i].flags.writeable = False
    nulls = [None] * kernel.nulls
    options |= {"grid": kernel.grid, "block": kernel.block, "shared": kernel.shared, "entry": kernel.name}
    return run(kernel.text, *buffers, *nulls, outputs=kernel.results, alignments=kernel.alignments, **options)


def _literal(one: Instruction) -> np.ndarray:
    """The value of a constant."""
    words = re.sub(r"/\*.*?\*/|[{},]", " ", one.inside).split()
    if not all(map(NUMBER.fullmatch, words)):
        raise one.unsupported(f"cannot read its value {one.inside[:40]}")
    [kind] = one.results
    read = int if kind.dtype.kind in "biu" else float
    return np.asarray([read(word) for word in words], kind.dtype).reshape(kind.shape)


def _bytes(value: np.ndarray) -> np.ndarray:
    """An array as it lies in the device's memory."""
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
