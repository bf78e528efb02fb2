"""What batteries of statistical tests read, against plain Python, and what becomes of what they print."""

import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import pytest
import streams

from tools import battery, stream

pytestmark = pytest.mark.tools

KEY = (0x243F6A88, 0x85A308D3)
COUNT = 300  # words that are compared, of more than the 256 keys that take turns
ONES = 2**32 - 1

Place = Callable[[int], tuple[tuple[int, int], int]]


def key_after(key: tuple[int, int], steps: int) -> tuple[int, int]:
    number = (key[0] << 32 | key[1]) + steps
    return number >> 32, number & ONES


def reversed_bits(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)


PLACES: dict[str, Place] = {
    "sequential": lambda place: (KEY, place),
    "low": lambda place: (KEY, place),
    "high": lambda place: (KEY, place),
    "strided-1024": lambda place: (KEY, 1024 * place),
    "strided-2048": lambda place: (KEY, 2048 * place),
    "reversed": lambda place: (KEY, place >> 32 << 32 | reversed_bits(place & ONES)),
    "keys": lambda place: (key_after(KEY, place), 0),
    "interleaved": lambda place: (key_after(KEY, place % 256), place // 256),
}


def test_every_stream_is_tested_here() -> None:
    assert set(PLACES) == set(stream.STREAMS)


@pytest.mark.parametrize("first", [0, 2**32 - 9])
@pytest.mark.parametrize("order", PLACES)
def test_a_stream_of_hash_is_the_words_of_its_keys_and_blocks(order: str, first: int) -> None:
    places = [PLACES[order](place) for place in range(first, first + COUNT)]
    words = np.concatenate([streams.hashed_words([block], key) for key, block in places]).astype("<u4")
    halves = {"low": words & np.uint32(0xFFFF), "high": words >> np.uint32(16)}
    expected = halves[order].astype("<u2") if order in halves else words
    found = next(stream.pieces("hash", order, KEY, first))[:COUNT]
    assert found.tobytes() == expected.tobytes()


def test_words_are_in_the_order_of_their_places_from_piece_to_piece() -> None:
    pieces = stream.pieces("hash", "sequential", KEY, 5)
    first, second = next(pieces), next(pieces)
    places = range(5 + first.size - 2, 5 + first.size + 2)
    np.testing.assert_array_equal([*first[-2:], *second[:2]], streams.hashed_words(list(places), KEY))


def test_a_block_of_philox_is_its_four_words() -> None:
    counters = np.asarray([[0, 1, 0, 0x494E544E], [2**31, 1, 0, 0x494E544E]], np.uint32)
    found = next(stream.pieces("philox", "reversed", KEY, 2**32))[:8]
    np.testing.assert_array_equal(found, streams.philox4x32(counters, KEY).reshape(-1))


def test_the_bad_generator_is_the_hash_that_a_user_writes() -> None:
    def lowbias32(index: int) -> int:
        h = index ^ KEY[0]
        h = (h ^ h >> 16) * 0x7FEB352D & ONES
        h = (h ^ h >> 15) * 0x846CA68B & ONES
        return h ^ h >> 16 ^ KEY[1]

    found = next(stream.pieces("lowbias32", "sequential", KEY, 2**32 - 3))[:6]
    assert found.tolist() == [lowbias32(place % 2**32) for place in range(2**32 - 3, 2**32 + 3)]


def test_what_is_written_is_the_draws_of_one_array() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        assert stream.write(writer, stream.pieces("philox", "sequential", KEY, 7), 4000) == 4000
        os.close(writer)
        read = np.frombuffer(pipe.read(), "<u2")
    np.testing.assert_array_equal(read, streams.draws(2000, KEY, 7))


# --- batteries, whose programs are stand-ins on PATH: they print their arguments and the first bytes that they read ---

READ = "$(head -c 8 | od -An -tx1)"
PROGRAMS = {
    "RNG_test": f"""
        [ "$1" = -version ] && echo "RNG_test version 1.5" && exit
        echo "rng=RNG_stdin32, seed=unknown"; echo "length= $*"; echo "  Test Name"; echo "  read {READ}"; echo
    """,
    "testu01_stdin": f"""echo; echo "=== $1"; echo "read {READ}" """,
    "dieharder": f"""
        [ "$1" = -l ] && echo "dieharder version 9.9.9" && exit
        [ "$4" = 203 ] && exit 3
        echo "to be left out"; echo "$4|{READ}"
    """,
}


def report(programs: dict[str, str], arguments: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs `tools.battery` with these programs on PATH."""
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent.parent))
    monkeypatch.setattr(sys, "argv", ["battery", *arguments.split()])
    battery.main()


@pytest.mark.parametrize(
    ("arguments", "title", "results"),
    [
        (
            "--battery practrand --generator hash --streams low keys --bytes 64MiB",
            "PractRand 1.5,",
            [
                "stream     python -m tools.stream --generator hash --stream low --key 0 42 --first-block 0",
                "tested by  RNG_test stdin16 -tf 1 -tlmin 1024KB -tlmax 65536KB",
                "length= stdin16 -tf 1 -tlmin 1024KB -tlmax 65536KB",
                "  read  9f 7b 61 39 40 8b 38 b5",
                "stream     python -m tools.stream --generator hash --stream keys --key 0 0 --first-block 0",
                "tested by  RNG_test stdin32 -tf 1 -tlmin 1024KB -tlmax 65536KB",
                "length= stdin32 -tf 1 -tlmin 1024KB -tlmax 65536KB",
                "  read  a3 09 84 d4 ab 17 2e 40",
            ],
        ),
        (
            "--battery crush --generator hash --first-block 1",
            "TestU01's crush,",
            [
                "stream     python -m tools.stream --generator hash --stream sequential --key 0 42 --first-block 1",
                "=== crush",
                "read  61 39 1b c5 40 8b ef 7a",
            ],
        ),
        (
            "--key 0 42 --tests 2 201 --lags 3",
            "dieharder 9.9.9,",
            [
                "stream     python -m tools.stream --generator philox --stream sequential --key 0 42 --first-block 0",
                "           test_name|ntup| tsamples |psamples|  p-value |Assessment",
                "2| 0b 41 3c 5d 3c f2 0b 12",
                *["201|"] * 4,
                "dieharder -g 200 -d 203 -n 3 -D test_name -D ntuple",
            ],
        ),
    ],
)  # fmt: skip
def test_a_report_says_what_was_tested_and_what_a_battery_found(
    arguments: str,
    title: str,
    results: list[str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(PROGRAMS, arguments, tmp_path, monkeypatch)
    date, first, versions, *lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert date.startswith("date ")
    assert first.startswith(f"battery    {title}")
    assert f"numpy {np.__version__}" in versions
    lines = [line for line in lines if not line.endswith("written")]
    assert len(lines) == len(results)
    for line, result in zip(lines, results, strict=True):
        assert line.startswith(result)


@pytest.mark.parametrize(
    ("name", "program"), [("practrand", "RNG_test"), ("smallcrush", "testu01_stdin"), ("dieharder", "dieharder")]
)
def test_a_program_that_is_missing_is_named_with_the_way_to_it(
    name: str, program: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(battery.shutil, "which", lambda program: None)
    with pytest.raises(SystemExit):
        report({}, f"--battery {name}", tmp_path, monkeypatch)
    assert f"{program} is not on PATH: {battery.BATTERIES[name].remedy}" in capsys.readouterr().err
