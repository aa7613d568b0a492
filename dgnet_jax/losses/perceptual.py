"""A loss of features: how differently the frozen re-ID teacher sees two images."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dgnet_jax.errors import InputError
from dgnet_jax.losses.arrays import RgbImages, Scalar, direction, pair, sample_mean
from dgnet_jax.losses.parameters import check

FeatureMaps = Callable[
    [Float[Array, "batch height width 3"]], Sequence[Float[Array, "batch _h _w _channels"]]
]


def teacher_features(
    target: RgbImages,
    output: RgbImages,
    first: int = 1,
    last: int = 0,
    *,
    features: FeatureMaps,
) -> Scalar:
    """Distance of the teacher's feature maps, each place's channels as a unit vector.

    The mean over places of |u - v|^2, between 0 and 2, and over the stages from first to last: the
    learned perceptual distance of Zhang et al. (CVPR 2018), equation 1, with all weights 1, on the
    frozen teacher with running statistics and without dropout.

    The teacher was trained to tell the same identities apart that re-ID metrics are about: of
    generators, one that learns from it is judged by a relative of its teacher.

    Args:
        target: ImageNet-normalised images.
        output: the reconstruction.
        first: the first stage that counts, from 1.
        last: the last one; 0 is the network's last.
        features: images to the maps after each stage.

    Raises:
        InputError: the network has no such stages.
    """
    check("teacher_features", first=first, last=last)
    target, output = pair(target, output)
    known, found = features(target), features(output)
    end = last or len(found)
    if not first <= end <= len(found):
        raise InputError(
            f"teacher_features({first},{last}): the teacher has the stages 1 to {len(found)}; give "
            "the first and the last that count, or 0 for its last"
        )
    distances = []
    for a, b in zip(known[first - 1 : end], found[first - 1 : end], strict=True):
        (u, _), (v, _) = direction(a, (3,)), direction(b, (3,))
        distances.append(sample_mean(jnp.sum(jnp.square(u - v), axis=3)))
    return jnp.mean(sum(distances[1:], start=distances[0])) / len(distances)
