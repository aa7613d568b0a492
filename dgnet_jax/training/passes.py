"""The passes through the networks that a training step is made of, on arrays of pairs and groups.

An array of *groups* has them on its second axis: what belongs to one pair of images lies side by
side, so that a batch that is sharded over devices stays so. Batch norms normalise each group by
itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int, PRNGKeyArray, Shaped

from dgnet_jax.data.randomness import share_of
from dgnet_jax.models import Networks, Params, Variables, apply
from dgnet_jax.models.reid import AppearanceFeatures
from dgnet_jax.training import objective

Array = jax.Array


def flatten_groups(x: Shaped[Array, "batch groups *rest"]) -> Shaped[Array, " batch*groups *rest"]:
    """Groups to items, which keeps a sharded batch sharded."""
    return x.reshape(-1, *x.shape[2:])


def split_groups(
    x: Shaped[Array, " items *rest"], groups: int
) -> Shaped[Array, "items//{groups} {groups} *rest"]:
    """The inverse of `flatten_groups`."""
    return x.reshape(-1, groups, *x.shape[1:])


def exchange(x: Shaped[Array, "batch 2 *rest"]) -> Shaped[Array, "batch 2 *rest"]:
    """Exchanges the two directions of a pair array."""
    return x[:, ::-1]


class Generator(NamedTuple):
    """E_s and the decoder; parameters are {"structure_encoder", "decoder"}."""

    networks: Networks

    def structure_codes(
        self, params: Params, images: Float[Array, "batch groups height width 3"]
    ) -> Float[Array, "batch groups h w channels"]:
        """E_s."""
        codes = apply(
            self.networks.structure_encoder,
            {"params": params["structure_encoder"]},
            flatten_groups(images),
        )
        return split_groups(codes, images.shape[1])

    def decode(
        self,
        params: Params,
        structure: Float[Array, "batch groups h w channels"],
        appearance: Float[Array, "batch groups code"],
    ) -> Float[Array, "batch groups height width 3"]:
        """The decoder: structure and appearance codes, group by group, to images."""
        images = apply(
            self.networks.decoder,
            {"params": params["decoder"]},
            flatten_groups(structure),
            flatten_groups(appearance),
        )
        return split_groups(images, structure.shape[1])

    def forward(
        self,
        params: Params,
        images: Float[Array, "batch 2 height width 3"],
        codes: Float[Array, "batch 4 code"],
    ) -> tuple[Float[Array, "batch 6 height width 3"], Float[Array, "batch 2 h w channels"]]:
        """All six images of a step, and the structure codes of x_a and x_b.

        Args:
            images: x_a, x_b.
            codes: appearance codes of x_a, x_b, xp_a, xp_b.

        Returns:
            Images: x_ba, x_ab (generated), then x_a, x_b painted with their own codes, then with
            those of xp_a, xp_b; structure codes.
        """
        structure = self.structure_codes(params, images)
        structures = jnp.concatenate([exchange(structure), structure, structure], axis=1)
        appearances = jnp.concatenate([codes[:, :2], codes], axis=1)
        return self.decode(params, structures, appearances), structure

    def cycle(
        self,
        params: Params,
        generated: Float[Array, "batch 2 height width 3"],
        codes: Float[Array, "batch 2 code"],
        train_structure_encoder: Bool[Array, ""],
    ) -> tuple[Float[Array, "batch 2 h w channels"], Float[Array, "batch 2 height width 3"]]:
        """The structure codes of the generated images, and x_a, x_b painted again from them.

        The coin decides what the structure codes train: E_s with the images fixed, or the images
        with E_s fixed.

        Args:
            generated: x_ba, x_ab.
            codes: their appearance codes.
            train_structure_encoder: the coin.

        Returns:
            Structure codes and images, both in the order a, b.
        """
        images = jnp.where(train_structure_encoder, lax.stop_gradient(generated), generated)
        structure_encoder = jax.tree.map(
            lambda p: jnp.where(train_structure_encoder, p, lax.stop_gradient(p)),
            params["structure_encoder"],
        )
        coin_params = {**params, "structure_encoder": structure_encoder}
        # x_ab carries the structure of a: exchanged, the codes are in the order of their targets.
        structure = exchange(self.structure_codes(coin_params, images))
        return structure, self.decode(params, structure, codes)


class Discriminator(NamedTuple):
    """D on arrays of groups, and its loss.

    gan: "lsgan" or "nsgan"; penalty: weight of the mean squared gradient at real images.
    """

    networks: Networks
    gan: objective.GanLoss
    penalty: float

    def scores(
        self, params: Params, images: Float[Array, "batch groups height width 3"]
    ) -> list[Float[Array, "batch groups _h _w 1"]]:
        """The maps of scores at each scale."""
        scores = apply(self.networks.discriminator, {"params": params}, flatten_groups(images))
        return [split_groups(score, images.shape[1]) for score in scores]

    def loss(
        self,
        params: Params,
        fake: Float[Array, "batch 2 height width 3"],
        real: Float[Array, "batch 2 height width 3"],
    ) -> tuple[Float[Array, ""], objective.Term]:
        """D's loss of pairs of images: in all, and by direction.

        Scale by scale: only one scale's activations are needed at a time.
        """
        total = jnp.zeros(2)
        for scale in range(self.networks.discriminator.num_scales):

            def score(
                images: Float[Array, "items height width 3"], scale: int = scale
            ) -> Float[Array, "items h w 1"]:
                network = self.networks.discriminator
                return apply(network, {"params": params}, images, scale, method="at_scale")

            real_scores, squared_norm = score_and_slope(score, flatten_groups(real), self.gan)
            total = total + objective.discriminator_terms(
                split_groups(score(flatten_groups(fake)), 2),
                split_groups(real_scores, 2),
                split_groups(squared_norm, 2),
                self.gan,
                self.penalty,
            )
        return total.sum(), total


def score_and_slope(
    score: Callable[[Float[Array, "items height width 3"]], Float[Array, "items h w 1"]],
    images: Float[Array, "items height width 3"],
    gan: objective.GanLoss,
) -> tuple[Float[Array, "items h w 1"], Float[Array, " items"]]:
    """D's scores at real images, and the squared norm of their gradient for each image.

    The norm's own gradient with respect to D's parameters is that of the derivative of the scores
    along the (constant) gradient: forward over reverse, which costs one more forward pass instead
    of a second differentiation through every transposed convolution.

    Args:
        score: images to scores.
        images: real ones.
        gan: "nsgan" takes the gradient of the scores' sigmoids.

    Returns:
        Scores and squared norms.
    """

    def judge(images: Array) -> tuple[Array, Array]:
        scores = score(images)
        judged = jax.nn.sigmoid(scores) if gan == "nsgan" else scores
        return judged.sum((1, 2, 3)), scores

    judged, pull, scores = jax.vjp(judge, images, has_aux=True)
    (gradient,) = lax.stop_gradient(pull(jnp.ones_like(judged)))
    squared_norm = jnp.square(gradient).sum((1, 2, 3))
    _, along = jax.jvp(lambda x: judge(x)[0], (images,), (gradient,))
    # The value is the norm's, to the last bit; the gradient that of twice the derivative.
    return scores, squared_norm + 2 * (along - lax.stop_gradient(along))


class RealPass(NamedTuple):
    """What E_a says of the four real images of a pair; prime, fine: logits."""

    codes: Float[Array, "batch 4 code"]
    prime: Float[Array, "batch 4 identities"]
    fine: Float[Array, "batch 4 identities"]


class AppearanceEncoder(NamedTuple):
    """E_a on arrays of groups; parameters and running statistics apart.

    cut_gradient, train_bn: `config.appearance`'s; axis: of `jax.pmap`, or None.
    """

    networks: Networks
    cut_gradient: bool
    train_bn: bool
    axis: str | None

    def real(
        self,
        params: Params,
        stats: Params,
        images: Float[Array, "batch 4 height width 3"],
        erased: Float[Array, "batch 4 height width 3"] | None,
        dropout: PRNGKeyArray,
    ) -> tuple[RealPass, Params]:
        """The real images, and the new running statistics.

        Codes come from `images`, logits from `erased` where it is given: a second pass.
        """

        def run(
            images: Float[Array, "batch 4 height width 3"], stats: Params
        ) -> tuple[Any, Params]:
            output, updated = apply(
                self.networks.appearance_encoder,
                {"params": params, "batch_stats": stats},
                flatten_groups(images),
                groups=4,
                use_running_average=False,
                drop=share_of(self.axis),
                rngs={"dropout": dropout},
                mutable=["batch_stats"],
            )
            return output, updated["batch_stats"]

        (features, prime, fine), stats = run(images, stats)
        codes = self.cut(features.code)
        if erased is not None:
            (_, prime, fine), stats = run(erased, stats)
        outputs = (codes, prime.logits, fine.logits)
        return RealPass(*(split_groups(x, 4) for x in outputs)), lax.stop_gradient(stats)

    def cut(self, codes: Float[Array, "*batch code"]) -> Float[Array, "*batch code"]:
        """Codes through which the image losses do not train E_a, as in the released program."""
        return lax.stop_gradient(codes) if self.cut_gradient else codes

    def generated(
        self,
        params: Params,
        stats: Params,
        images: Float[Array, "batch 2 height width 3"],
        running: bool,
    ) -> tuple[AppearanceFeatures, Params]:
        """Codes and pooled features of x_ba and x_ab, batch * 2 items.

        running: whether running statistics normalise them; returned are those moved by them.
        """
        features, updated = apply(
            self.networks.appearance_encoder,
            {"params": params, "batch_stats": stats},
            flatten_groups(images),
            groups=2,
            use_running_average=running,
            mutable=["batch_stats"],
            method="features",
        )
        return features, lax.stop_gradient(updated["batch_stats"])

    def prime_logits(
        self, params: Params, stats: Params, pooled: Float[Array, "items channels"]
    ) -> Float[Array, "items//2 2 identities"]:
        """The prime head, without dropout, of pooled features."""
        prime, _ = apply(
            self.networks.appearance_encoder,
            {"params": params, "batch_stats": stats},
            pooled,
            groups=2,
            use_running_average=not self.train_bn,
            method="heads",
        )
        return split_groups(prime.logits, 2)

    def heads(
        self,
        params: Params,
        stats: Params,
        pooled: Float[Array, "items channels"],
        dropout: PRNGKeyArray,
    ) -> tuple[
        Float[Array, "items//2 2 identities"], Float[Array, "items//2 2 identities"], Params
    ]:
        """Both heads in training: the logits of each; new running statistics."""
        (prime, fine), updated = apply(
            self.networks.appearance_encoder,
            {"params": params, "batch_stats": stats},
            pooled,
            groups=2,
            use_running_average=False,
            drop=share_of(self.axis),
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
            method="heads",
        )
        logits = (split_groups(head.logits, 2) for head in (prime, fine))
        return *logits, updated["batch_stats"]


class TeacherPass(NamedTuple):
    """The frozen teacher on generated images.

    train_bn: `config.appearance.train_bn`; label_style, label_dropout: `config.teacher`'s; axis: of
    `jax.pmap`, or None.
    """

    networks: Networks
    train_bn: bool
    label_style: int
    label_dropout: bool
    axis: str | None

    def feature_maps(
        self, teacher: Variables, images: Float[Array, "items height width 3"]
    ) -> list[Float[Array, "items _h _w _channels"]]:
        """The maps after each of its stages, by running statistics; for `teacher_features`."""
        return apply(self.networks.teacher, teacher, images, method="feature_maps")

    def labels(
        self,
        teacher: Variables,
        generated: Float[Array, "batch 2 height width 3"],
        identities: Int[Array, "batch 2"],
        dropout: PRNGKeyArray,
    ) -> Float[Array, "batch 2 identities"]:
        """Distributions for the prime head to learn, without gradient.

        Args:
            generated: each is seen as it is and mirrored.
            identities: of the appearances.
            dropout: of the images and of their mirrors, each for itself.
        """
        views = jnp.concatenate([generated, generated[:, :, :, ::-1]], axis=1)
        output, _ = apply(
            self.networks.teacher,
            teacher,
            flatten_groups(views),
            groups=4,
            use_running_average=not self.train_bn,
            drop=share_of(self.axis) if self.label_dropout else None,
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
        )
        logits, mirrored = jnp.split(split_groups(output.logits, 4), 2, axis=1)
        return objective.teacher_labels(
            logits, mirrored, self.label_style, identities, exchange(identities)
        )
