"""Compiles programs for many devices that need not be there, and says what each device would do.

    python -m bench.aot.sharded cuda
    python -m bench.aot.sharded tpu

Prints one JSON document; progress goes to stderr.
"""

import argparse
import importlib
import os
import sys

from bench.aot.__main__ import as_text

ENVIRONMENT = {  # read when JAX and the compilers are first used, so set before either is imported
    "cuda": {},
    "tpu": {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.aot.sharded", description=str(__doc__).splitlines()[0])
    parser.add_argument("platform", choices=ENVIRONMENT)
    platform = parser.parse_args().platform
    os.environ |= {"JAX_PLATFORMS": "cpu", **ENVIRONMENT[platform]}
    sys.stdout.write(as_text(importlib.import_module("bench.aot.shards").report(platform)))


if __name__ == "__main__":
    main()
