"""The teacher's labels on generated images, with its dropout and without (docs/method.md, 2.6)."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import FAST_COMPILATION
from tiny import IDENTITIES, tiny_config, tiny_teacher

from dgnet_jax.models import Networks, build_networks
from dgnet_jax.training.passes import TeacherPass

BATCH, KEYS = 3, 64
IMAGES = np.random.default_rng(0).standard_normal((BATCH, 2, 32, 16, 3)).astype(np.float32)
SOURCES = jnp.array([[0, 1], [2, 3], [4, 0]], jnp.int32)


@cache
def networks(dropout: float = 0.5) -> Networks:
    """Of a teacher whose embedding is one number: dropout keeps it, or does not."""
    config = tiny_config({"teacher.embedding": 1, "teacher.dropout": dropout})
    return build_networks(config, IDENTITIES)


@cache
def labels(label_dropout: bool, train_bn: bool, dropout: float = 0.5) -> np.ndarray:
    """(keys, batch, 2, identities): soft labels by several keys."""
    teacher = TeacherPass(networks(dropout), train_bn, 0, label_dropout, None)
    variables = tiny_teacher(networks())
    run = jax.jit(
        jax.vmap(lambda key: teacher.labels(variables, jnp.asarray(IMAGES), SOURCES, key)),
        compiler_options=FAST_COMPILATION,
    )
    return np.asarray(run(jax.random.split(jax.random.key(0), KEYS)), np.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def outputs(train_bn: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of the images and of their mirrors: shares with the embedding dropped, and with it kept."""
    variables = tiny_teacher(networks())
    classifier = variables["params"]["head"]["classifier"]
    kernel, bias = (np.asarray(classifier[name], np.float64) for name in ("kernel", "bias"))
    run = jax.jit(
        partial(
            networks().teacher.apply,
            groups=2,
            use_running_average=not train_bn,
            mutable=["batch_stats"],
        ),
        compiler_options=FAST_COMPILATION,
    )
    found = []
    for images in (IMAGES, IMAGES[:, :, :, ::-1]):
        output, _ = run(variables, images.reshape(2 * BATCH, 32, 16, 3))
        embedding = np.asarray(output.embedding, np.float64).reshape(BATCH, 2, 1)
        dropped = np.broadcast_to(softmax(bias), (BATCH, 2, IDENTITIES))
        # What is kept is divided by the kept share, one half.
        found.append((dropped, softmax(2 * embedding @ kernel + bias)))
        np.testing.assert_allclose(
            softmax(embedding @ kernel + bias).reshape(2 * BATCH, -1),
            softmax(np.asarray(output.logits, np.float64)),
            atol=1e-5,
        )
    return found


@pytest.mark.parametrize("train_bn", [True, False])
def test_with_dropout_image_and_mirror_lose_half_of_the_embedding_each_for_itself(train_bn):
    image, mirror = outputs(train_bn)
    candidates = np.stack([(p + q) / 2 for p in image for q in mirror])
    far = np.abs(labels(True, train_bn)[:, None] - candidates).max(-1)
    assert far.min(1).max() < 1e-5
    # Each of the four cases comes up in a quarter of the labels, 384 of which are independent.
    shares = [(far.argmin(1) == case).mean() for case in range(4)]
    np.testing.assert_allclose(shares, 0.25, atol=0.09)


@pytest.mark.parametrize("train_bn", [True, False])
def test_without_dropout_the_labels_do_not_depend_on_the_key(train_bn):
    found = labels(False, train_bn)
    assert np.ptp(found, axis=0).max() == 0
    np.testing.assert_array_equal(labels(True, train_bn, dropout=0.0), found)


def test_the_labels_are_distributions_either_way():
    for label_dropout in (True, False):
        np.testing.assert_allclose(labels(label_dropout, True).sum(-1), 1, rtol=1e-5)
