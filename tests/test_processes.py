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
TIMEOUT = 120  # seconds for all processes of a test; they take about ten
CANNOT_BIND = "Failed to add port to server"  # what gRPC says where another program has the port

pytestmark = pytest.mark.xdist_group("processes")


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


def outcome(command: list[str], count: int, port: int, folder: pathlib.Path) -> tuple[list[int | None], list[str]]:
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


def run(check: str, count: int, folder: pathlib.Path) -> None:
    """Runs a check of `process.py` in `count` processes, all of which must find that it holds."""
    for attempt in range(2):
        codes, outputs = outcome([str(TESTS / "process.py"), check], count, free_port(), folder / str(attempt))
        # Someone else may have taken the port before the first process did.
        if not any(codes) or not any(CANNOT_BIND in text for text in outputs):
            break
    for i, (code, text) in enumerate(zip(codes, outputs, strict=True)):
        if any(codes) and not code:
            continue  # it was stopped because another failed
        ended = f"did not end in {TIMEOUT} s" if code is None else f"ended with {code}"
        assert code == 0, f"process {i} of {count} {ended}:\n{text[-6000:]}"
        assert f"{check} holds in process {i} of {count}" in text


@pytest.mark.parametrize("count", [2, 4])
def test_each_process_has_the_bits_of_its_part_of_the_whole_and_sends_nothing(
    count: int, tmp_path: pathlib.Path
) -> None:
    run("shards_of_the_whole", count, tmp_path)


@pytest.mark.parametrize("count", [2, 4])
def test_bytes_of_the_mask_that_lie_on_two_processes(count: int, tmp_path: pathlib.Path) -> None:
    run("shards_that_are_no_whole_bytes", count, tmp_path)


def test_each_process_has_the_noise_of_the_keys_that_it_gives_its_shards(tmp_path: pathlib.Path) -> None:
    run("a_key_for_each_shard", 2, tmp_path)


def test_each_process_has_the_noise_of_the_whole_if_its_shards_say_where_they_are(tmp_path: pathlib.Path) -> None:
    run("shards_that_say_where_they_are", 2, tmp_path)
