"""The example of `make demo`: it learns, shows what it measured, and refuses a bad argument before it starts."""

import importlib
import io
import re
import struct
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import prose
import pytest

pytestmark = pytest.mark.tools

for package in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(package, reason=f"the demo needs {package}: pip install 'intnumerics[demo]'")

EXAMPLES = Path(__file__).parent.parent / "examples"
README = (EXAMPLES.parent / "README.md").read_text()


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported with its folder on the path, where Python puts it when the script is run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("digits")


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from the header of a PNG, which must also have its end."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def set_floor(digits: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, floor: float) -> None:
    monkeypatch.setitem(digits.WIDTHS, name, digits.WIDTHS[name]._replace(floor=floor))


def test_runs_that_learn_print_their_rows_write_the_plot_and_succeed(digits, in_empty_folder, monkeypatch, capsys):
    # Chance is 10%, so two epochs are enough to tell learning; how well the default number does is not for a fast test.
    set_floor(digits, monkeypatch, "1", 0.5)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        status = digits.main(["--bits", "1", "--epochs", "2", "--output", "curves.png"])
    assert status == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^ +1  (nearest|stochastic) +(.*)$", out, re.MULTILINE)
    assert [way for way, _ in rows] == ["nearest", "stochastic"], out
    for _, row in rows:
        accuracy, plain, ours, ratio, plain_network, our_network = map(float, re.findall(r"\d+\.\d", row))
        assert 50 <= accuracy <= 100
        # By hand: 64 images of 8x8x16 and 4x4x32 floats, weights of 9x16x32 and 9x32x32; a bit in place of 4 bytes.
        elements = 64 * (8 * 8 * 16 + 4 * 4 * 32) + 9 * 16 * 32 + 9 * 32 * 32
        assert plain == pytest.approx(elements * 4 / 1024, abs=0.1)
        assert ours == pytest.approx(elements / 8 / 1024, abs=0.1)
        assert 31 < ratio <= 32
        assert plain_network - our_network == pytest.approx(plain - ours, abs=0.3)
        assert prose.says(README, "What it does", ours, *map(round, (plain, our_network, plain_network)))
    assert "curves.png" in out
    assert min(png_size(in_empty_folder / "curves.png")) >= 400
    assert [path.name for path in in_empty_folder.iterdir()] == ["curves.png"]


class Terminal(io.StringIO):
    """Where a terminal would be."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stderr", "bars"), [(io.StringIO, False), (Terminal, True)], ids=["log", "terminal"])
def test_progress_is_shown_on_a_terminal_and_not_written_into_a_log(digits, in_empty_folder, monkeypatch, stderr, bars):
    monkeypatch.setattr(digits.digits_net, "train", lambda config, data: iter([({}, 0.25), ({}, 1.0)]))
    monkeypatch.setattr(digits.sys, "stderr", written := stderr())
    assert digits.main(["--bits", "float", "--epochs", "2"]) == 0
    assert ("2/2" in written.getvalue()) == bars
    assert (written.getvalue() != "") == bars


def test_a_run_below_its_floor_is_named_and_fails_and_still_shows_its_curve(
    digits, in_empty_folder, monkeypatch, capsys
):
    monkeypatch.setattr(digits.digits_net, "train", lambda config, data: iter([({}, 0.25), ({}, 0.875)]))
    assert digits.main(["--bits", "float", "--epochs", "2"]) == 1
    shown = capsys.readouterr()
    assert re.search(r"^float did not learn: test accuracy 87\.5%, floor 95%$", shown.err, re.MULTILINE)
    assert re.search(r"^float +- +87\.5%( +-){5}$", shown.out, re.MULTILINE)
    assert png_size(in_empty_folder / "digits.png")


def test_an_accuracy_that_is_not_a_number_counts_as_not_learned(digits):
    assert not digits.Run(digits.WIDTHS["8"], "nearest", [0.99, float("nan")]).learned


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--bits", "0"),
        ("--bits", "23"),
        ("--bits", "int8"),
        ("--rounding", "up"),
        ("--epochs", "0"),
        ("--epochs", "2.5"),
        ("--seed", "-1"),
        ("--output", "missing/digits.png"),
        ("--output", "file/digits.png"),
        ("--output", "digits"),
        ("--output", "folder.png"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_done(digits, in_empty_folder, monkeypatch, capsys, argument, value):
    monkeypatch.setattr(digits.digits_net, "load", lambda: pytest.fail("the job began"))
    (in_empty_folder / "file").touch()
    (in_empty_folder / "folder.png").mkdir()
    with pytest.raises(SystemExit) as stopped:
        digits.main([f"{argument}={value}"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert re.search(f"argument {argument}: (invalid choice: )?'{value}' ", message)
    assert sorted(path.name for path in in_empty_folder.iterdir()) == ["file", "folder.png"]


def test_a_plot_that_fails_leaves_the_old_one_alone(digits, in_empty_folder, monkeypatch):
    output = in_empty_folder / "digits.png"
    output.write_text("old")

    def fill_the_disk(path: Path, **_: object) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(digits.Figure, "savefig", lambda self, path, **options: fill_the_disk(path, **options))
    with pytest.raises(OSError, match="No space"):
        digits.plot([digits.Run(digits.WIDTHS["8"], "nearest", [0.5])], output)
    assert [(path.name, path.read_text()) for path in in_empty_folder.iterdir()] == [("digits.png", "old")]


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_the_plain_formula_that_the_table_compares_with_gives_the_same_bits(digits, bits, stochastic):
    net, residual = digits.digits_net, importlib.import_module("digits_residual")
    numerics = net.make_numerics(bits, stochastic)
    x = jnp.linspace(-2.0, 2.0, 128 * 99).reshape(128, 99)
    g = jax.random.normal(jax.random.key(99), x.shape)

    def value_and_cotangent(rounding) -> list[np.ndarray]:
        y, backward = jax.vjp(lambda x: rounding(x, numerics, key=jax.random.key(5)), x * 2.0**bits / 2)
        return [np.asarray(y), *map(np.asarray, backward(g))]

    plain = value_and_cotangent(residual.plain_quantize)
    ours = value_and_cotangent(net.quantize)
    # Equal as numbers: the plain formula multiplies by the mask, so its zeros keep the sign of the gradient.
    np.testing.assert_array_equal(plain, ours)
    assert len(np.unique(ours[0])) == (2**bits - 1 if numerics.preserve_zero else 2**bits)
    assert jnp.any(ours[1] == 0)


@pytest.mark.parametrize("heights", [[0.98, 0.98, 0.98], [0.5, 0.51, 0.9], [0.7]])
def test_labels_are_moved_apart_and_keep_their_order(digits, heights):
    placed = digits.spread(heights, gap=0.05)
    best_first = sorted(range(len(heights)), key=lambda i: -heights[i])
    gaps = -np.diff([placed[i] for i in best_first])
    assert np.all(gaps > 0.049)
    assert np.mean(placed) == pytest.approx(np.mean(heights))
