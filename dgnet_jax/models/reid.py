"""The two re-ID networks: the appearance encoder E_a and the teacher.

docs/method.md, sections 2.3 and 2.6. Items are batch * groups, the group index running fastest
(`resnet.GroupedBatchNorm`).
"""

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dgnet_jax.data.randomness import Share
from dgnet_jax.models.resnet import GroupedBatchNorm, ResNet

Pooling = Literal["max", "average"]

_head_init = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class HeadOutput(NamedTuple):
    """The embedding, used in retrieval, and the identity logits."""

    embedding: Float[Array, "items dim"]
    logits: Float[Array, "items identities"]


class AppearanceFeatures(NamedTuple):
    """What E_a's backbone gives.

    code: the appearance code, parts * channels values; index = channel * parts + part.
    pooled: the input of the heads.
    """

    code: Float[Array, "items code"]
    pooled: Float[Array, "items channels"]


def pool_parts(
    x: Float[Array, "batch h w c"], parts: int, pooling: Pooling
) -> Float[Array, "batch {parts} c"]:
    """Adaptive pooling to `parts` horizontal stripes."""
    height = x.shape[1]
    reduce = _largest if pooling == "max" else partial(jnp.mean, axis=1)
    stripes = []
    for part in range(parts):
        stripe = x[:, part * height // parts : -(-(part + 1) * height // parts)]
        stripes.append(reduce(stripe.reshape(x.shape[0], -1, x.shape[-1])))
    return jnp.stack(stripes, axis=1)


def _largest(x: Float[Array, "batch n c"]) -> Float[Array, "batch c"]:
    """The maximum over axis 1, whose gradient goes to the first of its places.

    jnp.max finds the places again by comparing with the result. Where XLA computes x twice, rounded
    differently, none is equal, and the gradient is 0 / 0.
    """
    place = jnp.argmax(lax.stop_gradient(x), axis=1, keepdims=True)
    chosen = jnp.arange(x.shape[1])[:, None] == place
    return jnp.where(chosen, x, 0).sum(1)


class ReidHead(nn.Module):
    """Linear, batch norm (the embedding), dropout, linear (the identity logits). No ReLU.

    Computed in float32 or float64, whatever the backbone's type.
    """

    num_identities: int
    embedding: int = 512
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        pooled: Float[Array, "items channels"],
        groups: int = 1,
        use_running_average: bool = True,
        drop: Share | None = None,
    ) -> HeadOutput:
        """Embedding and logits of pooled features.

        `drop` turns dropout on (it needs the rng "dropout"): the share of the batch in `pooled`.
        """
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        x = nn.Dense(self.embedding, kernel_init=_head_init, dtype=wide, name="reduce")(pooled)
        embedding = GroupedBatchNorm(use_running_average, groups, name="bn")(x)
        x = embedding
        if drop is not None and self.dropout > 0:
            key, kept = self.make_rng("dropout"), 1 - self.dropout
            mask = drop.draw(lambda shape: jax.random.bernoulli(key, kept, shape), x.shape)
            x = jnp.where(mask, x / kept, 0)
        logits = nn.Dense(
            self.num_identities,
            kernel_init=nn.initializers.normal(0.001),
            dtype=wide,
            name="classifier",
        )(x)
        return HeadOutput(embedding, logits)


class AppearanceEncoder(nn.Module):
    """E_a: a ResNet, its part-pooled appearance code and the two identity heads.

    Attributes:
        backbone: the ResNet (last stride 1).
        parts: horizontal stripes of the appearance code (4).
        pooling: of the code and of the heads' input.
    """

    backbone: ResNet
    num_identities: int
    parts: int = 4
    pooling: Pooling = "max"
    embedding: int = 512
    dropout_prime: float = 0.5
    dropout_fine: float = 0.75

    def setup(self) -> None:
        self.prime = ReidHead(self.num_identities, self.embedding, self.dropout_prime)
        self.fine = ReidHead(self.num_identities, self.embedding, self.dropout_fine)

    @property
    def code_size(self) -> int:
        """Length of the appearance code: parts * channels."""
        return self.parts * self.backbone.features

    def features(
        self,
        images: Float[Array, "items height width 3"],
        groups: int = 1,
        use_running_average: bool = True,
    ) -> AppearanceFeatures:
        """The appearance code and the heads' input."""
        x = self.backbone(images, groups, use_running_average)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        stripes = pool_parts(x, self.parts, self.pooling)
        code = stripes.transpose(0, 2, 1).reshape(x.shape[0], -1)
        return AppearanceFeatures(code, pool_parts(x, 1, self.pooling)[:, 0])

    def heads(
        self,
        pooled: Float[Array, "items channels"],
        groups: int = 1,
        use_running_average: bool = True,
        drop: Share | None = None,
    ) -> tuple[HeadOutput, HeadOutput]:
        """The prime and the fine head's output.

        `drop` as in `ReidHead`.
        """
        return (
            self.prime(pooled, groups, use_running_average, drop),
            self.fine(pooled, groups, use_running_average, drop),
        )

    def __call__(
        self,
        images: Float[Array, "items height width 3"],
        groups: int = 1,
        use_running_average: bool = True,
        drop: Share | None = None,
    ) -> tuple[AppearanceFeatures, HeadOutput, HeadOutput]:
        """The whole network: features, prime head, fine head. `drop` as in `ReidHead`."""
        features = self.features(images, groups, use_running_average)
        prime, fine = self.heads(features.pooled, groups, use_running_average, drop)
        return features, prime, fine


class Teacher(nn.Module):
    """The re-ID baseline whose softmax labels the generated images: one ResNet, one head."""

    backbone: ResNet
    num_identities: int
    pooling: Pooling = "average"
    embedding: int = 512
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "items height width 3"],
        groups: int = 1,
        use_running_average: bool = True,
        drop: Share | None = None,
    ) -> HeadOutput:
        """Embedding and logits. `drop` as in `ReidHead`."""
        x = self.backbone(images, groups, use_running_average)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        pooled = pool_parts(x, 1, self.pooling)[:, 0]
        head = ReidHead(self.num_identities, self.embedding, self.dropout, name="head")
        return head(pooled, groups, use_running_average, drop)

    def feature_maps(
        self, images: Float[Array, "items height width 3"]
    ) -> list[Float[Array, "items _h _w _channels"]]:
        """What each stage of the backbone gives, by running statistics, in float32 or float64."""
        stages = self.backbone.stages(images)
        return [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in stages]
