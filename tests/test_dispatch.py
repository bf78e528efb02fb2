"""Which implementation a platform gets, read off what is lowered for it; nothing of that needs the platform."""

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import meshes
import pytest
from implementations import ROWS
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from intnumerics import AbsMax, IntNumerics, _fastest, kernels, quantize, quantize_to_int, stochastic_cast
from intnumerics._dispatch import Call, choose
from intnumerics._mask_packing import packing
from intnumerics._quantization import Quantize
from intnumerics._scaled_quantization import QuantizeByAbsMax
from intnumerics.kernels import Scaling
from intnumerics.kernels.gpu import tuning
from intnumerics.stochastic_rounding import HardwareUniform, HashUniform, PhiloxUniform

NUMERICS = IntNumerics(8, True, True, True, True, True, None)
NOISY = NUMERICS.replace(noise_fn=lambda shape, key: jnp.zeros(shape))
KERNEL = {"cuda": ("__gpu$xla.gpu.triton", "mosaic_gpu_v2"), "tpu": ("tpu_custom_call",)}


def forward(x: jax.Array, **how: Any) -> jax.Array:
    return quantize(x, NUMERICS, **how)


def with_noise(x: jax.Array, **how: Any) -> jax.Array:
    return quantize(x, NOISY, key=jax.random.key(0), **how)


def with_philox(x: jax.Array, **how: Any) -> jax.Array:
    return quantize(x, NUMERICS.replace(noise_fn=PhiloxUniform()), key=jax.random.key(0), **how)


def to_int_with_philox(x: jax.Array, **how: Any) -> jax.Array:
    return quantize_to_int(x, NUMERICS.replace(noise_fn=PhiloxUniform()), key=jax.random.key(0), **how)


def with_hash(x: jax.Array, **how: Any) -> jax.Array:
    return quantize(x, NUMERICS.replace(noise_fn=HashUniform()), key=jax.random.key(0), **how)


def to_int(x: jax.Array, **how: Any) -> jax.Array:
    return quantize_to_int(x, NUMERICS, **how)


def forward_and_backward(x: jax.Array, **how: Any) -> tuple[jax.Array, jax.Array]:
    y, backward = jax.vjp(lambda x: quantize(x, NUMERICS, **how), x)
    return y, backward(jnp.ones_like(y))[0]


def kernels_in(function: Callable[..., Any], platform: str, x: jax.ShapeDtypeStruct, **how: Any) -> int:
    """How many kernels are called by what is lowered for a platform."""
    lowered = jax.jit(lambda x: function(x, **how)).trace(x).lower(lowering_platforms=(platform,))
    calls = re.findall(r"custom_call @([\w.$]+)\(", lowered.as_text())
    return sum(name in KERNEL.get(platform, ()) for name in calls)


def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


TILES = array(jnp.bfloat16, 64, 1024)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
@pytest.mark.parametrize("function", [forward, with_noise, to_int])
def test_a_forward_without_a_mask_is_left_to_xla_to_fuse(function: Callable[..., Any], platform: str) -> None:
    assert kernels_in(function, platform, TILES) == 0


@pytest.mark.parametrize(("platform", "calls"), [("cpu", 0), ("cuda", 0), ("rocm", 0), ("tpu", 2)])
def test_the_mask_is_packed_and_unpacked_by_kernels_on_tpu_only(platform: str, calls: int) -> None:
    assert kernels_in(forward_and_backward, platform, TILES) == calls


@pytest.mark.parametrize(("dtype", "name"), [(jnp.float32, "pallas"), (jnp.float64, "xla")])
def test_noise_that_a_kernel_does_not_read_is_left_to_xla(dtype: jnp.dtype, name: str) -> None:
    with jax.enable_x64(True):
        x, noise = jnp.zeros((8, 128), jnp.float32), jnp.zeros((8, 128), dtype)
        call = Call(Quantize(NUMERICS.spec(), "noise", packing(x.shape)))
        assert choose(call, "tpu", (x, noise), partitioned=False, elsewhere=False).name == name
        by_absmax = Call(QuantizeByAbsMax(NUMERICS.spec(), "noise", Scaling(127.0, fits=True)))
        for platform in ("tpu", "cuda"):
            row = choose(by_absmax, platform, (x, noise), partitioned=False, elsewhere=False)
            assert row.is_kernel == (name == "pallas")


def test_a_forward_that_clips_by_a_part_of_the_maximum_reads_x_once_unless_it_is_differentiated() -> None:
    clipped = IntNumerics.symmetric(8, clip_gradient=True)
    forward = lambda x: quantize(x, clipped, scale=AbsMax(0.5, axis=-1), residual="x")  # noqa: E731
    assert kernels_in(forward, "tpu", TILES) == 1
    assert kernels_in(jax.grad(lambda x: forward(x).astype(jnp.float32).sum()), "tpu", TILES) == 0


@pytest.mark.parametrize("name", [None, "xla"])
@pytest.mark.parametrize(
    ("platform", "told"),
    [("cpu", "cpu"), ("tpu", "tpu"), ("cuda", "cuda"), ("rocm", None), (None, None)],
)
def test_each_platform_has_its_form_of_plain_jnp(platform: str | None, told: str | None, name: str | None) -> None:
    call = Call(Quantize(NUMERICS.spec()), name)
    row = choose(call, platform, (jnp.zeros(8, jnp.bfloat16),), partitioned=False, elsewhere=False)
    function = row.operation("quantize")
    assert getattr(function, "func", function) is kernels.xla.quantize
    assert getattr(function, "keywords", {"platform": None})["platform"] == told


@pytest.mark.parametrize(("platform", "calls"), [("cpu", 0), ("cuda", 1), ("rocm", 0), ("tpu", 1)])
@pytest.mark.parametrize(
    "x", [TILES, array(jnp.float16, 3, 5, 130), array(jnp.float32, 7), array(jnp.float32)], ids=str
)
def test_philox_noise_is_drawn_by_a_kernel_on_gpu_and_tpu(x: jax.ShapeDtypeStruct, platform: str, calls: int) -> None:
    with jax.sharding.use_abstract_mesh(meshes.H200) if platform == "cuda" else contextlib.nullcontext():
        assert kernels_in(to_int_with_philox, platform, x) == calls
        as_floats = 0 if platform == "cuda" and x.dtype == jnp.float32 else calls  # which takes XLA as long as a copy
        assert kernels_in(with_philox, platform, x) == as_floats
        # XLA would copy a batch of rows for a TPU, and small examples would leave a GPU's blocks idle.
        of_batch = calls if len(x.shape) > 1 else 0
        assert kernels_in(jax.vmap(to_int_with_philox), platform, array(x.dtype, 2, *x.shape)) == of_batch


def test_the_hash_is_drawn_by_a_kernel_on_a_tpu_as_far_as_the_kernel_serves_it_and_by_xla_on_a_gpu() -> None:
    with jax.sharding.use_abstract_mesh(meshes.H100):
        assert kernels_in(with_hash, "cuda", TILES) == 0
    assert kernels_in(with_hash, "tpu", TILES) == 1
    from_odd = functools.partial(with_hash, offset=(1, 0), global_shape=(65, 1003))
    assert kernels_in(from_odd, "tpu", array(jnp.float32, 64, 1003)) == 1
    with_philox_from_odd = functools.partial(with_philox, offset=(1, 0), global_shape=(65, 1003))
    assert kernels_in(with_philox_from_odd, "tpu", array(jnp.float32, 64, 1003)) == 0
    of_many_subkeys = functools.partial(with_hash, offset=(0, 0), global_shape=(1 << 17, 1 << 17))
    assert kernels_in(of_many_subkeys, "tpu", array(jnp.bfloat16, 1 << 17, 1024)) == 0


@pytest.mark.parametrize(
    ("dtype", "to", "noise_fn", "on_tpu"),
    [
        (jnp.float32, jnp.bfloat16, HashUniform(), 0),
        (jnp.float32, jnp.bfloat16, PhiloxUniform(), 1),
        (jnp.bfloat16, jnp.float8_e4m3fn, HashUniform(), 1),
    ],
)
def test_a_cast_is_left_to_xla_where_memory_leaves_time_for_its_arithmetic(
    dtype: Any, to: Any, noise_fn: Any, on_tpu: int
) -> None:
    def cast(x: jax.Array) -> jax.Array:
        return stochastic_cast(x, to, key=jax.random.key(0), noise_fn=noise_fn)

    x = array(dtype, 64, 1024)
    assert kernels_in(cast, "tpu", x) == on_tpu
    with jax.sharding.use_abstract_mesh(meshes.H100):
        assert kernels_in(cast, "cuda", x) == 0


def test_scales_of_few_rows_are_the_formulas_as_it_stands_on_a_cpu() -> None:
    few, many = array(jnp.bfloat16, 64, 1024), array(jnp.bfloat16, 65, 1024)
    assert [_fastest.of_absmax(None, "cpu", [x], True) for x in (few, many)] == ["reference", "xla"]


def test_float32_becomes_integers_in_a_kernel_only_where_memory_is_quick() -> None:
    x = array(jnp.float32, 1 << 20)
    for mesh, calls in ((meshes.H100, 0), (meshes.H200, 1)):
        with jax.sharding.use_abstract_mesh(mesh):
            assert kernels_in(to_int_with_philox, "cuda", x) == calls
            assert kernels_in(to_int_with_philox, "cuda", array(jnp.bfloat16, 1 << 20)) == 1


@pytest.mark.skipif(tuning.device_kind() is not None, reason="there is a GPU here")
def test_what_is_lowered_for_a_gpu_where_none_is_known_is_left_to_xla() -> None:
    assert kernels_in(to_int_with_philox, "cuda", TILES) == 0


def test_an_exported_program_has_no_kernel_for_a_gpu() -> None:
    """JAX refuses to store one."""
    with jax.sharding.use_abstract_mesh(meshes.H100):
        assert kernels_in(to_int_with_philox, "cuda", TILES) == 1
        exported = export.export(jax.jit(to_int_with_philox), platforms=("cuda",))(TILES)
    assert not [call for call in KERNEL["cuda"] if call in exported.mlir_module()]
    assert exported.serialize()


@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_shared_noise_and_long_ragged_rows_are_left_to_xla(axes: tuple[int, ...]) -> None:
    shared = NUMERICS.replace(noise_fn=PhiloxUniform(axes))
    for platform in ("cuda", "tpu"):
        assert kernels_in(lambda x: quantize(x, shared, key=jax.random.key(0)), platform, TILES) == 0
    assert kernels_in(with_philox, "tpu", array(jnp.float32, (1 << 15) + 1)) == 0


@pytest.mark.parametrize("how", [{}, {"implementation": "pallas"}], ids=["None", "pallas"])
def test_the_hardware_generator_is_in_a_kernel_on_tpu(how: dict[str, str]) -> None:
    hardware = NUMERICS.replace(noise_fn=HardwareUniform())
    assert kernels_in(lambda x, **how: quantize(x, hardware, key=jax.random.key(0), **how), "tpu", TILES, **how) == 1
    assert kernels_in(lambda x: x + HardwareUniform()(x.shape, jax.random.key(0)).astype(x.dtype), "tpu", TILES) == 1


@pytest.mark.parametrize(
    "x", [array(jnp.float16, 64, 1024), array(jnp.float32, 64, 1000), array(jnp.float32, 7, 1024)], ids=str
)
def test_arrays_that_xla_would_copy_for_a_tpu_kernel_are_left_to_it(x: jax.ShapeDtypeStruct) -> None:
    assert kernels_in(forward_and_backward, "tpu", x) == 0
    assert kernels_in(forward_and_backward, "tpu", x, implementation="pallas") == 2


@pytest.mark.mesh
def test_a_program_of_several_tpus_has_kernels_where_types_or_shard_map_split_it() -> None:
    for kind, (backward, philox) in ((AxisType.Explicit, (2, 1)), (AxisType.Auto, (0, 0))):
        with jax.set_mesh(meshes.mesh(kind)):
            x = jax.ShapeDtypeStruct(TILES.shape, TILES.dtype, sharding=NamedSharding(meshes.mesh(kind), P("lanes")))
            assert kernels_in(forward_and_backward, "tpu", x) == backward
            assert kernels_in(with_philox, "tpu", x) == philox
            mapped = {"in_specs": P("lanes"), "out_specs": P("lanes")}
            assert kernels_in(jax.shard_map(forward_and_backward, **mapped), "tpu", x) == 2
            assert kernels_in(jax.shard_map(with_philox, **mapped), "tpu", x) == 1


@pytest.mark.mesh
def test_a_kernel_that_xla_would_have_to_split_is_refused_on_tpu() -> None:
    on = meshes.mesh(AxisType.Auto)
    x = jax.ShapeDtypeStruct(TILES.shape, TILES.dtype, sharding=NamedSharding(on, P("rows")))
    hardware = NUMERICS.replace(noise_fn=HardwareUniform())
    with pytest.raises(ValueError, match="cannot be in a program that XLA splits over several devices"):
        kernels_in(forward, "tpu", x, implementation="pallas")
    with pytest.raises(ValueError, match="cannot be in a program that XLA splits over several devices"):
        kernels_in(lambda x: quantize(x, hardware, key=jax.random.key(0)), "tpu", x)


@pytest.mark.mesh
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_so_is_one_in_a_shard_map_along_some_axes(platform: str) -> None:
    on = meshes.mesh(AxisType.Auto)
    x = jax.ShapeDtypeStruct(TILES.shape, TILES.dtype, sharding=NamedSharding(on, P("rows")))
    split = {"mesh": on, "in_specs": P("rows"), "out_specs": P("rows"), "axis_names": {"rows"}, "check_vma": False}
    assert kernels_in(jax.shard_map(with_philox, **split), platform, x) == 0
    for name in {row.name for row in ROWS if row.is_kernel and row.platform == platform}:
        by_name = jax.shard_map(lambda x, name=name: forward(x, implementation=name), **split)
        with pytest.raises(ValueError, match=f"{name!r}.* cannot be in a program that XLA splits over several devices"):
            kernels_in(by_name, platform, x)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_named_implementation_in_jnp_calls_no_kernel(platform: str, implementation: str) -> None:
    assert kernels_in(forward_and_backward, platform, TILES, implementation=implementation) == 0


@pytest.mark.parametrize("platform", ["cpu", "rocm"])
def test_a_named_kernel_is_not_replaced_where_it_does_not_run(platform: str) -> None:
    with pytest.raises(ValueError, match=f"'pallas' does not run on the platform '{platform}'"):
        kernels_in(forward, platform, TILES, implementation="pallas")


def test_an_implementation_is_one_row_of_the_table_for_a_platform() -> None:
    rows = [(row.name, row.platform) for row in kernels.TABLE]
    assert len(set(rows)) == len(rows)
    for row in ROWS:
        for operation in ("quantize", "clip_gradient_from_mask", "clip_gradient_from_x"):
            assert callable(row.operation(operation))
        assert row.operation("an operation of none") is None
