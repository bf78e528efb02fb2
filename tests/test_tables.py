"""The tables of implementations and of generators say what their modules have, and import no more than is used."""

import importlib
import subprocess
import sys
from typing import get_args

import jax.numpy as jnp
import pytest
from implementations import ROWS

from intnumerics import kernels
from intnumerics.kernels import QuantSpec, generators


def test_every_generator_has_a_name_and_a_row() -> None:
    assert set(generators.TABLE) == set(get_args(kernels.Generator))


def test_a_generator_without_a_plain_form_is_refused_by_the_plain_implementations() -> None:
    x, seed = jnp.zeros(8), jnp.zeros(4, jnp.uint32)
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", draw=kernels.Draw("hardware", (8,)))
    for row in kernels.TABLE:
        if not row.is_kernel:
            assert "hardware" not in row.generators
            with pytest.raises(NotImplementedError, match="'hardware' is drawn by kernels only"):
                row.operation("quantize")(x, seed, spec)


@pytest.mark.parametrize(
    ("room", "registered"),
    [
        pytest.param("pallas_triton", "pallas_triton.noise.STREAMS", marks=pytest.mark.pallas_triton),
        ("pallas_mosaic_gpu", "pallas_mosaic_gpu.noise.STREAMS"),
        ("pallas_tpu", "pallas_tpu.noise.IN_KERNEL"),
        ("jax_triton", "jax_triton.operations.GENERATORS"),
    ],
)
def test_the_table_names_the_generators_that_a_room_draws_from_in_its_pass(room: str, registered: str) -> None:
    module, _, name = registered.rpartition(".")
    [row] = [row for row in kernels.TABLE if row.room == room]
    assert set(row.in_pass) == set(getattr(importlib.import_module(f"intnumerics.kernels.{module}"), name))


def test_an_operation_that_a_room_does_not_have_is_none() -> None:
    assert [row.operation("quantize_rows_by_hand") for row in ROWS] == [None] * len(ROWS)


def test_pallas_and_triton_are_imported_only_when_they_are_used() -> None:
    code = """
import sys, jax, intnumerics
from intnumerics import kernels
for name in ("reference", "xla"):
    [row] = [row for row in kernels.TABLE if (row.name, row.platform) == (name, None)]
    assert row.operation("quantize") is not None
intnumerics.quantize(jax.numpy.ones(8), intnumerics.IntNumerics(8, True, True, True, True, True, None))
print(*(name for name in sys.modules if name.startswith(("jax.experimental.pallas", "triton", "jax_triton"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr[-2000:] + done.stdout
