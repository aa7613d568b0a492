"""The networks have the sizes, shapes, names and initial values of the released ones."""

import json
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config, tiny_state, tiny_teacher

from configs import base
from dgnet_jax.convert import is_unused, locate, lookup, to_flax_layout
from dgnet_jax.errors import InputError
from dgnet_jax.models import blocks, build_networks
from dgnet_jax.models.discriminator import PatchDiscriminator
from dgnet_jax.models.initialization import init_parameters
from dgnet_jax.models.reid import ReidHead
from dgnet_jax.training.state import make_optimizers

TORCH_SHAPES = json.loads((Path(__file__).parent / "data" / "state_dict_shapes.json").read_text())
# docs/method.md, section 2.8: values in a released checkpoint, buffers included.
PUBLISHED_COUNTS = {"gen": 13_382_723, "id": 28_483_005, "dis": 1_025_571}
# What a checkpoint carries and nothing computes with: running means and variances of the 8 AdaINs
# of 128 channels; ImageNet's 1000-way layer and one counter for each batch norm.
UNUSED_COUNTS = {
    "gen": 2 * 8 * 128,
    "id": 2_049_000 + 53 + 2,
    "dis": 0,
    "teacher": 2_049_000 + 53 + 1,
}
IDENTITIES = 751


@pytest.fixture(scope="module")
def networks():
    return build_networks(base.get_config(), IDENTITIES)


@pytest.fixture(scope="module")
def variables(networks):
    """Shapes of every variable of the full-size networks, by the name of the torch network."""
    key = jax.random.key(0)
    generator, appearance, discriminator = jax.eval_shape(
        lambda key: init_parameters(networks, 256, 128, key), key
    )
    images = jnp.zeros((2, 256, 128, 3))
    return {
        "gen": {"params": generator},
        "id": appearance,
        "dis": {"params": discriminator},
        "teacher": jax.eval_shape(networks.teacher.init, key, images),
    }


@pytest.mark.parametrize("network", ["gen", "id", "dis", "teacher"])
def test_the_full_size_networks_have_the_published_number_of_values(variables, network):
    carried = sum(prod(shape) for shape in TORCH_SHAPES[network].values())
    assert carried == PUBLISHED_COUNTS.get(network, carried)
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables[network]))
    assert ours == carried - UNUSED_COUNTS[network]


def assert_one_to_one(network, shapes, variables):
    located = {}
    for key, shape in shapes.items():
        location = locate(network, key)
        if location is None:
            assert is_unused(key), f"{key} is of no known layer"
            continue
        assert location not in located, f"{key} and {located[location]} share {location}"
        located[location] = key
        assert lookup(variables, location).shape == to_flax_layout(np.empty(shape)).shape, key
    assert len(located) == len(jax.tree.leaves(variables))


@pytest.mark.parametrize("network", ["gen", "id", "dis", "teacher"])
def test_every_tensor_of_a_released_checkpoint_has_one_place_here(variables, network):
    assert_one_to_one(network, TORCH_SHAPES[network], variables[network])


def test_every_tensor_of_torchvisions_resnet_has_one_place_in_a_backbone(variables):
    shapes = {
        key.removeprefix("model."): shape
        for key, shape in TORCH_SHAPES["teacher"].items()
        if key.startswith("model.")
    }
    backbone = {
        collection: {"backbone": tree["backbone"]}
        for collection, tree in variables["teacher"].items()
    }
    assert_one_to_one("resnet", shapes, backbone)


def test_a_key_of_no_known_layer_is_located_nowhere_and_not_called_unused():
    assert locate("gen", "dec.model.99.conv.weight") is None
    assert not is_unused("dec.model.99.conv.weight")


def outputs(networks, state, teacher, images):
    """Outputs of every network for `images`, each layer run as it stands, without jit."""
    appearance = {"params": state.appearance, "batch_stats": state.appearance_stats}
    structure = networks.structure_encoder.apply(
        {"params": state.generator["structure_encoder"]}, images
    )
    encoder = networks.appearance_encoder
    # The statistics change, so the mean that is subtracted first is a weight too.
    features, stats = encoder.apply(
        appearance, images, use_running_average=False, mutable=["batch_stats"]
    )
    return {
        "trained": (features, stats),
        "structure": structure,
        "appearance": encoder.apply(appearance, images),
        "decoder": networks.decoder.apply(
            {"params": state.generator["decoder"]}, structure, features[0].code
        ),
        "discriminator": networks.discriminator.apply({"params": state.discriminator}, images),
        "teacher": networks.teacher.apply(teacher, images),
    }


def test_weights_may_be_numpy_arrays_as_a_converted_file_gives_them():
    config = tiny_config({"appearance.dropout_prime": 0.0, "appearance.dropout_fine": 0.0})
    networks = build_networks(config, IDENTITIES)
    state = tiny_state(networks, make_optimizers(config), 0)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 16, 3), minval=-1, maxval=1)
    teacher = tiny_teacher(networks)
    expected = outputs(networks, state, teacher, images)
    found = outputs(networks, *jax.tree.map(np.asarray, (state, teacher)), images)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def output_shapes(networks, variables, height, width):
    """Shapes of every network's outputs for two images."""

    def forward(variables, images):
        generator = variables["gen"]["params"]
        encoder = networks.appearance_encoder
        structure = networks.structure_encoder.apply(
            {"params": generator["structure_encoder"]}, images
        )
        features, prime, fine = encoder.apply(variables["id"], images)
        return {
            "structure code": structure,
            "last map of E_a": encoder.apply(
                variables["id"], images, method=lambda module, x: module.backbone(x)
            ),
            "appearance code": features.code,
            "pooled": features.pooled,
            "embeddings": (prime.embedding, fine.embedding),
            "logits": (prime.logits, fine.logits),
            "image": networks.decoder.apply(
                {"params": generator["decoder"]}, structure, features.code
            ),
            "scores": tuple(networks.discriminator.apply(variables["dis"], images)),
            "one scale": networks.discriminator.apply(
                variables["dis"], images, 2, method="at_scale"
            ),
            "teacher": tuple(networks.teacher.apply(variables["teacher"], images)),
        }

    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(forward, variables, images))


@pytest.mark.parametrize("height, width", [(256, 128), (128, 64)])
def test_outputs_have_the_published_shapes(networks, variables, height, width):
    assert output_shapes(networks, variables, height, width) == {
        "structure code": (2, height // 4, width // 4, 128),
        "last map of E_a": (2, height // 16, width // 16, 2048),
        "appearance code": (2, 8192),
        "pooled": (2, 2048),
        "embeddings": ((2, 512), (2, 512)),
        "logits": ((2, IDENTITIES), (2, IDENTITIES)),
        "image": (2, height, width, 3),
        "scores": tuple((2, height // n, width // n, 1) for n in (4, 8, 16)),
        "one scale": (2, height // 16, width // 16, 1),
        "teacher": ((2, 512), (2, IDENTITIES)),
    }


def test_bfloat16_networks_keep_float32_parameters_and_outputs():
    config = base.get_config()
    config.dtype = "bfloat16"
    networks = build_networks(config, IDENTITIES)

    def forward(key):
        generator, appearance, discriminator = init_parameters(networks, 256, 128, key)
        images = jnp.zeros((2, 256, 128, 3))
        features, prime, fine = networks.appearance_encoder.apply(appearance, images)
        structure = networks.structure_encoder.apply(
            {"params": generator["structure_encoder"]}, images
        )
        image = networks.decoder.apply({"params": generator["decoder"]}, structure, features.code)
        scores = networks.discriminator.apply({"params": discriminator}, images)
        kept = (generator, appearance, discriminator, features, prime, fine, image, scores)
        return kept, structure

    kept, structure = jax.eval_shape(forward, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert structure.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "field, value, named",
    [
        ("dtype", "float16", "--config.dtype"),
        ("decoder.num_residual", 3, "--config.decoder.num_residual"),
        ("data.height", 254, "--config.data.height"),
    ],
)
def test_fields_that_do_not_fit_together_are_named(field, value, named):
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=named):
        build_networks(config, IDENTITIES)


def test_initial_kernels_have_the_published_deviations():
    key = jax.random.key(1)
    images = jnp.zeros((2, 8, 8, 64))
    generator = blocks.Conv(64, 3).init(key, images)["params"]
    assert generator["kernel"].std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert not generator["bias"].any()
    mlp = blocks.MLP((512, 8)).init(key, jnp.zeros((1, 256)))["params"]["dense_0"]
    assert mlp["kernel"].std() == pytest.approx(np.sqrt(2 / 256), rel=0.02)
    head = ReidHead(IDENTITIES).init(key, jnp.zeros((2, 128)))["params"]
    assert head["reduce"]["kernel"].std() == pytest.approx(np.sqrt(2 / 512), rel=0.02)
    assert head["classifier"]["kernel"].std() == pytest.approx(0.001, rel=0.02)
    assert set(np.unique(head["bn"]["scale"])) == {1.0}
    gamma = blocks.ImageLayerNorm().init(key, jnp.zeros((1, 2, 2, 4096)))["params"]["gamma"]
    assert (gamma.min() >= 0) & (gamma.max() < 1)
    assert gamma.mean() == pytest.approx(0.5, abs=0.02)


def test_the_discriminator_starts_with_a_deviation_of_0_02():
    model = PatchDiscriminator(dim=32, num_residual=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    large = [leaf for leaf in jax.tree.leaves(params) if leaf.size > 5000]
    assert len(large) >= 5 and len(jax.tree.leaves(shapes)) == 2 * 8
    for kernel in large:
        assert kernel.std() == pytest.approx(0.02, rel=0.05)
