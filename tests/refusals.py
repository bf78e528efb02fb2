"""What it means that bad input is refused: by an error of one kind that says what is needed, before any compilation."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import pytest

compiled: list[str] = []


def count(event: str, duration: float, fun_name: str = "", **_: Any) -> None:
    if "backend_compile" in event and fun_name != "jit(stage)":  # which moves a NumPy array to the device
        compiled.append(fun_name)


jax.monitoring.register_event_duration_secs_listener(count)


@contextlib.contextmanager
def refused(kind: type[Exception], *words: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expects an error of exactly this kind whose message has all these words, and no compilation before it."""
    jax.clear_caches()
    compiled.clear()
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.type is kind
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"the message lacks {missing}: {caught.value}"
    assert not compiled
