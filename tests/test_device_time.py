"""The time that a device took is the profiler's where that can be, or else that of a long queue; and why is said."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import device_time, timing
from bench.timing import Jitted, Patience, Spares

pytestmark = pytest.mark.tools


# JAX makes a type of its profiler's in a way that Python 3.12 warns of, and aborts if the warning is an error.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
def test_the_device_time_of_a_program_is_that_of_all_its_kernels() -> None:
    """Two kernels of one program, one of another, in the form in which JAX's profiler gives them."""
    calls = device_time.CALLS
    event = (
        "events {{ metadata_id: {kernel} offset_ps: {start} duration_ps: {time} "
        "stats {{ metadata_id: 1 str_value: '{module}' }} }}"
    )
    kernels = [(1, "jit_bench_0", 2_000_000), (2, "jit_bench_0", 3_000_000), (3, "jit_bench_1", 7_000_000)]
    events = [
        event.format(kernel=kernel, start=i * 10_000_000, time=time, module=module)
        for i in range(calls)
        for kernel, module, time in kernels
    ]
    names = " ".join(f"event_metadata {{ key: {i} value {{ id: {i} name: 'k{i}' }} }}" for i in (1, 2, 3))
    text = (
        f"planes {{ name: '/device:GPU:0' {names} stat_metadata {{ key: 1 value {{ id: 1 name: 'hlo_module' }} }} "
        f"lines {{ name: 'Stream #13' {' '.join(events)} }} }}"
    )
    found = device_time.of_programs([jax.profiler.ProfileData.from_text_proto(text)])
    assert found == pytest.approx({"bench_0": 5e-6, "bench_1": 7e-6})


def a_program(name: str = "a") -> Jitted:
    inputs = [(jnp.arange(4096.0) + i,) for i in range(3)]
    return Jitted(name, lambda x: x * 2, inputs, Spares(), f"bench_{name}")


@pytest.fixture
def profiler_is_used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As in a process that has not found it to fail."""
    monkeypatch.setattr(device_time, "_broken", broken := [])
    return broken


def test_a_call_in_a_long_queue_takes_no_longer_than_one_that_is_waited_for() -> None:
    one = a_program()
    [found] = device_time.of([one], on_cpu=True)[0].values()
    assert found["device_by"] == device_time.QUEUE
    [walls] = timing.alternate([one.call], Patience(least=20, most=20, seconds=1.0), lambda: None)
    assert 0 < found["device_s"] < 10 * max(walls)
    np.testing.assert_array_equal(one.call(1), np.arange(4096.0) * 2 + 2)  # its buffers are in order


def test_a_cpu_has_no_time_of_its_own_where_nobody_asks_to_try_it_out() -> None:
    assert device_time.of([a_program()]) == ({}, [])


def test_a_profiler_that_fails_is_used_once_and_its_reason_is_kept(
    profiler_is_used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def trace(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise RuntimeError("CUPTI could not be loaded")

    monkeypatch.setattr(jax.profiler, "trace", trace)
    for _ in range(2):
        assert device_time.by_profiler([a_program()]) == {}
    assert len(asked) == 1
    assert profiler_is_used == ["the profiler failed: RuntimeError: CUPTI could not be loaded"]


# As below: JAX makes a type in a way that Python 3.12 warns of.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
def test_a_profile_without_kernels_is_no_time_of_zero(profiler_is_used: list[str]) -> None:
    """That of a CPU, for which JAX really makes one here."""
    assert device_time.by_profiler([a_program()]) == {}
    assert profiler_is_used == ["the profiler failed: RuntimeError: it saw none of the kernels"]


@pytest.mark.parametrize(
    ("profiled", "queued", "possible"),
    [
        (1e-3, 1e-3, True),
        (0.9e-3, 1e-3, True),
        (1.5e-3, 1e-3, False),  # kernels that were counted twice
        (0.3e-3, 1e-3, False),  # kernels that were not seen
        (2e-6, 2e-5, True),  # a short call in a queue waits for the next to be begun
    ],
)
def test_a_profilers_time_is_believed_where_it_fits_a_queue(profiled: float, queued: float, possible: bool) -> None:
    assert device_time.is_possible(profiled, queued) == possible
