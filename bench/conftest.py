"""Prints the ratios that the benchmarks measured, after pytest-benchmark's own table."""

import pytest

RATIOS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[RATIOS]:
        terminalreporter.section(
            "speed as a multiple of that of FJFormer's formula under jit, the median of alternating calls"
        )
        terminalreporter.write_line("\n".join(config.stash[RATIOS]))


@pytest.fixture
def ratios(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the summary."""
    return request.config.stash[RATIOS]
