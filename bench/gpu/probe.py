"""Which card this is: prints `machine.description()` as JSON, or ends with a line that says what to do.

In a process of its own, for one that has started JAX holds some of the card's memory until it ends.
"""

import json
import sys

import jax

from bench import machine


def main() -> None:
    """Runs the command line."""
    about = machine.description()
    if about["platform"] != "cuda" and "--rehearsal" not in sys.argv:
        sys.exit(
            f"python -m bench.gpu needs an NVIDIA GPU, and JAX {jax.__version__} found {about['platform']} only: "
            "install JAX's CUDA plugin (pip install 'jax[cuda13]') where there is one, or try it out with --rehearsal. "
            "Nothing was written."
        )
    print(json.dumps(about))


if __name__ == "__main__":
    main()
