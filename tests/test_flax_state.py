"""A Flax state that holds numerics is written and read. Flax is where AQT is (`make test-aqt`)."""

import sys
from typing import Any

import numpy as np
import pytest
from oracle import assert_same_bits

from intnumerics import IntNumerics, quantize

serialization: Any = pytest.importorskip("flax.serialization", reason="needs Flax, which `make test-aqt` installs")

pytestmark = pytest.mark.aqt

X = np.linspace(-9, 9, 64, dtype=np.float32).reshape(8, 8)


class Plain(IntNumerics):
    pass


@pytest.mark.parametrize("kind", [IntNumerics, Plain])
def test_a_state_with_numerics_is_written_and_read(kind: type[IntNumerics]) -> None:
    state = {"params": {"w": X}, "numerics": kind.symmetric(4), "step": 3}
    written = serialization.to_bytes(state)
    target = {"params": {"w": np.zeros_like(X)}, "numerics": kind.symmetric(8), "step": 0}
    read = serialization.from_bytes(target, written)
    assert_same_bits(read["params"]["w"], X)
    assert (read["step"], read["numerics"]) == (3, kind.symmetric(8))  # what is static is the target's


def test_numerics_that_were_made_before_flax_was_imported_are_known_to_it_once_they_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Early(IntNumerics):
        pass

    with monkeypatch.context() as before:
        before.delitem(sys.modules, "flax.serialization")
        numerics = Early.symmetric(8)
    with pytest.raises(TypeError, match="serialize"):
        serialization.to_bytes({"numerics": numerics})
    quantize(X, numerics)
    serialization.to_bytes({"numerics": numerics})
