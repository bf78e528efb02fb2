"""Compiles for a platform that need not be there, and counts the machine instructions of every kernel.

    python -m bench.aot cuda
    python -m bench.aot tpu --store
    python -m bench.aot tpu --sharded

Prints one JSON document; progress goes to stderr. With --store it compiles all that docs/static-report.md shows, and
not only what tests/test_aot.py holds to ceilings, and writes the document to bench/aot/counts/ as well, where that test
finds what to compare with. With --sharded it compiles programs for many devices, and says what each device would do.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

# Read by the compilers and JAX when they are first used, so set before either is imported.
ENVIRONMENT = {
    "cuda": {},
    "triton": {},
    "tpu": {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
}
XLA_DUMPS = {"XLA_FLAGS": "--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_emitter_re=.*"}
DUMPS = {
    "cuda": XLA_DUMPS,
    "triton": XLA_DUMPS | {"JAX_TRITON_DUMP_DIR": "{dump}"},
    "tpu": {"LIBTPU_INIT_ARGS": "--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true"},
}
COUNTS = pathlib.Path(__file__).parent / "counts"


def as_text(report: dict[str, Any]) -> str:
    """The report as JSON, a line a case, so that a person can read it and a diff shows what changed."""
    head = {key: value for key, value in report.items() if key != "cases"}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in report["cases"])
    return f'{json.dumps(head)[:-1]}, "cases": [\n{rows}\n]}}\n'


def measured(platform: Any, everything: bool, dump: pathlib.Path) -> dict[str, Any]:
    """The counts of every case of a platform's module; the compiler dumps to `dump`."""
    import jax

    from bench.aot.cases import NotCountedError

    rows = []
    for case, chip in platform.jobs(everything):
        for old in dump.rglob("*"):
            if old.is_file():
                old.unlink()
        try:
            row = platform.measure(case, chip, dump)
        except (jax.errors.JaxRuntimeError, NotImplementedError, NotCountedError) as error:
            if case.is_kernel:
                raise
            row = {"case": case.name, "chip": chip, "error": str(error).splitlines()[0]}
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return {"jax": jax.__version__, "compiler": platform.compiler(), "cases": rows}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=str(__doc__).splitlines()[0])
    parser.add_argument("platform", choices=ENVIRONMENT)
    parser.add_argument("--store", action="store_true", help=f"compile more, and write {COUNTS.name}/PLATFORM.json")
    parser.add_argument("--sharded", action="store_true", help="compile sharded programs instead")
    arguments = parser.parse_args()
    platform = arguments.platform
    if platform == "tpu" and importlib.util.find_spec("libtpu") is None:
        sys.exit(
            "libtpu, the compiler for TPUs, is not there: `make test-aot` installs it, as does pip install jax[tpu]"
        )
    os.environ |= {"JAX_PLATFORMS": "cpu", **ENVIRONMENT[platform]}
    if arguments.sharded:
        sys.stdout.write(as_text(importlib.import_module("bench.aot.shards").report(platform)))
        return
    with tempfile.TemporaryDirectory() as dump:
        os.environ |= {name: value.format(dump=dump) for name, value in DUMPS[platform].items()}
        module = importlib.import_module(f"bench.aot.{platform}")
        report = as_text(measured(module, arguments.store, pathlib.Path(dump)))
    if arguments.store:
        COUNTS.mkdir(exist_ok=True)
        (COUNTS / f"{platform}.json").write_text(report)
    sys.stdout.write(report)


if __name__ == "__main__":
    main()
