"""One training step of DG-Net: D's update, then the generator's and E_a's (dgnet.md section 2).

The generator runs forward once. Its images feed D's update as constants; the gradient of all
remaining terms with respect to the images is then pulled back through that same forward pass.
Terms whose ramp has not begun are no part of the program: the host, which knows the step, chooses
between the programs before and after (`active_terms`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax import lax

from dgnet_jax.data.randomness import share_of
from dgnet_jax.losses import reconstruction_loss
from dgnet_jax.models import Networks, apply
from dgnet_jax.models.reid import AppearanceFeatures
from dgnet_jax.training import objective
from dgnet_jax.training.schedules import first_active_step, ramp, ramped_weight
from dgnet_jax.training.state import Optimizers, Params, TrainState

Array = jax.Array
Losses = dict[str, Array]


@flax.struct.dataclass
class Batch:
    """What one step sees, on the device.

    Attributes:
        images: (batch, 4, height, width, 3) normalised: x_a, x_b and, of the same identities,
            xp_a, xp_b.
        erased: the same images after random erasing; None if erasing is off.
        labels: (batch, 2) int32 identities of a and b.
    """

    images: Array
    erased: Array | None
    labels: Array


class StepRandomness(NamedTuple):
    """dropout: a PRNG key; train_structure_encoder: the coin of the structure-code term, bool."""

    dropout: Array
    train_structure_encoder: Array


class ActiveTerms(NamedTuple):
    """Which ramped terms a program of the step computes; the others are 0 in it.

    cycle: structure code, appearance code and cycle. teacher: primary and fine-grained features.
    """

    cycle: bool = True
    teacher: bool = True


EVERY_TERM = ActiveTerms()


def active_terms(config: ml_collections.ConfigDict, step: int) -> ActiveTerms:
    """The terms with a positive weight at a 0-based step."""

    def any_of(*names: str) -> bool:
        starts = [
            first_active_step(config.weights[name], config.ramp.start, config.ramp.scale)
            for name in names
        ]
        return any(start is not None and step >= start for start in starts)

    return ActiveTerms(any_of("structure_code", "appearance_code", "cycle"), any_of("teacher"))


def flatten_groups(x: Array) -> Array:
    """(batch, groups, ...) to (batch * groups, ...), which keeps a sharded batch sharded."""
    return x.reshape(-1, *x.shape[2:])


def split_groups(x: Array, groups: int) -> Array:
    """The inverse of `flatten_groups`."""
    return x.reshape(-1, groups, *x.shape[1:])


def swap(x: Array) -> Array:
    """Exchanges the two directions of a pair array."""
    return x[:, ::-1]


def term_weights(config: ml_collections.ConfigDict, step: Array) -> dict[str, Array]:
    """Weights of the ramped terms at `step` and, as "fine", w of the identity term."""
    schedule = (config.ramp.start, config.ramp.scale)
    names = ("structure_code", "appearance_code", "cycle", "teacher")
    weights = {name: ramped_weight(step, config.weights[name], *schedule) for name in names}
    previous = ramp(step - 1, config.weights.teacher, *schedule)
    weights["fine"] = config.weights.fine * previous
    return weights


def add_trees(first: Any, second: Any) -> Any:
    """The sum of two trees of arrays."""
    return jax.tree.map(jnp.add, first, second)


def score_and_slope(
    score: Callable[[Array], Array], images: Array, gan: objective.GanLoss
) -> tuple[Array, Array]:
    """D's scores at real images, and the squared norm of their gradient for each image.

    The norm's own gradient with respect to D's parameters is that of the derivative of the scores
    along the (constant) gradient: forward over reverse, which costs one more forward pass instead
    of a second differentiation through every transposed convolution.

    Args:
        score: images (batch, height, width, 3) to scores (batch, h, w, 1).
        gan: "nsgan" takes the gradient of the scores' sigmoids.

    Returns:
        scores, and squared norms (batch,).
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


class Generator(NamedTuple):
    """The pure functions of E_s and the decoder on (batch, groups, ...) arrays."""

    networks: Networks

    def structure_codes(self, params: Params, images: Array) -> Array:
        """E_s: (batch, groups, height, width, 3) to (batch, groups, h, w, channels)."""
        codes = apply(
            self.networks.structure_encoder,
            {"params": params["structure_encoder"]},
            flatten_groups(images),
        )
        return split_groups(codes, images.shape[1])

    def decode(self, params: Params, structure: Array, appearance: Array) -> Array:
        """The decoder: structure and appearance codes, group by group, to images."""
        images = apply(
            self.networks.decoder,
            {"params": params["decoder"]},
            flatten_groups(structure),
            flatten_groups(appearance),
        )
        return split_groups(images, structure.shape[1])

    def forward(self, params: Params, images: Array, codes: Array) -> tuple[Array, Array]:
        """All six images of a step, and the structure codes of x_a and x_b.

        Args:
            images: (batch, 2, height, width, 3): x_a, x_b.
            codes: (batch, 4, n): appearance codes of x_a, x_b, xp_a, xp_b.

        Returns:
            (batch, 6, height, width, 3): x_ba, x_ab (generated), then x_a, x_b painted with
            their own codes, then with those of xp_a, xp_b.
        """
        structure = self.structure_codes(params, images)
        structures = jnp.concatenate([swap(structure), structure, structure], axis=1)
        appearances = jnp.concatenate([codes[:, :2], codes], axis=1)
        return self.decode(params, structures, appearances), structure


def make_update(
    config: ml_collections.ConfigDict,
    networks: Networks,
    optimizers: Optimizers,
    active: ActiveTerms = EVERY_TERM,
    axis: str | None = None,
) -> Callable[[TrainState, Params, Batch, StepRandomness], tuple[TrainState, Losses]]:
    """Builds the pure step `update(state, teacher_variables, batch, randomness)`.

    It computes the `active` ramped terms, those of `active_terms` at the step or more of them. With
    an `axis`, mapped by `jax.pmap`, it sees one device's share of the batch: batch norms normalise
    that share alone, gradients, running statistics and losses are averaged over the devices.
    It returns the new state and the losses of the step: terms of shape (2,) hold their two
    directions, unweighted; "generator" and "discriminator" are the weighted totals.
    """
    objective.check_choices(config.gan_loss, config.teacher.label_style)
    measure = reconstruction_loss(config.reconstruction_loss)
    generator = Generator(networks)
    encoder = networks.appearance_encoder
    discriminator = networks.discriminator
    weights = config.weights
    cut_gradient, train_bn = config.appearance.cut_gradient, config.appearance.train_bn
    gan = config.gan_loss
    scales = range(config.discriminator.num_scales)

    average = partial(lax.pmean, axis_name=axis) if axis else lambda tree: tree

    def difference(target: Array, output: Array) -> Array:
        return objective.reconstruction(measure, target, output)

    def encode_real(
        params: Params, stats: Params, batch: Batch, dropout: Array
    ) -> tuple[tuple[Array, Array, Array], Params]:
        """Codes and both heads' logits of the four real batches; the new running statistics."""

        def run(images: Array, stats: Params) -> tuple[Any, Params]:
            output, updated = apply(
                encoder,
                {"params": params, "batch_stats": stats},
                flatten_groups(images),
                groups=4,
                use_running_average=False,
                drop=share_of(axis),
                rngs={"dropout": dropout},
                mutable=["batch_stats"],
            )
            return output, updated["batch_stats"]

        (features, prime, fine), stats = run(batch.images, stats)
        codes = lax.stop_gradient(features.code) if cut_gradient else features.code
        if batch.erased is not None:
            (_, prime, fine), stats = run(batch.erased, stats)
        outputs = (codes, prime.logits, fine.logits)
        codes, prime_logits, fine_logits = (split_groups(x, 4) for x in outputs)
        return (codes, prime_logits, fine_logits), lax.stop_gradient(stats)

    def discriminator_loss(params: Params, fake: Array, real: Array) -> tuple[Array, Array]:
        total = jnp.zeros(2)
        for scale in scales:

            def score(images: Array, scale: int = scale) -> Array:
                return apply(discriminator, {"params": params}, images, scale, method="at_scale")

            real_scores, squared_norm = score_and_slope(score, flatten_groups(real), gan)
            total = total + objective.discriminator_terms(
                split_groups(score(flatten_groups(fake)), 2),
                split_groups(real_scores, 2),
                split_groups(squared_norm, 2),
                gan,
                config.discriminator.gradient_penalty,
            )
        return total.sum(), total

    def image_loss(
        images: Array, real: Array, discriminator_params: Params
    ) -> tuple[Array, Losses]:
        """The adversarial and the two reconstruction terms, of the six images of a step."""
        generated, own, same_identity = jnp.split(images, 3, axis=1)
        scores = apply(discriminator, {"params": discriminator_params}, flatten_groups(generated))
        terms = {
            "adversarial": objective.adversarial([split_groups(s, 2) for s in scores], gan),
            "self_reconstruction": difference(real, own),
            "same_identity_reconstruction": difference(real, same_identity),
        }
        total = (
            weights.gan * terms["adversarial"]
            + weights.self_reconstruction * terms["self_reconstruction"]
            + weights.same_identity_reconstruction * terms["same_identity_reconstruction"]
        )
        return total.sum(), terms

    def identity_loss(prime: Array, fine: Array, labels: Array, w: Array) -> tuple[Array, Losses]:
        """Cross-entropies of the real images: logits (batch, 4, identities)."""
        terms = {
            "identity": objective.cross_entropy(prime[:, :2], labels)
            + w * objective.cross_entropy(fine[:, :2], labels),
            "same_identity": objective.cross_entropy(prime[:, 2:], labels),
        }
        total = (
            weights.identity * terms["identity"] + weights.same_identity * terms["same_identity"]
        )
        return total.sum(), terms

    def generated_features(
        params: Params, stats: Params, generated: Array, running: bool
    ) -> tuple[AppearanceFeatures, Params]:
        """E_a's codes and pooled features of x_ba and x_ab; running statistics moved by them."""
        features, updated = apply(
            encoder,
            {"params": params, "batch_stats": stats},
            flatten_groups(generated),
            groups=2,
            use_running_average=running,
            mutable=["batch_stats"],
            method="features",
        )
        return features, lax.stop_gradient(updated["batch_stats"])

    def generated_identity_loss(
        pooled: Array, params: Params, stats: Params, labels: Array
    ) -> tuple[Array, Losses]:
        """The frozen prime head's cross-entropy with the appearance's identity."""
        prime, _ = apply(
            encoder,
            {"params": params, "batch_stats": stats},
            pooled,
            groups=2,
            use_running_average=not train_bn,
            method="heads",
        )
        term = objective.cross_entropy(split_groups(prime.logits, 2), labels)
        return weights.generated_identity * term.sum(), {"generated_identity": term}

    def cycle_loss(
        inputs: tuple[Array, Array, Params],
        real: Array,
        structure: Array,
        codes: Array,
        train_structure_encoder: Array,
        ramped: dict[str, Array],
    ) -> tuple[Array, Losses]:
        """Structure-code, appearance-code and cycle terms, from the generated images' codes."""
        generated, generated_codes, params = inputs
        # The coin decides what learns: E_s with the image fixed, or the image with E_s fixed.
        images = jnp.where(train_structure_encoder, lax.stop_gradient(generated), generated)
        coin_params = dict(params)
        coin_params["structure_encoder"] = jax.tree.map(
            lambda p: jnp.where(train_structure_encoder, p, lax.stop_gradient(p)),
            params["structure_encoder"],
        )
        # x_ab carries the structure of a: swapped, the codes are in the order of their targets.
        new_structure = swap(generator.structure_codes(coin_params, images))
        if cut_gradient:
            generated_codes = lax.stop_gradient(generated_codes)
        cycled = generator.decode(params, new_structure, generated_codes)
        terms = {
            "structure_code": difference(lax.stop_gradient(structure), new_structure),
            "appearance_code": difference(lax.stop_gradient(codes[:, :2]), generated_codes),
            "cycle": difference(real, cycled),
        }
        total = sum((ramped[name] * term for name, term in terms.items()), jnp.zeros(2))
        return total.sum(), terms

    def teacher_targets(teacher: Params, generated: Array, labels: Array) -> Array:
        views = jnp.concatenate([generated, generated[:, :, :, ::-1]], axis=1)
        output, _ = apply(
            networks.teacher,
            teacher,
            flatten_groups(views),
            groups=4,
            use_running_average=not train_bn,
            mutable=["batch_stats"],
        )
        logits, mirrored = jnp.split(split_groups(output.logits, 4), 2, axis=1)
        style = config.teacher.label_style
        return objective.teacher_labels(logits, mirrored, style, labels, swap(labels))

    def student_loss(
        pooled: Array,
        params: Params,
        stats: Params,
        targets: Array,
        labels: Array,
        dropout: Array,
        weight: Array,
    ) -> tuple[Array, tuple[Losses, Params]]:
        """The primary- and fine-grained-feature terms on generated images."""
        (prime, fine), updated = apply(
            encoder,
            {"params": params, "batch_stats": stats},
            pooled,
            groups=2,
            use_running_average=False,
            drop=share_of(axis),
            rngs={"dropout": dropout},
            mutable=["batch_stats"],
            method="heads",
        )
        term = objective.kl_divergence(targets, split_groups(prime.logits, 2))
        structure_identity = objective.cross_entropy(split_groups(fine.logits, 2), swap(labels))
        term = term + weights.fine * structure_identity
        return weight * term.sum(), ({"teacher": term}, updated["batch_stats"])

    def update(
        state: TrainState, teacher: Params, batch: Batch, randomness: StepRandomness
    ) -> tuple[TrainState, Losses]:
        ramped = term_weights(config, state.step)
        real_dropout, student_dropout = jax.random.split(randomness.dropout)
        real = batch.images[:, :2]
        params = state.appearance

        # Forward: codes and logits of the real images, then all six images of the generator.
        (codes, prime, fine), pull_real, stats = jax.vjp(
            lambda p: encode_real(p, state.appearance_stats, batch, real_dropout),
            params,
            has_aux=True,
        )
        if not train_bn:  # every device normalises generated images with the same ones
            stats = average(stats)
        images, pull_generator, structure = jax.vjp(
            lambda p, c: generator.forward(p, real, c), state.generator, codes, has_aux=True
        )
        generated = images[:, :2]

        # D learns first; everything below sees the updated D.
        (d_total, d_terms), d_gradient = jax.value_and_grad(discriminator_loss, has_aux=True)(
            state.discriminator, generated, real
        )
        d_updates, discriminator_optimizer = optimizers.discriminator.update(
            average(d_gradient), state.discriminator_optimizer, state.discriminator
        )
        discriminator_params = optax.apply_updates(state.discriminator, d_updates)

        # Terms that are always on.
        (image_total, losses), image_gradient = jax.value_and_grad(image_loss, has_aux=True)(
            images, real, discriminator_params
        )
        features, pull_features, moved_stats = jax.vjp(
            lambda p, x: generated_features(p, stats, x, running=not train_bn),
            params,
            generated,
            has_aux=True,
        )
        (generated_total, terms), pooled_gradient = jax.value_and_grad(
            generated_identity_loss, has_aux=True
        )(features.pooled, params, stats, batch.labels)
        losses |= terms
        (identity_total, terms), logits_gradient = jax.value_and_grad(
            identity_loss, argnums=(0, 1), has_aux=True
        )(prime, fine, batch.labels, ramped["fine"])
        losses |= terms

        # Structure code, appearance code, cycle.
        zero, no_terms = jnp.zeros(()), jnp.zeros(2)
        if active.cycle:
            (cycle_total, terms), (generated_gradient, code_gradient, g_own) = jax.value_and_grad(
                cycle_loss, has_aux=True
            )(
                (generated, split_groups(features.code, 2), state.generator),
                real,
                structure,
                codes,
                randomness.train_structure_encoder,
                ramped,
            )
            code_gradient = flatten_groups(code_gradient)
        else:
            cycle_total, generated_gradient, g_own = zero, jnp.zeros_like(generated), None
            code_gradient = jnp.zeros_like(features.code)
            terms = dict.fromkeys(("structure_code", "appearance_code", "cycle"), no_terms)
        losses |= terms

        # The teacher's lessons on generated images, which train E_a and not the generator.
        new_stats, a_own, teacher_total = stats, None, zero
        losses["teacher"] = no_terms
        if active.teacher:
            targets = teacher_targets(teacher, generated, batch.labels)
            if train_bn:
                pooled, pull, moved = features.pooled, pull_features, moved_stats
            else:
                (_, pooled), pull, moved = jax.vjp(
                    lambda p, x: generated_features(p, stats, x, running=False),
                    params,
                    generated,
                    has_aux=True,
                )
            (teacher_total, (terms, new_stats)), (d_pooled, d_params) = jax.value_and_grad(
                student_loss, argnums=(0, 1), has_aux=True
            )(pooled, params, moved, targets, batch.labels, student_dropout, ramped["teacher"])
            through_backbone, _ = pull(AppearanceFeatures(jnp.zeros_like(features.code), d_pooled))
            a_own = add_trees(d_params, through_backbone)
            losses |= terms

        # Pull everything back: through the frozen E_a to the images, through the generator,
        # and to E_a's parameters.
        _, through_features = pull_features(AppearanceFeatures(code_gradient, pooled_gradient))
        of_generated = generated_gradient + through_features
        image_gradient += jnp.pad(of_generated, ((0, 0), (0, 4), (0, 0), (0, 0), (0, 0)))
        g_through_images, codes_gradient = pull_generator(image_gradient)
        (a_through_real,) = pull_real((codes_gradient, *logits_gradient))
        g_gradient, a_gradient = (
            through if own is None else add_trees(own, through)
            for own, through in ((g_own, g_through_images), (a_own, a_through_real))
        )

        losses["discriminator_terms"] = d_terms
        losses["discriminator"] = d_total
        losses["generator"] = (
            image_total + generated_total + identity_total + cycle_total + teacher_total
        )
        g_gradient, a_gradient, new_stats, losses = average(
            (g_gradient, a_gradient, new_stats, losses)
        )

        g_updates, generator_optimizer = optimizers.generator.update(
            g_gradient, state.generator_optimizer, state.generator
        )
        a_updates, appearance_optimizer = optimizers.appearance.update(
            a_gradient, state.appearance_optimizer, params
        )
        new_state = TrainState(
            step=state.step + 1,
            generator=optax.apply_updates(state.generator, g_updates),
            appearance=optax.apply_updates(params, a_updates),
            appearance_stats=state.appearance_stats
            if "appearance_encoder" in config.freeze
            else new_stats,
            discriminator=discriminator_params,
            generator_optimizer=generator_optimizer,
            appearance_optimizer=appearance_optimizer,
            discriminator_optimizer=discriminator_optimizer,
        )
        return new_state, losses

    return update
