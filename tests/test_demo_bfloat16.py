"""The example of `make demo-bfloat16`: where updates are lost if weights are rounded to nearest, they are not."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.tools

for package in ("sklearn", "matplotlib", "tqdm", "optax"):
    pytest.importorskip(package, reason=f"the demo needs {package}: pip install 'intnumerics[demo]'")

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, imported as Python does when it is run, in an empty folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("bfloat16_weights")


def test_stochastic_rounding_trains_as_float32_does_and_rounding_to_nearest_does_not(demo, tmp_path, capsys):
    with jax.numpy_rank_promotion("raise"):
        assert demo.main(["--steps", "210", "--seeds", "1", "--output", "curves.svg"]) == 0
    out = capsys.readouterr().out
    assert "200 steps" in out
    losses = {how: float(re.search(rf"^{how} .* (\S+) \(\S+\)$", out, re.MULTILINE)[1]) for how in demo.STYLES}
    assert losses["bfloat16, stochastic"] < 1.1 * losses["float32"]
    assert losses["bfloat16, to nearest"] > 1.5 * losses["float32"]
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]
    assert "</svg>" in (tmp_path / "curves.svg").read_text()


def test_the_recipe_keeps_on_average_the_updates_that_rounding_to_nearest_loses(demo):
    weights = [jnp.full(1 << 14, 0.1, jnp.bfloat16)]  # 0.10009765625, in a gap of 2**-11 = 0.00049
    updates = [jnp.full(1 << 14, 1e-5, jnp.float32)]
    [nearest] = demo.apply_updates(weights, updates, jax.random.key(0), "bfloat16, to nearest")
    assert (nearest == weights[0]).all()
    [stochastic] = demo.apply_updates(weights, updates, jax.random.key(0), "bfloat16, stochastic")
    assert stochastic.dtype == jnp.bfloat16
    moved = np.asarray(stochastic, np.float64) - np.asarray(weights[0], np.float64)
    assert set(moved.tolist()) == {0.0, 2.0**-11}
    assert moved.mean() == pytest.approx(1e-5, rel=0.3)  # of 336 that move: six standard deviations


def test_a_run_that_does_not_train_as_float32_does_fails_and_shows_its_curve(demo, tmp_path, monkeypatch, capsys):
    endings = {"float32": 0.5, "bfloat16, to nearest": 2.0, "bfloat16, stochastic": 0.75}
    monkeypatch.setattr(demo, "train", lambda how, *_: np.asarray([[3.0, endings[how]]]))
    assert demo.main([]) == 1
    assert "1.50 times the loss of float32" in capsys.readouterr().err
    assert (tmp_path / "bfloat16_weights.svg").exists()
    endings["bfloat16, stochastic"] = float("nan")
    assert demo.main([]) == 1


@pytest.mark.parametrize("argument", ["--steps=24", "--seeds=0", "--rate=fast", "--output=curves"])
def test_a_bad_argument_is_named_before_anything_is_done(demo, monkeypatch, capsys, argument):
    monkeypatch.setattr(demo.digits_net, "load", lambda: pytest.fail("the job began"))
    with pytest.raises(SystemExit) as stopped:
        demo.main([argument])
    assert stopped.value.code == 2
    assert f"argument {argument.split('=')[0]}: " in capsys.readouterr().err
