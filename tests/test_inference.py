"""A trained model is what its checkpoint holds, and treats every image by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from tiny import IDENTITIES, tiny_config
from trained import BEST, STEP, save_evaluated, save_run

from dgnet_jax.errors import InputError
from dgnet_jax.inference import DGNet, load_baseline, load_model, load_teacher_model
from dgnet_jax.models import apply, build_networks
from dgnet_jax.runtime.workdir import load_config
from dgnet_jax.training.pictures import Painter

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, *save_run(workdir)


@pytest.fixture(scope="module")
def model(run) -> DGNet:
    # No data set is there: config.data.root is empty.
    return load_model(load_config(run[0]), run[0])


@pytest.fixture(scope="module")
def teacher(run):
    return load_teacher_model(load_config(run[0]), run[0])


def pictures(count: int, seed: int = 0, height: int = 32, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def normalised(images: np.ndarray) -> jax.Array:
    return jnp.asarray((images / 255 - MEAN) / STD, jnp.float32)


def to_uint8(images: jax.Array) -> np.ndarray:
    return np.clip(np.round((np.asarray(images) * STD + MEAN) * 255), 0, 255).astype(int)


def test_a_model_is_its_checkpoint_and_counts_its_identities(run, model, teacher):
    _, _, state, variables = run
    restored = (model.generator, model.appearance["params"], model.appearance["batch_stats"])
    saved = (state.generator, state.appearance, state.appearance_stats)
    jax.tree.map(np.testing.assert_array_equal, restored, saved)
    jax.tree.map(np.testing.assert_array_equal, teacher.variables, variables)
    assert (model.step, model.num_identities, teacher.num_identities) == (STEP, IDENTITIES, 5)


def test_the_best_checkpoint_is_not_the_last(tmp_path):
    config, state, _ = save_run(tmp_path)
    moved = jax.tree.map(lambda leaf: leaf + 1, state)
    save_evaluated(tmp_path, config, (moved, state))
    best = load_model(load_config(tmp_path), tmp_path, "best")
    assert best.step == BEST
    jax.tree.map(np.testing.assert_array_equal, best.generator, moved.generator)
    assert load_model(config, tmp_path).step == BEST + 1


@pytest.mark.parametrize("load", [load_model, load_baseline])
def test_without_an_evaluated_checkpoint_there_is_no_best(run, load):
    with pytest.raises(InputError, match=r"no checkpoint has an evaluation.*every_steps=N"):
        load(load_config(run[0]), run[0], "best")


def test_a_swap_is_the_decoders_picture_of_the_two_codes(run, model):
    networks = build_networks(run[1], IDENTITIES)
    first, second = pictures(3, 1), pictures(3, 2)
    appearance, _, _ = apply(networks.appearance_encoder, model.appearance, normalised(first))
    params = {"params": model.generator["structure_encoder"]}
    structure = apply(networks.structure_encoder, params, normalised(second))
    painted = apply(
        networks.decoder, {"params": model.generator["decoder"]}, structure, appearance.code
    )
    # Two compilations of the same sums may round to neighbouring levels.
    assert abs(model.swap(first, second).astype(int) - to_uint8(painted)).max() <= 1


def test_a_swap_for_fid_has_its_levels_rounded_and_truncated(model):
    first, second = pictures(3, 1), pictures(3, 2)
    rounded, truncated = model.swap_in_both_ways(first, second)
    assert abs(model.swap(first, second).astype(int) - rounded).max() <= 1
    lost = rounded.astype(int) - truncated
    assert set(np.unique(lost)) == {0, 1}
    # Half of all levels, but for those that are clipped, are nearer to the level above.
    inside = (rounded > 0) & (rounded < 255)
    assert abs(lost[inside].mean() - 0.5) < 0.05


def test_an_image_swapped_with_itself_is_its_reconstruction(model):
    images = pictures(4)
    rebuilt = model.decode(model.structure_codes(images), model.appearance_codes(images))
    assert abs(model.swap(images, images).astype(int) - rebuilt).max() <= 1
    other = model.swap(images, images[::-1])
    assert abs(other.astype(int) - rebuilt).max() > 20


def test_swaps_agree_with_the_pictures_drawn_in_training(run, model):
    _, config, state, _ = run
    images = pictures(6)
    drawn = Painter(config, model.networks, images).swaps(state)
    for i in range(2):
        for j in range(2):
            swapped = model.swap(drawn.originals[i][None], drawn.originals[j][None])[0]
            assert abs(swapped.astype(int) - drawn.swapped[i, j]).max() <= 1


@pytest.mark.parametrize("count", [1, 7, 16, 17])
def test_padding_and_the_other_images_of_a_batch_change_nothing(model, teacher, count):
    assert model.batch_size == 16
    images, structures = pictures(20, 1), pictures(20, 2)
    for function, arguments in (
        (model.swap, (images, structures)),
        (model.structure_codes, (images,)),
        (model.appearance_codes, (images,)),
        (model.embeddings, (images,)),
        (teacher.embeddings, (images,)),
        (teacher.soft_labels, (images,)),
    ):
        whole = function(*arguments)
        part = function(*(argument[:count] for argument in arguments))
        assert len(part) == count
        np.testing.assert_array_equal(part, whole[:count])


def test_one_compilation_a_function(model):
    model.swap(pictures(3), pictures(3))
    before = model._compiled("swap")._cache_size()
    model.swap(pictures(18), pictures(18))
    assert model._compiled("swap")._cache_size() == before


def test_models_of_one_network_share_their_programs(model):
    """A report of many runs traces and compiles the generator once."""
    other = dataclasses.replace(model, step=model.step + 1)
    assert other._compiled("swap") is model._compiled("swap")
    assert other._compiled("swap") is not other._compiled("repaint")


def test_embeddings_are_of_unit_norm_and_the_same_for_the_mirrored_image(model, teacher):
    images = pictures(5)
    for embed in (model.embeddings, teacher.embeddings):
        found = embed(images)
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)
        np.testing.assert_allclose(found, embed(images[:, :, ::-1]), atol=1e-5)
    assert model.embeddings(images).shape == (5, 2, 8)


def test_soft_labels_are_the_mean_of_the_softmaxes_of_both_views(teacher):
    images = pictures(5)
    logits = [
        apply(teacher.network, teacher.variables, normalised(view)).logits
        for view in (images, images[:, :, ::-1])
    ]
    expected = np.mean([softmax(np.asarray(view), axis=-1) for view in logits], axis=0)
    np.testing.assert_allclose(teacher.soft_labels(images), expected, atol=1e-5)


def test_images_of_another_size_are_resized(model):
    large = pictures(2, height=64, width=32)
    assert model.swap(large, pictures(2)).shape == (2, 32, 16, 3)


def test_bfloat16_computes_in_it(run, model):
    coarse = load_model(tiny_config({"dtype": "bfloat16"}), run[0])
    images = pictures(4)
    codes, rough = model.appearance_codes(images), coarse.appearance_codes(images)
    assert rough.dtype == codes.dtype == np.float32
    error = np.abs(rough - codes).max() / np.abs(codes).max()
    assert 1e-4 < error < 0.05


def test_the_name_tells_two_sets_of_weights_apart(model):
    params = jax.tree.map(lambda leaf: leaf, model.generator)
    params["decoder"]["to_image"]["bias"] = params["decoder"]["to_image"]["bias"] + 1
    other = DGNet(model.config, model.networks, params, model.appearance, model.step, model.source)
    assert model.name.startswith("trained")
    assert other.name != model.name


def test_what_cannot_be_loaded_is_refused(run, tmp_path):
    workdir, config, _, _ = run
    with pytest.raises(InputError, match="no checkpoints of the dgnet stage in it"):
        load_model(config, tmp_path)
    with pytest.raises(InputError, match="no checkpoints of the teacher stage in it"):
        load_teacher_model(config, tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint of step 4; found steps \[3\]"):
        load_model(config, workdir, 4)
    with pytest.raises(InputError, match="of another network or optimiser: .*decoder"):
        load_model(tiny_config({"decoder.mlp_width": 16}), workdir)
    with pytest.raises(InputError, match=r"teacher\.stage_widths is \(4,\) there, \(8,\) now"):
        both = {"teacher.stage_widths": (8,), "appearance.stage_widths": (8,)}
        load_teacher_model(tiny_config(both), workdir)


def test_an_unfinished_teacher_is_refused(tmp_path):
    config, _, _ = save_run(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"total_steps": 6', '"total_steps": 7'))
    with pytest.raises(InputError, match="is unfinished, at step 6 of 7"):
        load_teacher_model(config, tmp_path)
