"""Measures every operation on the device that JAX finds, beside what could be used instead, and prints the table.

    python -m bench                                  # everything; on two cores of a CPU half an hour
    python -m bench --quick                          # within two minutes
    python -m bench --only Philox int8 --sizes 24 27 # operations by words in their names, sizes as powers of 2
    python -m bench --only overhead                  # calls on few elements, and compilation, beside the formula's

Calls take turns, on inputs that are not in the cache, into memory that is there already. Times are medians; GB/s count
the least bytes that an operation must move, the copy moves as many, and ratios are to the speed of FJFormer's formula
under jit. Where a profiler tells the device's own time, GB/s and ratios are of that, and the wall's stands beside it.
The results are checked against NumPy, and are kept as JSON. It ends with one line per case.
"""

import argparse
import functools
import os
import pathlib
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX is imported; PyTorch needs memory too

from bench import cases, libraries, machine, overhead, results, summary
from bench.runner import Runner
from bench.timing import Patience

try:
    from tqdm import tqdm
except ImportError:  # it measures without a progress bar too, where nothing can be installed
    tqdm = None

OUT = pathlib.Path("out") / "bench"
PATIENCE = Patience()
QUICK = Patience(least=5, most=5, seconds=0.2)
QUICK_MINUTES = 1.75


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # fmt: off
    parser.add_argument("--quick", action="store_true",
                        help="one size, one dtype, few repeats, within two minutes")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD",
                        help="operations that have all these words in their names")
    parser.add_argument("--sizes", type=int, nargs="+", choices=range(10, 33), metavar="N",
                        help="elements, as powers of 2 from 10 to 32 "
                             f"(default: {' '.join(map(str, cases.EXPONENTS))}, as far as memory goes)")
    parser.add_argument("--dtypes", nargs="+", choices=(*cases.DTYPES, "float16"),
                        help=f"dtypes of x (default: {' '.join(cases.DTYPES)}; --quick: {cases.QUICK_DTYPES[0]})")
    parser.add_argument("--every-rank", action="store_true",
                        help="measure every size as [batch, sequence, features] too, and not two of them alone")
    parser.add_argument("--seconds", type=float, metavar="S",
                        help=f"how long to repeat a case (default: {PATIENCE.seconds}), for at least "
                             f"{PATIENCE.least} and at most {PATIENCE.most} rounds")
    parser.add_argument("--longest", type=float, default=1.5, metavar="S",
                        help="leave out calls that would take longer (default: %(default)s)")
    parser.add_argument("--minutes", type=float, metavar="M",
                        help=f"begin no case after so many, and name those left out (--quick: {QUICK_MINUTES})")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, metavar="FOLDER",
                        help="where <device>/<date>.json goes (default: %(default)s; bench/results is what the "
                             "documentation shows)")
    # fmt: on
    return parser.parse_args()


def settings(options: argparse.Namespace) -> Patience:
    """How long to measure."""
    default = QUICK if options.quick else PATIENCE
    return default if options.seconds is None else Patience(default.least, PATIENCE.most, options.seconds)


def main() -> None:
    """Runs the command line; ends with status 1 if a result is wrong."""
    options, begin = arguments(), time.perf_counter()
    about = machine.description()
    if options.only == ["overhead"]:
        print(overhead.tables(overhead.measured()))
        return
    platform = about["platform"]
    sizes = options.sizes or (cases.QUICK_EXPONENTS if options.quick else cases.EXPONENTS)
    dtypes = options.dtypes or (cases.QUICK_DTYPES if options.quick else cases.DTYPES)
    chosen = list(cases.select(platform, sizes, dtypes, options.only, options.every_rank))
    if not chosen:
        names = "\n  ".join(
            dict.fromkeys(case.operation.name for case in cases.select(platform, cases.QUICK_EXPONENTS))
        )
        sys.exit(f"--only {' '.join(options.only)}: no operation has all these words in its name; there are\n  {names}")
    patience = settings(options)
    report = about | {"settings": vars(patience) | {"quick": options.quick}, "cases": []}
    print(f"{about['device']}; {', '.join(f'{name} {v}' for name, v in about['versions'].items())}")
    print("".join(f"not measured: {line}\n" for line in libraries.missing()))
    runner = Runner(cases.implementations(platform), patience, options.longest)
    path = results.new_path(options.out, machine.slug(about["device"]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # better now than when there is something to lose
        sys.exit(f"--out {options.out}: {error.strerror}; give a folder that can be written to")
    minutes, late = options.minutes or (QUICK_MINUTES if options.quick else float("inf")), []
    for case in tqdm(chosen, unit="case", disable=None) if tqdm else chosen:  # None: no bar in a log
        if time.perf_counter() - begin > 60 * minutes:
            late.append(case.name)
            continue
        report["cases"].append(found := runner.run(case))
        results.write(path, report)
        say = functools.partial(tqdm.write, file=sys.stdout) if tqdm else print
        say(results.table(found) + "\n")
    print("".join(f"not measured, for lack of time: {name}\n" for name in late), end="")
    print(f"{len(report['cases'])} cases in {time.perf_counter() - begin:.0f} s, kept in {path}\n")
    print(summary.lines(report))
    wrong = [f"{results.title(c)}: {name}" for c in report["cases"] for name, r in c["results"].items() if "wrong" in r]
    if wrong:
        sys.exit("wrong results:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
