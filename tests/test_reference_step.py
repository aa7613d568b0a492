"""The networks and three training steps against the released program's numbers.

`DGNET_REFERENCE=other.npz pytest tests/test_reference_step.py` runs the same on any file of this
form; every setting comes from the file's `meta`.
"""

import os
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from reference import Reference

from configs import base
from dgnet_jax.convert import convert_state_dict, is_unused, locate, lookup, to_torch_layout
from dgnet_jax.models import Networks, build_networks
from dgnet_jax.training.schedules import ramp
from dgnet_jax.training.state import Optimizers, TrainState, create_state, make_optimizers
from dgnet_jax.training.train_step import (
    ActiveTerms,
    Batch,
    StepRandomness,
    active_terms,
    make_update,
)

pytestmark = [pytest.mark.slow, pytest.mark.alone]

NETWORKS = {
    "gen": ("generator", None),
    "id": ("appearance", "appearance_stats"),
    "dis": ("discriminator", None),
}
# The reference's names of losses: (name here, direction or None for the sum of both).
LOSSES = {
    "gen_total": ("generator", None),
    "dis_total": ("discriminator", None),
    "adv_a": ("adversarial", 0),
    "adv_b": ("adversarial", 1),
    "recon_x_a": ("self_reconstruction", 0),
    "recon_x_b": ("self_reconstruction", 1),
    "recon_xp_a": ("same_identity_reconstruction", 0),
    "recon_xp_b": ("same_identity_reconstruction", 1),
    "recon_s_a": ("structure_code", 0),
    "recon_s_b": ("structure_code", 1),
    "recon_f_a": ("appearance_code", 0),
    "recon_f_b": ("appearance_code", 1),
    "cyc_a": ("cycle", 0),
    "cyc_b": ("cycle", 1),
    "id": ("identity", None),
    "pid": ("same_identity", None),
    "recon_id": ("generated_identity", None),
    "teacher": ("teacher", None),
}


@pytest.fixture(scope="module", autouse=True)
def room() -> None:
    """The float64 step takes 17 GiB: programs compiled by other tests make room."""
    jax.clear_caches()


@pytest.fixture(scope="module")
def reference(shared: Path) -> Reference:
    folder = shared / "reference"
    path = Path(os.environ.get("DGNET_REFERENCE", folder / "dgnet_step.npz"))
    return Reference(path, folder / "state_dict_shapes.json")


def reference_config(meta: dict, dtype: str) -> ml_collections.ConfigDict:
    """The published config with the settings of a reference file."""
    assert not meta["dropout"] and not meta["erasing_p"], "random steps have no reference"
    pooling = {"max": "max", "avg": "average", "average": "average"}
    config = base.get_config()
    config.dtype = dtype
    config.reconstruction_loss = meta["recon"]
    config.gan_loss = meta["gan"]
    config.augment.erasing_probability = 0.0
    config.discriminator.gradient_penalty = meta["r1"]
    config.appearance.cut_gradient = meta["detach_appearance_code"]
    config.appearance.train_bn = meta["train_bn"]
    config.appearance.pooling = pooling[meta["pool"]]
    config.appearance.dropout_prime = config.appearance.dropout_fine = meta["dropout"]
    config.teacher.label_style = meta["teacher_style"]
    # The reference was run without dropout anywhere.
    config.teacher.label_dropout = bool(meta["dropout"])
    config.teacher.last_stride = meta["teacher_last_stride"]
    config.teacher.pooling = pooling[meta["teacher_pool"]]
    config.weights = dict(
        gan=meta["gan_w"],
        self_reconstruction=meta["recon_x_w"],
        same_identity_reconstruction=meta["recon_xp_w"],
        identity=meta["id_w"],
        same_identity=meta["pid_w"],
        generated_identity=meta["recon_id_w"],
        structure_code=meta["max_w"],
        appearance_code=meta["max_w"],
        cycle=meta["max_cyc_w"],
        teacher=meta["max_teacher_w"],
        fine=meta["fine_w"],
    )
    config.ramp.start, config.ramp.scale = meta["warm_iter"], meta["warm_scale"]
    config.optimizer.generator_learning_rate = meta["lr_g"]
    config.optimizer.discriminator_learning_rate = meta["lr_d"]
    config.optimizer.appearance_learning_rate = meta["lr_id"]
    config.optimizer.beta1, config.optimizer.beta2 = meta["beta1"], meta["beta2"]
    config.optimizer.weight_decay = meta["weight_decay"]
    return config


def record_gradients(optimizers: Optimizers) -> Optimizers:
    """The same optimisers, whose states also hold the gradient as it came in."""
    recorder = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, _state, _params=None: (gradient, gradient),
    )
    return Optimizers(*(optax.chain(recorder, optimizer) for optimizer in optimizers))


def filled(reference: Reference, name: str, dtype: jnp.dtype) -> dict:
    conversion = convert_state_dict(name, reference.weights(name))
    assert not conversion.unknown
    return jax.tree.map(partial(jnp.asarray, dtype=dtype), conversion.variables)


def first_state(reference: Reference, optimizers: Optimizers, dtype: jnp.dtype) -> TrainState:
    return create_state(
        filled(reference, "gen", dtype)["params"],
        filled(reference, "id", dtype),
        filled(reference, "dis", dtype)["params"],
        optimizers,
    )


def batch_of(reference: Reference, step: int, dtype: jnp.dtype) -> Batch:
    images = [reference.images(step, tag) for tag in ("xa", "xb", "pa", "pb")]
    labels = [reference.labels(step, tag) for tag in ("la", "lb")]
    return Batch(
        images=jnp.asarray(np.stack(images, axis=1), dtype),
        erased=None,
        labels=jnp.asarray(np.stack(labels, axis=1)),
    )


def assert_agrees(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """Relative to the largest entry; absolute 1e-9 (1e-4 in float32) where the reference is 0."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    scale = np.abs(theirs).max()
    if scale < 1e-9:
        bound = 1e-9 if tolerance < 1e-5 else 1e-4
    else:
        bound = tolerance * scale
    error = np.abs(ours - theirs).max()
    assert error <= bound, f"{name}: {ours!r} here, {theirs!r} there (error {error:.2e})"


def losses_of(losses: dict[str, jax.Array]) -> dict[str, float]:
    return {
        key: float(jnp.sum(losses[name]) if direction is None else losses[name][direction])
        for key, (name, direction) in LOSSES.items()
    }


def trees(state: TrainState) -> dict[str, dict]:
    return {
        name: {
            "params": getattr(state, params),
            "batch_stats": getattr(state, stats) if stats else {},
        }
        for name, (params, stats) in NETWORKS.items()
    }


def check_forwards(reference: Reference, networks: Networks, dtype: jnp.dtype) -> None:
    expected = reference.under("eval.")
    images = jnp.asarray(reference.images(0, "xa"), dtype)
    generator = filled(reference, "gen", dtype)["params"]
    structure = networks.structure_encoder.apply({"params": generator["structure_encoder"]}, images)
    features, prime, fine = networks.appearance_encoder.apply(
        filled(reference, "id", dtype), images
    )
    decoded = networks.decoder.apply({"params": generator["decoder"]}, structure, features.code)
    scores = networks.discriminator.apply(filled(reference, "dis", dtype), images)
    teacher = networks.teacher.apply(filled(reference, "teacher", dtype), images)
    ours = {
        "structure_code": structure.transpose(0, 3, 1, 2)[:, :, ::16, ::8],
        "appearance_code": features.code[:, ::64],
        "logits_prime": prime.logits[:, ::25],
        "logits_fine": fine.logits[:, ::25],
        "decoded": decoded.transpose(0, 3, 1, 2)[:, :, ::16, ::8],
        "teacher_logits": teacher.logits[:, ::25],
        **{f"dis_scale{i}": score.transpose(0, 3, 1, 2) for i, score in enumerate(scores)},
    }
    assert ours.keys() == expected.keys()
    tolerance = 1e-6 if dtype == jnp.float64 else 1e-4
    for name, value in expected.items():
        assert_agrees(f"eval.{name}", ours[name], value, tolerance)


def check_gradients(reference: Reference, state: TrainState, tolerance: float) -> None:
    gradients = {
        "gen": {"params": state.generator_optimizer[0]},
        "id": {"params": state.appearance_optimizer[0]},
        "dis": {"params": state.discriminator_optimizer[0]},
    }
    for network, tree in gradients.items():
        norms = reference.under(f"step0.grad_norm.{network}.")
        checked = 0
        for key, norm in norms.items():
            location = locate(network, key)
            if location is None:
                assert norm == -1 and is_unused(key), key
                continue
            ours = jnp.linalg.norm(lookup(tree, location).ravel())
            assert_agrees(f"gradient of {network}.{key}", ours, norm, tolerance)
            checked += 1
        assert checked == len(jax.tree.leaves(tree))


def check_final_tensors(reference: Reference, state: TrainState) -> None:
    for network, tree in trees(state).items():
        checked = 0
        for key, (total, norm) in reference.under(f"final.sum_norm.{network}.").items():
            location = locate(network, key)
            if location is None:
                assert is_unused(key), key
                continue
            tensor = to_torch_layout(np.asarray(lookup(tree, location), np.float64))
            assert_agrees(f"norm of {network}.{key}", np.linalg.norm(tensor), norm, 1e-6)
            # A sum may cancel to nothing: its scale is that of its entries.
            bound = 1e-6 * norm * np.sqrt(tensor.size) + 1e-9
            assert abs(tensor.sum() - total) <= bound, f"sum of {network}.{key}"
            checked += 1
        assert checked == len(jax.tree.leaves(tree))


def run_steps(reference: Reference, dtype: jnp.dtype, steps: int):
    """Yields (step, losses, state) of consecutive steps on the reference's batches."""
    meta = reference.meta
    config = reference_config(meta, jnp.dtype(dtype).name)
    networks = build_networks(config, meta["num_classes"])
    optimizers = record_gradients(make_optimizers(config))
    state = first_state(reference, optimizers, dtype)
    teacher = filled(reference, "teacher", dtype)

    @cache
    def update(active: ActiveTerms):
        return jax.jit(make_update(config, networks, optimizers, active), donate_argnums=0)

    for step in range(steps):
        coin = StepRandomness(jax.random.key(0), jnp.asarray(meta["train_structure_encoder"][step]))
        batch = batch_of(reference, step, dtype)
        state, losses = update(active_terms(config, step))(state, teacher, batch, coin)
        yield step, losses, state


def check_schedules(reference: Reference, step: int) -> None:
    config = reference_config(reference.meta, "float64")
    weights = reference.under(f"step{step}.weight.")
    names = {
        "recon_f_w": "appearance_code",
        "recon_s_w": "structure_code",
        "recon_x_cyc_w": "cycle",
        "teacher_w": "teacher",
    }
    for key, value in weights.items():
        ours = ramp(step, config.weights[names[key]], config.ramp.start, config.ramp.scale)
        assert float(ours) == pytest.approx(float(value), rel=1e-6)


def test_float64_agrees_in_forwards_losses_gradients_and_three_steps(reference: Reference) -> None:
    with jax.enable_x64(True):
        meta = reference.meta
        networks = build_networks(reference_config(meta, "float64"), meta["num_classes"])
        check_forwards(reference, networks, jnp.float64)
        state = None
        for step, losses, state in run_steps(reference, jnp.float64, meta["steps"]):
            check_schedules(reference, step)
            expected = reference.under(f"step{step}.loss.")
            ours = losses_of(losses)
            assert ours.keys() == expected.keys()
            for name, value in expected.items():
                assert_agrees(f"step {step}, {name}", ours[name], value, 1e-6)
            if step == 0:
                check_gradients(reference, state, 1e-6)
        check_final_tensors(reference, state)


def test_float32_agrees_in_the_first_step(reference: Reference) -> None:
    meta = reference.meta
    networks = build_networks(reference_config(meta, "float32"), meta["num_classes"])
    check_forwards(reference, networks, jnp.float32)
    ((_, losses, state),) = run_steps(reference, jnp.float32, 1)
    ours = losses_of(losses)
    for name, value in reference.under("step0.loss.").items():
        assert_agrees(f"step 0, {name}", ours[name], value, 1e-4)
    check_gradients(reference, state, 1e-2)
