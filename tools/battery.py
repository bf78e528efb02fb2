"""Runs dieharder over the stream of random words and prints its report: the tests of `dieharder -a`, on one pipe.

    python -m tools.battery > report.txt

The tests read on where the one before stopped, so that no byte is tested twice in a run. Needs dieharder, which Debian
and others package. The defaults take about half an hour of two cores; `--lags 1 4 8` leaves out the slowest tests.
"""

import argparse
import datetime
import importlib.metadata
import re
import shutil
import subprocess
import sys

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


def command(test: int, ntuple: int | None, psamples: int | None) -> list[str]:
    """What is run for one test, without a header of its own."""
    show = [word for column in COLUMNS for word in ("-D", column)]
    chosen = [("-n", ntuple), ("-p", psamples)]
    options = [word for name, value in chosen if value is not None for word in (name, str(value))]
    return ["dieharder", "-g", "200", "-d", str(test), *options, *show]


def say(line: str) -> None:
    print(line, flush=True)


def heading(key: tuple[int, int], first_block: int) -> None:
    """What was tested with what, and when."""
    listing = subprocess.run(["dieharder", "-l"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"dieharder version (\S+)", listing)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "numpy"))
    say(f"date       {datetime.date.today().isoformat()}")
    say(f"battery    dieharder {found[1] if found else 'of unknown version'}, -g 200 (raw words from stdin)")
    say(f"stream     python -m tools.stream --key {key[0]} {key[1]} --first-block {first_block}")
    say(f"versions   Python {sys.version.split()[0]}, {versions}")
    say("")
    say("           test_name|ntup| tsamples |psamples|  p-value |Assessment")


def run(tests: list[list[str]], key: tuple[int, int], first_block: int) -> str:
    """Runs the tests one after the other on one stream; returns what the stream said of the bytes it wrote."""
    source = [sys.executable, "-m", "tools.stream", "--key", *map(str, key), "--first-block", str(first_block)]
    with subprocess.Popen(source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stream:
        for words in tests:
            done = subprocess.run(words, stdin=stream.stdout, capture_output=True, text=True, check=False)
            results = [line for line in done.stdout.splitlines() if "|" in line]
            say("\n".join(results) or f"{' '.join(words)}: no result, exit status {done.returncode}")
        assert stream.stdout is not None
        assert stream.stderr is not None
        stream.stdout.close()
        return stream.stderr.read().strip()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.battery", description=__doc__.splitlines()[0])
    # fmt: off
    parser.add_argument("--key", type=int, nargs=2, metavar="WORD", default=(0, 42),
                        help="the two words of the key (default: 0 42, as jax.random.key(42) has)")
    parser.add_argument("--first-block", type=int, metavar="N", default=0, help="the block to begin at (default: 0)")
    parser.add_argument("--tests", type=int, nargs="*", metavar="D", default=list(TESTS),
                        help="dieharder's numbers of the tests, but for the lagged sums (default: those of -a)")
    parser.add_argument("--lags", type=int, nargs="*", metavar="LAG", default=list(LAGS),
                        help="lags of rgb_lagged_sum, the slowest test (default: 0 to 32, those of -a)")
    parser.add_argument("--psamples", type=int, metavar="N",
                        help="repetitions of each test, more than dieharder's default to look into a weak result")
    # fmt: on
    options = parser.parse_args()
    if shutil.which("dieharder") is None:
        parser.error("dieharder is not installed: try `apt-get install dieharder`")
    tests = [(test, ntuple) for test in options.tests for ntuple in TESTS.get(test, (None,))]
    tests += [(LAGGED_SUM, lag) for lag in options.lags]
    heading(tuple(options.key), options.first_block)
    words = [command(test, ntuple, options.psamples) for test, ntuple in tests]
    written = run(words, tuple(options.key), options.first_block)
    say(f"\n{written}")


if __name__ == "__main__":
    main()
