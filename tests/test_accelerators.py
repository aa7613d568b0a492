"""What the program is on GPUs and TPUs, as far as a CPU can tell: lowered for them, not run."""

import logging
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from jax.extend.core import subjaxprs
from tiny import IDENTITIES, tiny_config

from configs import market
from dgnet_jax.errors import InputError
from dgnet_jax.models import blocks, build_networks
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.session import make_train_step
from dgnet_jax.training.state import blank_state, make_optimizers
from dgnet_jax.training.train_step import ActiveTerms
from dgnet_jax.training.trainer import warn_of_a_cpu

UPSAMPLING = blocks.Geometry(padding=(2, 2), reflect=True, upsample=True)


def lowered(function, platform, *arguments) -> str:
    return jax_export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()


def branches(jaxpr) -> list:
    """All conditionals of a program."""
    found = [equation for equation in jaxpr.eqns if equation.primitive.name == "cond"]
    return found + [choice for inner in subjaxprs(jaxpr) for choice in branches(inner)]


def convolved_kernels(text: str) -> list[str]:
    """The kernels of a program's convolutions, such as "5x5x4x2"."""
    found = re.findall(r"stablehlo\.convolution.*?: \(tensor<\S+>, tensor<(\S+)xf32>\)", text)
    assert len(found) == text.count("stablehlo.convolution")
    return found


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_program_lowered_on_a_cpu_carries_the_plain_form_to_accelerators(platform):
    x, kernel = jnp.zeros((2, 6, 5, 4)), jnp.zeros((5, 5, 4, 2))
    upsample = partial(blocks.convolve, geometry=UPSAMPLING)
    assert convolved_kernels(lowered(upsample, platform, x, kernel)) == ["5x5x4x2"]
    # On a CPU: the four phases at once, and the four border strips.
    on_a_cpu = ["3x3x4x8", *["5x5x4x2"] * 4]
    assert sorted(convolved_kernels(lowered(upsample, "cpu", x, kernel))) == on_a_cpu
    # Zero padding is the convolution's own there.
    padded = partial(blocks.convolve, geometry=blocks.Geometry(padding=(1, 2)))
    assert "stablehlo.pad" not in lowered(padded, platform, x, kernel)
    assert "stablehlo.pad" in lowered(padded, "cpu", x, kernel)


def test_plain_convolutions_leave_no_choice_to_the_platform():
    x, kernel = jnp.zeros((2, 6, 5, 4)), jnp.zeros((5, 5, 4, 2))
    upsample = partial(blocks.convolve, geometry=UPSAMPLING)
    chosen = convolved_kernels(lowered(upsample, "cpu", x, kernel))
    with blocks.plain_convolutions():
        # New functions: JAX keeps what it has traced of one.
        traced = jax.make_jaxpr(lambda *arguments: upsample(*arguments))(x, kernel)
        plain = lowered(lambda *arguments: upsample(*arguments), "cpu", x, kernel)
    assert "platform_index" not in str(traced)
    assert convolved_kernels(plain) == ["5x5x4x2"]
    # Afterwards everything is as it was.
    again = lowered(lambda *arguments: upsample(*arguments), "cpu", x, kernel)
    assert convolved_kernels(again) == chosen != ["5x5x4x2"]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_gradients_on_accelerators_are_those_of_the_plain_form(platform):
    x, kernel = jnp.zeros((2, 6, 5, 4)), jnp.zeros((5, 5, 4, 2))

    def gradients(x, kernel):
        return jax.grad(lambda *a: blocks.convolve(*a, UPSAMPLING).sum(), (0, 1))(x, kernel)

    # The image's by the mirrored kernel; the kernel's by the output's gradient, 12 x 10 pixels.
    assert set(convolved_kernels(lowered(gradients, platform, x, kernel))) == {
        "5x5x4x2",
        "2x12x10x2",
    }


def test_rows_and_columns_for_a_matmul_are_taken_behind_a_barrier_on_nvidia_gpus():
    # XLA's fusion into matmuls aborts the process otherwise (openxla/xla issue 47381).
    x, kernel = jnp.zeros((2, 6, 4, 3)), jnp.zeros((1, 1, 3, 2))
    strided = partial(blocks.convolve, geometry=blocks.Geometry(stride=2))

    def gradients(x, kernel):
        return jax.grad(lambda *a: jnp.square(strided(*a)).sum(), (0, 1))(x, kernel)

    for function in (strided, gradients):
        assert "optimization_barrier" in lowered(function, "cuda", x, kernel)
        for platform in ("cpu", "tpu"):
            assert "optimization_barrier" not in lowered(function, platform, x, kernel)
    with blocks.plain_convolutions():
        plain = lowered(lambda *arguments: strided(*arguments), "cuda", x, kernel)
    assert "optimization_barrier" not in plain


@pytest.mark.slow
@pytest.mark.parametrize("active", [ActiveTerms(False, False), ActiveTerms(True, True)])
def test_the_step_lowers_for_accelerators_without_a_branch_that_a_device_decides(active):
    config = tiny_config({"batch_size": 4, "dtype": "bfloat16"})
    networks, optimizers = build_networks(config, IDENTITIES), make_optimizers(config)
    key = jax.random.key(0)
    state = jax.eval_shape(partial(blank_state, config, networks, optimizers), key)
    teacher = jax.eval_shape(networks.teacher.init, key, jnp.zeros((2, 32, 16, 3)))
    batch = {
        "images": jax.ShapeDtypeStruct((4, 4, 32, 16, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((4, 2), jnp.int32),
    }
    step = make_train_step(config, networks, optimizers, active)
    traced = jax.jit(step).trace(state, teacher, batch)
    choices = branches(traced.jaxpr.jaxpr)
    assert choices
    for choice in choices:
        assert choice.params["branches_platforms"], "the device would decide"
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.if" not in text
        # The decoder's pixels are not rounded to bfloat16.
        assert re.search(r"dot_general.*-> tensor<\d+x32x16x3xf32>", text)


def test_pixels_logits_and_embeddings_are_float32_under_bfloat16():
    config = tiny_config({"dtype": "bfloat16"})
    networks = build_networks(config, IDENTITIES)
    key, images = jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 32, 16, 3))
    structure = jax.random.normal(key, (2, 8, 4, 32))
    code = jax.random.normal(key, (2, networks.appearance_encoder.code_size))
    painted, _ = networks.decoder.init_with_output(key, structure, code)
    (_, prime, fine), _ = networks.appearance_encoder.init_with_output(key, images)
    taught, _ = networks.teacher.init_with_output(key, images)
    scores, _ = networks.discriminator.init_with_output(key, images)
    for array in (painted, prime.logits, fine.embedding, taught.logits, scores[0]):
        assert array.dtype == jnp.float32
        rounded = array.astype(jnp.bfloat16).astype(jnp.float32)
        assert (array != rounded).mean() > 0.5


def test_variances_are_exact_where_the_mean_is_far_from_0():
    x = 1000 + np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)
    exact = x.astype(np.float64)
    mean, variance = blocks.moments(jnp.asarray(x), (1, 2), jnp.asarray(x[:, :1, :1]))
    np.testing.assert_allclose(mean, exact.mean((1, 2), keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((1, 2), keepdims=True), rtol=1e-4)
    _, nothing = blocks.moments(jnp.full((1, 3, 3, 2), 1e4), (1, 2), jnp.zeros(()))
    assert (nothing >= 0).all()


# A mesh whose order is not that of the devices' numbers, as those of TPU slices are not.
_REVERSED = """
import jax, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from dgnet_jax.runtime.devices import Placement

mesh = Mesh(np.array(jax.devices()[::-1]), ("data",), axis_types=(AxisType.Auto,))
asked = []

def gather(rows):
    asked.append(rows)
    return {"rows": np.arange(16)[rows], "images": np.arange(16.0).reshape(16, 1)[rows] * 2}

for parallel in ("mesh", "pmap"):
    placement = Placement(
        mesh, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data")),
        parallel,
    )
    asked.clear()
    batch = placement.put_batch(16, gather)
    assert len(asked) == 8, asked
    assert np.array_equal(np.asarray(batch["rows"]).ravel(), np.arange(16))
    assert np.array_equal(np.asarray(batch["images"]).ravel(), np.arange(16) * 2)
    assert batch["rows"].shape == ((16,) if parallel == "mesh" else (8, 2))
    assert batch["images"].shape == ((16, 1) if parallel == "mesh" else (8, 2, 1))
    first = {part.device.id: np.asarray(part.data).ravel()[0] for part in
             batch["rows"].addressable_shards}
    assert first == {device: 2 * (7 - device) for device in range(8)}, first
"""


def test_rows_go_to_the_devices_that_the_mesh_gives_them_to_whatever_its_order():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    subprocess.run(
        [sys.executable, "-c", _REVERSED],
        check=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )


def test_replicated_arrays_stay_as_they_are():
    placement = place()
    tree = placement.put_state({"a": np.arange(3), "b": jnp.ones(2)})
    again = placement.put_state(tree)
    assert again["a"] is tree["a"] and again["b"] is tree["b"]
    assert tree["a"].sharding == placement.replicated


def test_float64_without_64_bit_mode_is_refused():
    with pytest.raises(InputError, match="--config.dtype: 'float64' needs jax's 64-bit mode"):
        build_networks(tiny_config({"dtype": "float64"}), IDENTITIES)


@pytest.mark.parametrize("variant, told", [("l1", True), ("l1,small", False)])
def test_networks_of_full_size_on_a_cpu_start_with_a_warning(caplog, variant, told):
    config = market.get_config(variant)
    networks, optimizers = build_networks(config, 751), make_optimizers(config)
    state = jax.eval_shape(
        partial(blank_state, config, networks, optimizers), jax.random.key(config.seed)
    )
    with caplog.at_level(logging.WARNING, logger="absl"):
        warn_of_a_cpu(state)
    assert ("jax found CPUs only" in caplog.text) == told


@pytest.mark.slow
def test_a_run_that_requires_an_accelerator_ends_where_there_is_none(launcher, tmp_path):
    run = launcher.start(tmp_path / "new", "--require_accelerator")
    assert run.end() == 1
    assert run.said().splitlines()[-1].startswith("error: --require_accelerator: jax found CPUs")
    assert not (tmp_path / "new").exists()
