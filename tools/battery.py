"""Runs a battery of statistical tests over streams of random words and prints a report.

    python -m tools.battery > report.txt
    python -m tools.battery --battery practrand --generator hash --streams sequential keys > report.txt

The batteries are the tests of `dieharder -a`, PractRand's, and those of TestU01. Each test of dieharder reads on where
the one before stopped, so that no byte is tested twice in a run. Its defaults take about half an hour of two cores;
`--lags 1 4 8` leaves out the slowest tests.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import re
import shutil
import subprocess
import sys

from tools import stream

# As `dieharder -a` runs them: the number, and the values of ntuple. A test that is "suspect" or "do not use" in
# dieharder's own list is kept: it is what the battery's name promises.
TESTS: dict[int, tuple[int | None, ...]] = {
    **dict.fromkeys(range(18), (None,)),
    **dict.fromkeys((100, 101, 102), (None,)),
    200: tuple(range(1, 13)),
    201: (2, 3, 4, 5),
    202: (2, 3, 4, 5),
    **dict.fromkeys((204, 205, 206, 207, 208, 209), (None,)),
}
LAGGED_SUM = 203
LAGS = tuple(range(33))
COLUMNS = ("test_name", "ntuple", "tsamples", "psamples", "pvalues", "assessment")


@dataclasses.dataclass(frozen=True)
class Battery:
    """A program that tests what it reads from stdin, and what of its output belongs in a report."""

    program: str
    remedy: str  # if the program is not installed
    title: str
    keep: str  # a pattern of the lines to keep
    version: tuple[str, str] = ("", "")  # the argument with which it prints its version, and a pattern to find it
    columns: str = ""


TESTU01 = Battery(
    "testu01_stdin",
    "compile tools/testu01_stdin.c, as the comment in it says, with https://github.com/umontreal-simul/TestU01-2009",
    "TestU01's {name}, on words of 32 bits from stdin; below, a p-value of each test after the summary",
    r"\S",
)
BATTERIES = {
    "dieharder": Battery(
        "dieharder",
        "try `apt-get install dieharder`",
        "dieharder {version}, -g 200 (raw words from stdin)",
        r"\|",
        ("-l", r"dieharder version (\S+)"),
        "           test_name|ntup| tsamples |psamples|  p-value |Assessment",
    ),
    "practrand": Battery(
        "RNG_test",
        "build PractRand, such as https://github.com/planet36/PractRand",
        "PractRand {version}, RNG_test; by chance, one result in ten lengths is shown as an anomaly",
        r"^test set|^length=|^  (?!Test Name)",
        ("-version", r"version (\S+)"),
    ),
    "smallcrush": TESTU01,
    "crush": TESTU01,
    "bigcrush": TESTU01,
}


def practrand(order: str, folding: int, least: int, most: int) -> list[str]:
    """What is run for `most` bytes of a stream, with results from `least` bytes on."""
    width = "stdin16" if order in stream.HALF else "stdin32"
    return ["RNG_test", width, "-tf", str(folding), "-tlmin", f"{least >> 10}KB", "-tlmax", f"{most >> 10}KB"]


def dieharder(test: int, ntuple: int | None, psamples: int | None) -> list[str]:
    """What is run for one test, without a header of its own."""
    show = [word for column in COLUMNS for word in ("-D", column)]
    chosen = [("-n", ntuple), ("-p", psamples)]
    options = [word for name, value in chosen if value is not None for word in (name, str(value))]
    return ["dieharder", "-g", "200", "-d", str(test), *options, *show]


def commands(options: argparse.Namespace, order: str) -> list[list[str]]:
    """What is run for one stream, one after the other."""
    if options.battery == "practrand":
        return [practrand(order, options.folding, options.least, options.bytes)]
    if options.battery != "dieharder":
        return [[TESTU01.program, options.battery]]
    tests = [(test, ntuple) for test in options.tests for ntuple in TESTS.get(test, (None,))]
    tests += [(LAGGED_SUM, lag) for lag in options.lags]
    return [dieharder(test, ntuple, options.psamples) for test, ntuple in tests]


def say(line: str) -> None:
    print(line, flush=True)


def heading(name: str) -> None:
    """With what streams are tested, and when."""
    battery = BATTERIES[name]
    version = "of unknown version"
    if battery.version[0]:
        shown = subprocess.run([battery.program, battery.version[0]], capture_output=True, text=True, check=False)
        found = re.search(battery.version[1], shown.stdout)
        version = found[1] if found else version
    versions = ", ".join(f"{one} {importlib.metadata.version(one)}" for one in ("jax", "jaxlib", "numpy"))
    say(f"date       {datetime.date.today().isoformat()}")
    say(f"battery    {battery.title.format(name=name, version=version)}")
    say(f"versions   Python {sys.version.split()[0]}, {versions}")


def run(programs: list[list[str]], keep: str, arguments: list[str]) -> str:
    """Runs programs one after the other on one stream; returns what the stream said of the bytes it wrote."""
    source = [sys.executable, "-m", "tools.stream", *arguments]
    with subprocess.Popen(source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as words:
        assert words.stdout is not None
        assert words.stderr is not None
        for program in programs:
            with subprocess.Popen(program, stdin=words.stdout, stdout=subprocess.PIPE, text=True) as tests:
                assert tests.stdout is not None
                said = 0
                for line in tests.stdout:
                    if re.search(keep, line):
                        say(line.rstrip())
                        said += 1
            if not said:
                say(f"{' '.join(program)}: no result, exit status {tests.returncode}")
        words.stdout.close()
        return words.stderr.read().strip()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.battery", description=__doc__.splitlines()[0])
    stream.add_options(parser)
    # fmt: off
    parser.add_argument("--streams", choices=stream.STREAMS, nargs="+", default=["sequential"],
                        help="those of tools.stream, one after the other (default: sequential)")
    parser.add_argument("--battery", choices=BATTERIES, default="dieharder", help="(default: dieharder)")
    parser.add_argument("--bytes", type=stream.size, metavar="SIZE", default=stream.size("16GiB"),
                        help="practrand: how many it tests of each stream (default: 16GiB)")
    parser.add_argument("--folding", type=int, choices=(0, 1, 2), default=1,
                        help="practrand: 1 also tests the low bits alone, as it does by default, 2 more parts of words")
    parser.add_argument("--least", type=stream.size, metavar="SIZE", default=stream.size("1MiB"),
                        help="practrand: after how many it begins to give results (default: 1MiB)")
    parser.add_argument("--tests", type=int, nargs="*", metavar="D", default=list(TESTS),
                        help="dieharder: its numbers of the tests, but for the lagged sums (default: those of -a)")
    parser.add_argument("--lags", type=int, nargs="*", metavar="LAG", default=list(LAGS),
                        help="dieharder: lags of rgb_lagged_sum, the slowest test (default: 0 to 32, those of -a)")
    parser.add_argument("--psamples", type=int, metavar="N",
                        help="dieharder: repetitions of each test, more than its default to look into a weak result")
    # fmt: on
    options = parser.parse_args()
    battery = BATTERIES[options.battery]
    if shutil.which(battery.program) is None:
        parser.error(f"{battery.program} is not on PATH: {battery.remedy}")
    heading(options.battery)
    for order in options.streams:
        key = map(str, options.key or stream.first_key(order))
        arguments = ["--generator", options.generator, "--stream", order, "--key", *key]
        arguments += ["--first-block", str(options.first_block)]
        say(f"\nstream     python -m tools.stream {' '.join(arguments)}")
        if options.battery == "practrand":
            say(f"tested by  {' '.join(commands(options, order)[0])}")
        if battery.columns:
            say(battery.columns)
        say(run(commands(options, order), battery.keep, arguments))


if __name__ == "__main__":
    main()
