"""Compiles every kernel for a platform that need not be there, and counts the machine instructions of each.

    python -m bench.aot cuda
    python -m bench.aot tpu --store

Prints one JSON document; progress goes to stderr. With --store it is also written to bench/aot/counts/, where
tests/test_aot.py finds what to compare with.
"""

import argparse
import importlib
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

XLA_DUMPS = {"XLA_FLAGS": "--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_emitter_re=.*"}
ENVIRONMENT = {  # read by the compilers and JAX when they are first used, so set before either is imported
    "cuda": XLA_DUMPS,
    "triton": XLA_DUMPS | {"JAX_TRITON_DUMP_DIR": "{dump}"},
    "tpu": {
        "LIBTPU_INIT_ARGS": "--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    },
}
COUNTS = pathlib.Path(__file__).parent / "counts"


def as_text(report: dict[str, Any]) -> str:
    """The report as JSON, a line a case, so that a person can read it and a diff shows what changed."""
    head = {key: value for key, value in report.items() if key != "cases"}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in report["cases"])
    return f'{json.dumps(head)[:-1]}, "cases": [\n{rows}\n]}}\n'


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.aot", description=__doc__.splitlines()[0])
    parser.add_argument("platform", choices=ENVIRONMENT)
    parser.add_argument("--store", action="store_true", help=f"also write {COUNTS.name}/PLATFORM.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as dump:
        for name, value in ENVIRONMENT[arguments.platform].items():
            os.environ[name] = value.format(dump=dump)
        os.environ["JAX_PLATFORMS"] = "cpu"
        report = as_text(importlib.import_module(f"bench.aot.{arguments.platform}").report(pathlib.Path(dump)))
    if arguments.store:
        COUNTS.mkdir(exist_ok=True)
        (COUNTS / f"{arguments.platform}.json").write_text(report)
    sys.stdout.write(report)


if __name__ == "__main__":
    main()
