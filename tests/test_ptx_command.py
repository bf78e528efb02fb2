"""`python -m tools.ptx`: a look inside a compiled program."""

import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ptx, pytest.mark.tools]

ROOT = pathlib.Path(__file__).parent.parent


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.ptx", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_command_shows_what_a_case_executes_and_what_one_thread_does() -> None:
    assert "pallas_triton: quantize bfloat16 -> int8" in command("--list").stdout.splitlines()
    shown = command("pallas_triton: quantize bfloat16 -> int8", "--elements", "4096", "--trace", "0", "1").stdout
    assert "intnumerics_quantize: grid" in shown
    assert "st.global" in shown
    assert "%tid.x" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--list"),
        (["pallas_triton: quantise"], "'pallas_triton: quantise'; --list"),
        (["pallas_triton: quantize float32", "--elements", "0"], "--elements is 0"),
    ],
    ids=["no case", "an unknown case", "no elements"],
)
def test_a_mistake_is_named_before_anything_is_compiled(arguments: list[str], says: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
