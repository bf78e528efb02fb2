"""Several processes, as on several hosts: each quantizes its shards of an array that none of them has whole."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
DEVICES = 8
TIMEOUT = 240  # seconds for all checks; they take about twenty
CANNOT_BIND = "Failed to add port to server"  # what gRPC says where another program has the port

pytestmark = pytest.mark.xdist_group("processes")

# The checks of `process.py` that so many processes make, one after the other.
CHECKS = {
    2: [
        "shards_of_the_whole",
        "shards_that_are_no_whole_bytes",
        "a_key_for_each_shard",
        "shards_that_say_where_they_are",
    ],
    4: ["shards_of_the_whole", "shards_that_are_no_whole_bytes"],
}

Results = tuple[list[int | None], list[str]]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(count: int) -> dict[str, str]:
    # Without proxies, which gRPC would ask for the other processes.
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // count}",
    }


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own
        process.wait()


def outcome(command: list[str], count: int, port: int, folder: pathlib.Path) -> Results:
    """Runs the processes until all end, one fails or time is up, and then none of them; exit codes and outputs.

    A process that was still running has no exit code.
    """
    folder.mkdir()
    paths = [folder / f"{i}.log" for i in range(count)]
    processes: list[subprocess.Popen[bytes]] = []
    deadline = time.monotonic() + TIMEOUT
    try:
        for i, path in enumerate(paths):
            with path.open("wb") as log:
                arguments = [sys.executable, *command, str(i), str(count), str(port)]
                processes.append(
                    subprocess.Popen(
                        arguments, env=environment(count), stdout=log, stderr=log, cwd=folder, start_new_session=True
                    )
                )
        while True:
            codes = [p.poll() for p in processes]
            if any(codes) or None not in codes or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    finally:
        for p in processes:
            kill(p)
    return codes, [path.read_text(errors="replace") for path in paths]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Exit codes and outputs of as many processes as the parameter says."""
    count, folder = request.param, tmp_path_factory.mktemp("processes")
    for attempt in range(2):
        command = [str(TESTS / "process.py"), ",".join(CHECKS[count])]
        codes, outputs = outcome(command, count, free_port(), folder / str(attempt))
        # Someone else may have taken the port before the first process did.
        if not any(codes) or not any(CANNOT_BIND in text for text in outputs):
            break
    return codes, outputs


def assert_holds(check: str, results: Results) -> None:
    count = len(results[0])
    for i, (code, text) in enumerate(zip(*results, strict=True)):
        if f"{check} holds in process {i} of {count}" in text:
            continue
        if any(results[0]) and not code:
            continue  # it was stopped because another failed
        ended = f"did not end in {TIMEOUT} s" if code is None else f"ended with {code}"
        pytest.fail(f"process {i} of {count} {ended}:\n{text[-6000:]}")


two_processes = pytest.mark.parametrize("results", [2], indirect=True)
two_processes_and_four = pytest.mark.parametrize("results", [2, 4], indirect=True)


@two_processes_and_four
def test_each_process_has_the_bits_of_its_part_of_the_whole_and_sends_nothing(results: Results) -> None:
    assert_holds("shards_of_the_whole", results)


@two_processes_and_four
def test_bytes_of_the_mask_that_lie_on_two_processes(results: Results) -> None:
    assert_holds("shards_that_are_no_whole_bytes", results)


@two_processes
def test_each_process_has_the_noise_of_the_keys_that_it_gives_its_shards(results: Results) -> None:
    assert_holds("a_key_for_each_shard", results)


@two_processes
def test_each_process_has_the_noise_of_the_whole_if_its_shards_say_where_they_are(results: Results) -> None:
    assert_holds("shards_that_say_where_they_are", results)
