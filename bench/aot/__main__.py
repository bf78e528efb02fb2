"""Compiles for a platform that need not be there, and counts the machine instructions of every kernel.

    python -m bench.aot cuda
    python -m bench.aot tpu --store

Prints one JSON document; progress goes to stderr. With --store it compiles all that docs/static-report.md shows, not
only what tests/test_aot.py holds to ceilings, and writes the document to bench/aot/counts/, where that test finds what
to compare with.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
import tempfile
from typing import Any

from bench import results
from bench.aot.chips import COUNTS

# Read by the compilers and JAX when they are first used, so set before either is imported.
XLA_DUMPS = {"XLA_FLAGS": "--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_emitter_re=ptx"}
ENVIRONMENT = {
    "cuda": XLA_DUMPS,
    "jax_triton": XLA_DUMPS | {"JAX_TRITON_DUMP_DIR": "{dump}"},
    "tpu": {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": "--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true "
        "--xla_jf_dump_llo_pass_label_regex=final_bundles",  # what every pass made would take most of the time
    },
}


def measured(compiler: Any, cases: Any, everything: bool, dump: pathlib.Path) -> dict[str, Any]:
    """The counts of every case, by the module of a compiler, which dumps to `dump`."""
    import jax

    rows = []
    jobs = [(case, chip) for case in cases for chip in (case.chips if everything else case.tested_on())]
    for case, chip in jobs:
        for old in filter(pathlib.Path.is_file, dump.rglob("*")):
            old.unlink()
        try:
            counted = compiler.measure(case, chip, dump)
        except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
            if case.is_kernel:
                raise
            counted = {"error": str(error).splitlines()[0]}
        rows.append({"case": case.name, "chip": chip} | counted)
        print(rows[-1], file=sys.stderr, flush=True)
    return {"jax": jax.__version__, "compiler": compiler.version(), "cases": rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=str(__doc__).splitlines()[0])
    parser.add_argument("platform", choices=ENVIRONMENT)
    parser.add_argument("--store", action="store_true", help=f"compile all, and write {COUNTS.name}/PLATFORM.json")
    options = parser.parse_args()
    if options.platform == "tpu" and importlib.util.find_spec("libtpu") is None:
        sys.exit("libtpu, the compiler for TPUs, is not installed: run `make test-aot`, or pip install 'jax[tpu]'")
    with tempfile.TemporaryDirectory() as dump:
        os.environ |= {name: value.format(dump=dump) for name, value in ENVIRONMENT[options.platform].items()}
        os.environ["JAX_PLATFORMS"] = "cpu"
        cases = importlib.import_module("bench.aot.cases").cases(options.platform)
        compiler = importlib.import_module(f"bench.aot.{'tpu' if options.platform == 'tpu' else 'cuda'}")
        report = measured(compiler, cases, options.store, pathlib.Path(dump))
    if options.platform == "jax_triton":
        report["compiler"] = f"triton {importlib.metadata.version('triton')}, {report['compiler']}"
    text = results.as_text(report)
    if options.store:
        (COUNTS / f"{options.platform}.json").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
