"""What docs/noise.md and docs/small-floats.md show runs, and what they say is so."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import prose
import pytest

from bench import baselines
from bench.aot import report
from bench.aot.chips import count, counts
from intnumerics import HashUniform
from intnumerics.kernels.generators import hashed
from tools import readme_tables

optax = pytest.importorskip("optax", reason="the recipe needs optax: pip install 'intnumerics[demo]'")

DOCS = pathlib.Path(__file__).parent.parent / "docs"
NOISE, SMALL = ((DOCS / name).read_text() for name in ("noise.md", "small-floats.md"))


def run(page: str) -> dict[str, Any]:
    """The names that the blocks of a page leave, one after the other."""
    names: dict[str, Any] = {}
    exec("\n".join(prose.python_blocks(page)), names)
    return names


def test_the_hash_that_the_page_warns_of_is_the_one_that_is_measured() -> None:
    words = jnp.asarray([7, 300], jnp.uint32)
    found = run(NOISE)["hashed"](words, 1000)
    np.testing.assert_array_equal(found, baselines.uniform("hash", words, (1000,)))


def test_256_keys_of_that_hash_give_one_noise_and_those_of_hash_uniform_do_not() -> None:
    """The variance of a sum over keys is 256 times what it is for independent noise, as the page says, or as it is."""
    assert prose.says(NOISE, "A hash of your own", 256)
    theirs, ours = (
        np.stack([np.asarray(noise(jax.random.key(k))) for k in range(256)])
        for noise in (
            lambda key: baselines.uniform("hash", jax.random.key_data(key), (4096,)),
            lambda key: HashUniform()((4096,), key),
        )
    )
    ups = [(0.25 + noise >= 0.5).sum(0) for noise in (theirs, ours)]
    ratios = [up.var() / (256 * 0.25 * 0.75) for up in ups]
    assert ratios[0] == pytest.approx(256, rel=0.1)
    assert ratios[1] == pytest.approx(1, rel=0.1)


def test_the_page_says_how_the_stream_is_made() -> None:
    made = prose.section(NOISE, "HashUniform")
    assert hex(hashed.DOMAIN).upper().replace("X", "x") in made
    assert "2^33" in made
    assert hashed.SERVED == 2**33


def test_the_bits_that_the_page_says_are_dropped_are() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\w, ]+) \| ([\d, ]+)", SMALL, re.MULTILINE)
    assert len(rows) == 5
    for of_x, names, said in rows:
        mantissas = [jnp.finfo(name).nmant for name in names.strip().split(", ")]
        dropped = [jnp.finfo(of_x).nmant - mantissa for mantissa in mantissas]
        assert dropped == [int(number) for number in said.split(",")]


def test_what_philox_costs_beside_the_hash_is_what_the_page_says() -> None:
    run = readme_tables.shown()
    slower = [
        readme_tables.speed(run, "quantize with HashUniform", readme_tables.OURS, dtype)
        / readme_tables.speed(run, readme_tables.PHILOX, readme_tables.OURS, dtype)
        for dtype in readme_tables.DTYPES
    ]
    assert all(2.5 < ratio < 3.5 for ratio in slower)  # "a third of the speed"
    in_kernels = {
        chip: count(counts()[f"{who}: {report.INT8} with Philox", chip])
        / count(counts()[f"{who}: {report.INT8} with hash", chip])
        for who, chip in (*(("pallas", chip) for chip in ("v4", "v5e", "v5p", "v6e")), ("pallas_triton", "h100"))
    }
    assert 0.95 < in_kernels.pop("h100") < 1.05
    assert all(2 < ratio < 4 for ratio in in_kernels.values())


def test_the_weight_of_the_example_is_1_three_times_in_four() -> None:
    y = np.asarray(run(SMALL)["y"], np.float32)
    assert set(y.tolist()) == {1.0, 1 + 1 / 128}
    assert (y == 1).mean() == pytest.approx(0.75, abs=0.02)


def test_the_step_of_the_recipe_moves_bfloat16_weights_by_less_than_they_hold() -> None:
    names = run(SMALL)
    step = names["step"]
    weights = {"a": jnp.ones(1 << 14, jnp.bfloat16), "b": jnp.ones(8, jnp.bfloat16)}
    state = names["init"](weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    new, state = step(weights, state, jax.tree.map(lambda w: jnp.ones_like(w, jnp.float32), weights), jax.random.key(0))
    assert new["a"].dtype == jnp.bfloat16
    assert (weights["a"] - jnp.bfloat16(1e-3) == 1).all()  # which rounding to nearest loses
    assert 1 - float(new["a"].astype(jnp.float32).mean()) == pytest.approx(1e-3, rel=0.1)


def runs(name: str) -> list[tuple[str, str, str]]:
    """The runs of a stored report of a battery: the generator, its stream, and what was found."""
    [path] = (DOCS.parent / "tools" / "results").glob(f"{name}-hash-*.txt")
    assert f"(../tools/results/{path.name})" in NOISE
    return re.findall(
        r"^stream +python -m tools.stream --generator (\S+) --stream (\S+).*\n((?:(?!^stream ).*\n?)*)",
        path.read_text(),
        re.MULTILINE,
    )


STREAMS = {"sequential", "low", "high", "keys", "interleaved", "strided-1024", "strided-2048", "reversed"}


def test_practrand_found_nothing_in_the_streams_of_the_hash_to_16_gib_and_much_in_those_of_another() -> None:
    ours = [(stream, found) for generator, stream, found in runs("practrand") if generator == "hash"]
    assert {stream for stream, _ in ours} == STREAMS
    assert all("length= 16 gibibytes" in found for _, found in ours)
    kinds = re.findall(r"p = *\S+ +(\w.*)$", "".join(found for _, found in ours), re.MULTILINE)
    assert kinds == ["unusual"] * 4
    lengths = sum(found.count("length=") for _, found in ours)
    assert prose.says(NOISE, "Quality", "PractRand", 4, lengths)
    theirs = {stream: found for generator, stream, found in runs("practrand") if generator == "lowbias32"}
    for stream, length in (("sequential", "512"), ("keys", "32")):
        last = theirs[stream].split("length=")[-1]
        assert last.lstrip().startswith(f"{length} kibibytes")
        assert "FAIL" in last


def test_testu01_found_nothing_in_the_streams_of_the_hash_and_much_in_those_of_another() -> None:
    ours = [(stream, found) for generator, stream, found in runs("testu01") if generator == "hash"]
    small = {stream for stream, found in ours if "Summary results of SmallCrush" in found}
    assert small == STREAMS
    assert {stream for stream, found in ours if "Summary results of Crush" in found} == {"sequential"}
    assert all("All tests were passed" in found for _, found in ours)
    theirs = {stream: found for generator, stream, found in runs("testu01") if generator == "lowbias32"}
    failed = {stream: len(re.findall(r"^ +\d+ +\w", found, re.MULTILINE)) for stream, found in theirs.items()}
    assert failed["sequential"] == 1
    assert failed["keys"] == 15
