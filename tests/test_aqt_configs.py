"""One call of `replace_numerics` puts our numerics into an AQT config, and changes nothing else."""

import copy
import dataclasses
import doctest
import functools
import pathlib
from typing import Any

import aqt_pairs
import jax
import jax.numpy as jnp
import prose
import pytest
from aqt_pairs import (
    CONFIGS,
    Theirs,
    aqt_conv_general,
    aqt_dot_general,
    aqt_flax,
    config,
    numerics_in,
    pair,
    stochastic_rounding,
)

from intnumerics import aqt
from intnumerics.aqt import replace_numerics

pytestmark = aqt_pairs.MARKS
settings = aqt_pairs.settings_of_aqt
ROOT = pathlib.Path(__file__).parent.parent


def kinds(value: Any) -> list[type]:
    return [type(found) for found in numerics_in(value)]


@pytest.mark.parametrize("make", CONFIGS.values(), ids=CONFIGS)
def test_every_numerics_of_aqt_becomes_ours_in_a_copy_and_the_config_reads_the_same(make: Any) -> None:
    theirs = make()
    before = repr(theirs)
    ours = replace_numerics(theirs)
    assert set(kinds(ours)) == {aqt.IntSymmetric}
    assert set(kinds(theirs)) == {Theirs}
    assert len(kinds(ours)) == len(kinds(theirs)) > 0
    assert repr(ours) == repr(theirs) == before
    assert len(jax.tree.leaves(ours)) == len(jax.tree.leaves(theirs))


def test_the_copy_shares_nothing_that_can_be_changed() -> None:
    theirs = config.config_v4()
    before, ours = copy.deepcopy(theirs), replace_numerics(theirs)
    config.set_bits(ours, 4, 4, 4, 4, 4, 4)
    config.set_stochastic_rounding(ours, True, True, "custom-1")
    config.set_absmax_calib_scale(ours, 0.5)
    ours.fwd.lhs.use_fwd_quant = True
    assert theirs == before
    numerics: Any = lambda config: config.dlhs.dg_quantizer.lhs.numerics  # noqa: E731
    numerics(theirs).noise_fn = functools.partial(stochastic_rounding.JaxUniform(), noise_sharing_axes=[0])
    numerics(replace_numerics(theirs)).noise_fn.keywords["noise_sharing_axes"].append(1)
    assert numerics(theirs).noise_fn.keywords["noise_sharing_axes"] == [0]


def test_the_config_functions_of_aqt_change_ours_as_they_change_theirs() -> None:
    def changed(cfg: Any) -> Any:
        config.set_stochastic_rounding(cfg, True, True, "jax.uniform", noise_sharing_axes=(0,))
        config.set_absmax_calib_scale(cfg, 0.5)
        return config.set_context(cfg, jax.random.key(0), 3)

    # A partial's repr has an address, which is that of no other object.
    theirs, ours = changed(config.config_v4(fwd_bits=2)), changed(replace_numerics(config.config_v4(fwd_bits=2)))
    for a, b in zip(numerics_in(ours), numerics_in(theirs), strict=True):
        assert type(a) is aqt.IntSymmetric
        names = [field.name for field in dataclasses.fields(b) if field.name != "noise_fn"]
        assert [getattr(a, name) for name in names] == [getattr(b, name) for name in names]
        assert getattr(a.noise_fn, "keywords", None) == getattr(b.noise_fn, "keywords", None)
    config.set_fwd_rhs_dtype_int2(ours)
    assert ours.fwd.dg_quantizer.rhs.numerics.dtype == jnp.int2


def test_a_second_call_is_harmless() -> None:
    once = replace_numerics(config.fully_quantized())
    twice = replace_numerics(once)
    assert twice == once
    assert twice is not once


@pytest.mark.parametrize(
    "make",
    [
        config.default_unquantized_config,
        lambda: config.config_v4(fwd_bits=None, dlhs_bits=None),
        lambda: config.config_fwd_fp8("e4m3"),
        lambda: aqt_dot_general.LocalAqt(contraction_axis_shard_count=2),
    ],
)
def test_a_config_without_integers_is_copied(make: Any) -> None:
    theirs = make()
    ours = replace_numerics(theirs)
    assert repr(ours) == repr(theirs)
    assert ours == theirs
    assert ours is not theirs


def test_other_numerics_beside_integers_stay() -> None:
    theirs = config.config_v4(dlhs_bits="e5m2")
    ours = replace_numerics(theirs)
    for side in ("lhs", "rhs"):
        assert type(getattr(ours.fwd.dg_quantizer, side).numerics) is aqt.IntSymmetric
        for part in ("dlhs", "drhs"):
            a, b = (getattr(getattr(cfg, part).dg_quantizer, side).numerics for cfg in (ours, theirs))
            assert a == b
            assert type(a) is type(b)


def test_every_kind_of_config_is_taken_alone_and_in_containers() -> None:
    raw = aqt_conv_general.conv_general_dilated_make(2, 8, 8)
    general = config.config_v4()
    quantizer, numerics = raw.dg_quantizer.lhs, pair(8)[0]
    for one in (raw, general, general.fwd, raw.dg_quantizer, quantizer, numerics):
        assert kinds(replace_numerics(one)) == [aqt.IntSymmetric] * len(kinds(one))
    made = functools.partial(aqt_flax.AqtDotGeneral, general, prng_name="noise")
    ours: Any = replace_numerics({"conv": [raw, None], "rest": (general, 3, made), "other": Theirs})
    assert ours["conv"][1] is None
    assert ours["rest"][1] == 3
    assert ours["other"] is Theirs
    assert ours["rest"][2].func is aqt_flax.AqtDotGeneral
    assert ours["rest"][2].keywords == {"prng_name": "noise"}
    for one in (ours["conv"][0], ours["rest"][0], ours["rest"][2].args[0]):
        assert set(kinds(one)) == {aqt.IntSymmetric}
    assert ours["rest"][2].args[0] is ours["rest"][0]  # what was one object is one again


def test_a_module_of_flax_is_copied_with_our_numerics_in_its_config() -> None:
    module = aqt_flax.AqtDotGeneral(config.config_v4())
    assert set(kinds(replace_numerics(module).cfg)) == {aqt.IntSymmetric}
    assert set(kinds(module.cfg)) == {Theirs}


@dataclasses.dataclass
class OfAUser(Theirs):
    """Numerics that someone made of AQT's: what it does is theirs to say."""


def test_a_subclass_of_a_user_stays() -> None:
    theirs = config.config_v4()
    theirs.fwd.dg_quantizer.lhs.numerics = OfAUser(
        **{field.name: getattr(pair(8)[0], field.name) for field in dataclasses.fields(Theirs)}
    )
    ours = replace_numerics(theirs)
    assert type(ours.fwd.dg_quantizer.lhs.numerics) is OfAUser
    assert type(ours.fwd.dg_quantizer.rhs.numerics) is aqt.IntSymmetric


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "NoneType"),
        (8, "int"),
        ({"bits": 8}, "dict"),
        (config.config_v4, "function"),
        (aqt_conv_general.make_conv_general_dilated(aqt_conv_general.conv_general_dilated_make(2, 8, 8)), "function"),
        (Theirs, "ABCMeta"),
    ],
)
def test_what_has_nothing_of_aqt_in_it_is_refused(value: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"config is a {name} with nothing of AQT in it.*config_v4\(\)"):
        replace_numerics(value)


def test_the_examples_in_the_docstrings_run() -> None:
    failed, tried = doctest.testmod(aqt)
    assert (failed, tried > 5) == (0, True)


def test_the_example_in_the_readme_runs() -> None:
    [block] = prose.python_blocks(prose.section((ROOT / "README.md").read_text(), "With AQT"))
    names: dict[str, Any] = {}
    exec(block, names)
    assert set(kinds(names["aqt_config"])) == {aqt.IntSymmetric}
