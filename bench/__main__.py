"""Measures every operation on the device that JAX finds, beside what could be used instead, and prints the table.

    python -m bench                                  # everything; on two cores of a CPU half an hour
    python -m bench --quick                          # within two minutes
    python -m bench --only Philox int8 --sizes 24 27 # operations by words in their names, sizes as powers of 2
    python -m bench --only overhead                  # calls on few elements, and compilation, beside the formula's

The results are checked against NumPy, and are kept as JSON; docs/benchmarks.md says how times are taken. The run ends
with the table of that page.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX is imported; PyTorch needs memory too

import jax

from bench import cases, libraries, machine, overhead, results
from bench.runner import Runner
from bench.timing import Patience

try:
    from tqdm import tqdm
except ImportError:  # it measures without a progress bar too, where nothing can be installed
    tqdm = None

# How long to measure each case, which cases there are, and after how many minutes none is begun.
FULL = (Patience(), cases.EXPONENTS, cases.DTYPES, float("inf"))
QUICK = (Patience(least=5, most=5, seconds=0.2), cases.QUICK_EXPONENTS, cases.QUICK_DTYPES, 1.75)
LONGEST = 1.5  # seconds of a call


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # fmt: off
    parser.add_argument("--quick", action="store_true",
                        help="one size, one dtype, few repeats, within two minutes; the most valuable operations first")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD",
                        help="operations that have all these words in their names; or overhead")
    parser.add_argument("--sizes", type=int, nargs="+", choices=range(10, 33), metavar="N",
                        help="elements, as powers of 2 from 10 to 32 "
                             f"(default: {' '.join(map(str, cases.EXPONENTS))}, as far as memory goes)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out") / "bench", metavar="FOLDER",
                        help="where <device>/<date>.json goes (default: %(default)s; bench/results is what the "
                             "documentation shows)")
    # fmt: on
    return parser.parse_args()


def main() -> None:
    """Runs the command line; ends with status 1 if a result is wrong."""
    options, begin = arguments(), time.perf_counter()
    patience, exponents, dtypes, minutes = QUICK if options.quick else FULL
    of_calls = options.only == ["overhead"]
    if of_calls:
        jax.config.update("jax_num_cpu_devices", overhead.DEVICES)
    about = machine.description()
    chosen = list(cases.select(about["platform"], options.sizes or exponents, dtypes, options.only))
    if not chosen and not of_calls:
        names = dict.fromkeys(case.operation.name for case in cases.select(about["platform"], exponents))
        there = "\n  ".join([*names, "overhead"])
        sys.exit(f"--only {' '.join(options.only)}: no operation has all these words in its name; there are\n  {there}")
    report = about | {"settings": vars(patience) | {"quick": options.quick}, "cases": []}
    path = results.new_path(options.out, about["device"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # better now than when there is something to lose
        sys.exit(f"--out {options.out}: {error.strerror}; give a folder that can be written to")
    print(f"{about['device']}; {', '.join(f'{name} {v}' for name, v in about['versions'].items())}")
    if of_calls:
        report["overhead"] = overhead.measured()
        results.write(path, report)
        print(f"kept in {path}\n\n{overhead.tables(report['overhead'])}")
        return
    print("".join(f"not measured: {line}\n" for line in libraries.missing()))
    runner = Runner(cases.implementations(about["platform"]), patience, LONGEST)
    say = tqdm.write if tqdm else print
    for case in tqdm(chosen, unit="case", disable=None) if tqdm else chosen:  # None: no progress bar in a log
        if time.perf_counter() - begin > 60 * minutes:
            say(f"not measured, for lack of time: {results.title(case.key)}")
            continue
        report["cases"].append(found := runner.run(case))
        results.write(path, report)
        say(results.listing(found) + "\n")
    print(f"{len(report['cases'])} cases in {time.perf_counter() - begin:.0f} s, kept in {path}\n")
    print(results.table(report["cases"]))
    wrong = [f"{results.title(c)}: {name}" for c in report["cases"] for name, r in c["results"].items() if "wrong" in r]
    if wrong:
        sys.exit("wrong results:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
