"""One training step of DG-Net: D's update, then the generator's and E_a's.

docs/method.md, section 3.

The generator runs forward once. Its images feed D's update as constants; the gradient of all
remaining terms with respect to the images is then pulled back through that same forward pass.
Terms whose ramp has not begun are no part of the program: the host, which knows the step, chooses
between the programs before and after (`active_terms`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax import lax
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from dgnet_jax.config_fields import expressions
from dgnet_jax.losses import Expression, evaluate
from dgnet_jax.models import Networks, Params, Variables
from dgnet_jax.models.reid import AppearanceFeatures
from dgnet_jax.training import objective
from dgnet_jax.training.passes import (
    AppearanceEncoder,
    Discriminator,
    Generator,
    RealPass,
    TeacherPass,
    exchange,
    split_groups,
)
from dgnet_jax.training.schedules import (
    first_active_step,
    ramp,
    ramp_start,
    ramped_weight,
    rising_weight,
)
from dgnet_jax.training.state import Optimizers, TrainState

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

    images: Float[Array, "batch 4 height width 3"]
    erased: Float[Array, "batch 4 height width 3"] | None
    labels: Int[Array, "batch 2"]


class StepRandomness(NamedTuple):
    """dropout: a PRNG key; train_structure_encoder: the coin of structure-code and cycle terms."""

    dropout: PRNGKeyArray
    train_structure_encoder: Bool[Array, ""]


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
            first_active_step(
                config.weights[name], ramp_start(config.ramp, name), config.ramp.scale
            )
            for name in names
        ]
        return any(start is not None and step >= start for start in starts)

    return ActiveTerms(any_of("structure_code", "appearance_code", "cycle"), any_of("teacher"))


def term_weights(
    config: ml_collections.ConfigDict, step: Int[Array, ""]
) -> dict[str, Float[Array, ""] | float]:
    """Weights at `step`: of the ramped terms, of "generated_identity", and w as "fine"."""
    names = ("structure_code", "appearance_code", "cycle", "teacher")
    schedules = {
        name: (config.weights[name], ramp_start(config.ramp, name), config.ramp.scale)
        for name in names
    }
    weights: dict[str, Float[Array, ""] | float] = {
        name: ramped_weight(step, *schedule) for name, schedule in schedules.items()
    }
    previous = ramp(step - 1, *schedules["teacher"])
    weights["fine"] = config.weights.fine * previous
    weights["generated_identity"] = rising_weight(
        step,
        config.weights.generated_identity,
        config.ramp.generated_identity_start,
        config.ramp.generated_identity_steps,
    )
    return weights


def add_trees(first: Any, second: Any) -> Any:
    """The sum of two trees of arrays."""
    return jax.tree.map(jnp.add, first, second)


class Inputs(NamedTuple):
    """What the terms after D's update are differentiated by.

    Attributes:
        images: (batch, 6, height, width, 3), all of the generator's, for the image terms.
        generated: x_ba and x_ab once more, for the cycle terms.
        real: E_a's codes and logits of the real images.
        features: E_a's of the generated images, for terms that teach the generator.
        student: pooled features by the batch's statistics, (batch * 2, n), for the term that
            teaches E_a.
        generator: parameters, for the cycle terms.
        appearance: parameters, for the term that teaches E_a.
    """

    images: Float[Array, "batch 6 height width 3"]
    generated: Float[Array, "batch 2 height width 3"]
    real: RealPass
    features: AppearanceFeatures
    student: Float[Array, "items channels"]
    generator: Params
    appearance: Params


class Given(NamedTuple):
    """What these terms take as constants.

    Attributes:
        real: (batch, 2, height, width, 3): x_a, x_b.
        structure: their structure codes.
        labels: (batch, 2) identities.
        discriminator: parameters, after D's update.
        stats: E_a's running statistics after the real images; moved: also after the generated.
        targets: (batch, 2, identities), the teacher's labels, or None if its term is off.
        ramped: weights by `term_weights`.
        coin: whether the structure-code and cycle terms train E_s.
        dropout: key of E_a's heads on generated images.
    """

    real: Float[Array, "batch 2 height width 3"]
    structure: Float[Array, "batch 2 h w channels"]
    labels: Int[Array, "batch 2"]
    discriminator: Params
    stats: Params
    moved: Params
    targets: Float[Array, "batch 2 identities"] | None
    ramped: dict[str, Float[Array, ""] | float]
    coin: Bool[Array, ""]
    dropout: PRNGKeyArray


class Objective(NamedTuple):
    """All terms but D's; each method returns terms of shape (2,), a value for each direction."""

    generator: Generator
    discriminator: Discriminator
    encoder: AppearanceEncoder
    measures: Mapping[str, Callable[[Array, Array], Array]]
    weights: ml_collections.ConfigDict
    active: ActiveTerms

    def difference(
        self,
        use: str,
        target: Float[Array, "batch 2 *values"],
        output: Float[Array, "batch 2 *values"],
    ) -> objective.Term:
        """R of each direction; use: one of `config_fields.USES`."""
        return objective.reconstruction(self.measures[use], target, output)

    def total(self, inputs: Inputs, given: Given) -> tuple[Float[Array, ""], tuple[Losses, Params]]:
        """The weighted sum; all terms, and E_a's running statistics after the step."""
        weights, ramped = self.weights, given.ramped
        images = self.images(inputs, given)
        identity = self.identity(inputs, given)
        generated_identity = self.generated_identity(inputs, given)
        total = (
            weights.gan * images["adversarial"]
            + weights.self_reconstruction * images["self_reconstruction"]
            + weights.same_identity_reconstruction * images["same_identity_reconstruction"]
        ).sum()
        total = total + ramped["generated_identity"] * generated_identity.sum()
        total = (
            total
            + (
                weights.identity * identity["identity"]
                + weights.same_identity * identity["same_identity"]
            ).sum()
        )
        cycle = dict.fromkeys(("structure_code", "appearance_code", "cycle"), jnp.zeros(2))
        if self.active.cycle:
            cycle = self.cycle(inputs, given)
            total = (
                total
                + sum((ramped[name] * term for name, term in cycle.items()), jnp.zeros(2)).sum()
            )
        teacher, stats = jnp.zeros(2), given.stats
        if self.active.teacher:
            teacher, stats = self.teacher(inputs, given)
            total = total + ramped["teacher"] * teacher.sum()
        losses = images | identity | cycle
        losses |= {"generated_identity": generated_identity, "teacher": teacher}
        return total, (losses, stats)

    def images(self, inputs: Inputs, given: Given) -> Losses:
        """The adversarial and the two reconstruction terms, of the six images of a step."""
        generated, own, same_identity = jnp.split(inputs.images, 3, axis=1)
        scores = self.discriminator.scores(given.discriminator, generated)
        return {
            "adversarial": objective.adversarial(scores, self.discriminator.gan),
            "self_reconstruction": self.difference("images", given.real, own),
            "same_identity_reconstruction": self.difference("images", given.real, same_identity),
        }

    def identity(self, inputs: Inputs, given: Given) -> Losses:
        """Cross-entropies of the real images."""
        _, prime, fine = inputs.real
        fine_term = given.ramped["fine"] * objective.cross_entropy(fine[:, :2], given.labels)
        return {
            "identity": objective.cross_entropy(prime[:, :2], given.labels) + fine_term,
            "same_identity": objective.cross_entropy(prime[:, 2:], given.labels),
        }

    def generated_identity(self, inputs: Inputs, given: Given) -> objective.Term:
        """The frozen prime head's cross-entropy with the appearance's identity."""
        params = lax.stop_gradient(inputs.appearance)
        logits = self.encoder.prime_logits(params, given.stats, inputs.features.pooled)
        return objective.cross_entropy(logits, given.labels)

    def cycle(self, inputs: Inputs, given: Given) -> Losses:
        """Structure-code, appearance-code and cycle terms, from the generated images' codes."""
        codes = self.encoder.cut(split_groups(inputs.features.code, 2))
        structure, cycled = self.generator.cycle(
            inputs.generator, inputs.generated, codes, given.coin
        )
        own_codes = lax.stop_gradient(inputs.real.codes[:, :2])
        return {
            "structure_code": self.difference(
                "structure_code", lax.stop_gradient(given.structure), structure
            ),
            "appearance_code": self.difference("appearance_code", own_codes, codes),
            "cycle": self.difference("cycle", given.real, cycled),
        }

    def teacher(self, inputs: Inputs, given: Given) -> tuple[objective.Term, Params]:
        """The primary- and fine-grained-feature terms on generated images, which train E_a."""
        assert given.targets is not None
        prime, fine, stats = self.encoder.heads(
            inputs.appearance, given.moved, inputs.student, given.dropout
        )
        term = objective.kl_divergence(given.targets, prime)
        structure_identity = objective.cross_entropy(fine, exchange(given.labels))
        return term + self.weights.fine * structure_identity, stats


def make_update(
    config: ml_collections.ConfigDict,
    networks: Networks,
    optimizers: Optimizers,
    active: ActiveTerms = EVERY_TERM,
    axis: str | None = None,
    reconstruction: Mapping[str, Expression] | None = None,
) -> Callable[..., tuple[TrainState, Losses]]:
    """Builds the pure step `update(state, teacher_variables, batch, randomness, inputs)`.

    inputs: `Expression.inputs` of the reconstruction loss of each of `config_fields.USES`; those of
    `reconstruction` by default, which is by default `config_fields.expressions(config)`. The step
    serves all expressions of the same form.

    It computes the `active` ramped terms, those of `active_terms` at the step or more of them. With
    an `axis`, mapped by `jax.pmap`, it sees one device's share of the batch: batch norms normalise
    that share alone, gradients, running statistics and losses are averaged over the devices.
    It returns the new state and the losses of the step: terms of shape (2,) hold their two
    directions, unweighted; "generator" and "discriminator" are the weighted totals.
    """
    objective.check_choices(config.gan_loss, config.teacher.label_style)
    train_bn = config.appearance.train_bn
    generator = Generator(networks)
    discriminator = Discriminator(networks, config.gan_loss, config.discriminator.gradient_penalty)
    encoder = AppearanceEncoder(networks, config.appearance.cut_gradient, train_bn, axis)
    teacher_pass = TeacherPass(
        networks, train_bn, config.teacher.label_style, config.teacher.label_dropout, axis
    )
    chosen = reconstruction or expressions(config)
    own_inputs = {use: expression.inputs for use, expression in chosen.items()}
    forms = {use: expression.form for use, expression in chosen.items()}
    average = partial(lax.pmean, axis_name=axis) if axis else lambda tree: tree

    def update(
        state: TrainState,
        teacher: Variables,
        batch: Batch,
        randomness: StepRandomness,
        inputs: Mapping[str, Any] = own_inputs,
    ) -> tuple[TrainState, Losses]:
        seen = partial(teacher_pass.feature_maps, teacher)
        measures = {
            use: partial(evaluate, form, inputs[use], features=seen) for use, form in forms.items()
        }
        terms = Objective(generator, discriminator, encoder, measures, config.weights, active)
        real, params = batch.images[:, :2], state.appearance
        real_dropout, student_dropout = jax.random.split(randomness.dropout)
        # Not a third one of the split, which would change the other two.
        label_dropout = jax.random.fold_in(randomness.dropout, 2)

        # E_a reads the four real images of each pair; the generator paints six.
        real_pass, pull_real, stats = jax.vjp(
            lambda p: encoder.real(
                p, state.appearance_stats, batch.images, batch.erased, real_dropout
            ),
            params,
            has_aux=True,
        )
        if not train_bn:  # every device normalises generated images with the same ones
            stats = average(stats)
        images, pull_generator, structure = jax.vjp(
            lambda p, codes: generator.forward(p, real, codes),
            state.generator,
            real_pass.codes,
            has_aux=True,
        )
        generated = images[:, :2]

        # D learns first; everything below sees the updated D.
        (d_total, d_terms), d_gradient = jax.value_and_grad(discriminator.loss, has_aux=True)(
            state.discriminator, generated, real
        )
        discriminator_params, discriminator_optimizer = _descend(
            optimizers.discriminator,
            average(d_gradient),
            state.discriminator_optimizer,
            state.discriminator,
        )

        # E_a and the teacher read the two generated images.
        features, pull_features, moved = jax.vjp(
            lambda p, x: encoder.generated(p, stats, x, running=not train_bn),
            params,
            generated,
            has_aux=True,
        )
        pooled, pull_student, targets = features.pooled, pull_features, None
        if active.teacher:
            targets = teacher_pass.labels(teacher, generated, batch.labels, label_dropout)
            if not train_bn:  # the student still normalises with the batch's statistics
                (_, pooled), pull_student, moved = jax.vjp(
                    lambda p, x: encoder.generated(p, stats, x, running=False),
                    params,
                    generated,
                    has_aux=True,
                )

        # All other terms, and their gradient by what the passes gave.
        of_terms = Inputs(images, generated, real_pass, features, pooled, state.generator, params)
        given = Given(
            real=real,
            structure=structure,
            labels=batch.labels,
            discriminator=discriminator_params,
            stats=stats,
            moved=moved,
            targets=targets,
            ramped=term_weights(config, state.step),
            coin=randomness.train_structure_encoder,
            dropout=student_dropout,
        )
        (total, (losses, new_stats)), gradient = jax.value_and_grad(terms.total, has_aux=True)(
            of_terms, given
        )

        # Back through the frozen E_a to the images, through the generator, and to E_a. The term of
        # the teacher trains E_a and not the generator.
        _, through_features = pull_features(gradient.features)
        of_generated = gradient.generated + through_features
        image_gradient = gradient.images + jnp.pad(
            of_generated, ((0, 0), (0, 4), (0, 0), (0, 0), (0, 0))
        )
        g_gradient, codes_gradient = pull_generator(image_gradient)
        (a_gradient,) = pull_real(gradient.real._replace(codes=codes_gradient))
        if active.cycle:
            g_gradient = add_trees(gradient.generator, g_gradient)
        if active.teacher:
            of_student = AppearanceFeatures(jnp.zeros_like(features.code), gradient.student)
            through_backbone, _ = pull_student(of_student)
            a_gradient = add_trees(add_trees(gradient.appearance, through_backbone), a_gradient)

        losses |= {"discriminator_terms": d_terms, "discriminator": d_total, "generator": total}
        g_gradient, a_gradient, new_stats, losses = average(
            (g_gradient, a_gradient, new_stats, losses)
        )
        new_generator, generator_optimizer = _descend(
            optimizers.generator, g_gradient, state.generator_optimizer, state.generator
        )
        new_appearance, appearance_optimizer = _descend(
            optimizers.appearance, a_gradient, state.appearance_optimizer, params
        )
        if "appearance_encoder" in config.freeze:
            new_stats = state.appearance_stats
        new_state = TrainState(
            step=state.step + 1,
            generator=new_generator,
            appearance=new_appearance,
            appearance_stats=new_stats,
            discriminator=discriminator_params,
            generator_optimizer=generator_optimizer,
            appearance_optimizer=appearance_optimizer,
            discriminator_optimizer=discriminator_optimizer,
        )
        return new_state, losses

    return update


def _descend(
    optimizer: optax.GradientTransformation, gradient: Params, state: optax.OptState, params: Params
) -> tuple[Params, optax.OptState]:
    """The parameters and the optimiser's state after a step."""
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state
