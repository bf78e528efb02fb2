"""AQT's own tests pass with our class in the place of AQT's: as many as with AQT's, and the same ones."""

import json
import os
import pathlib
import subprocess
import sys

import aqt_pairs
import pytest

pytestmark = aqt_pairs.MARKS
HERE = pathlib.Path(__file__).parent
GENERAL = "aqt_dot_general_test.AqtDotGeneralResearchTest"
FLAX = "flax.aqt_flax_test.AqtFlaxTest"

# All of AQT's tests that quantize and can be imported here, but for those that take minutes: of the tests of
# dot_general and of Flax, these.
TESTS = {
    "numerics": ("numerics.int_numerics_test", "config_test", "aqt_tensor_test", f"{GENERAL}.test_fq_noise"),
    "layers": ("aqt_conv_general_test", "flax.intercept.aqt_intercept_methods_test", f"{FLAX}.test_freezer"),
    "dot_general": tuple(
        f"{GENERAL}.test_{name}"
        for name in (
            "dot_general_calibration_with_contracting_axis24",
            "dot_general_calibration_with_remaining_axis3",
            "dynamic_context",
            "fake_quant",
            "hardware_int8",
            "per_subchannel",
            "per_tensor",
            "stochastic_rounding_noise",
        )
    ),
    "einsum": (f"{FLAX}.test_aqt_einsum", f"{FLAX}.test_einsum_grad_leak"),
}


def outcomes(whose: str, names: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """What became of each test with our class or AQT's, and what was written of it."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "PYTHONPATH": str(HERE.parent),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, HERE / "aqt_own_tests.py", whose, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("names", TESTS.values(), ids=TESTS)
def test_the_tests_of_aqt_that_pass_with_its_class_pass_with_ours(names: tuple[str, ...]) -> None:
    ours, trace = outcomes("ours", names)
    for name in names:
        assert any(test.startswith(f"aqt.jax.v2.{name}") for test in ours), f"there is no {name}"
    if set(ours.values()) != {"passed"}:  # or else no class passes more
        theirs, _ = outcomes("theirs", names)
        assert ours == theirs, trace


def test_a_test_of_aqt_that_ours_does_not_pass_is_found() -> None:
    """With a class that rounds to another number of buckets AQT's tests fail: they look at what it does."""
    ours, _ = outcomes("wrong", ("numerics.int_numerics_test",))
    assert set(ours.values()) == {"failed"}
