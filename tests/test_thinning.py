"""What `--thin` leaves out of a test with many cases: about half of them, and no value of a parameter."""

import itertools
from types import SimpleNamespace

import pytest


def test_every_value_of_every_parameter_stays_and_about_half_of_the_cases(request: pytest.FixtureRequest) -> None:
    [conftest] = [plugin for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "thinned")]
    rare = [("b", 0, "rare")]  # a value that one case alone has
    for seed in range(20):
        values = [*itertools.product("ab", range(12), ("often", "also")), *rare]
        cases = [
            SimpleNamespace(nodeid=f"test_{seed}[{v}]", callspec=SimpleNamespace(params=dict(enumerate(v))))
            for v in values
        ]
        kept = conftest.thinned(cases)
        assert len(set(map(id, kept))) == len(kept)
        assert 0.25 < len(kept) / len(cases) < 0.75
        for place in range(3):
            assert {c.callspec.params[place] for c in kept} == {v[place] for v in values}
