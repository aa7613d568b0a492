"""The state of DG-Net training: parameters, running statistics, three optimisers, the step."""

from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

from dgnet_jax.errors import InputError
from dgnet_jax.models import Networks, Params, Variables
from dgnet_jax.models.initialization import init_parameters
from dgnet_jax.training.schedules import step_decay

PARTS = ("structure_encoder", "decoder", "appearance_encoder", "discriminator")


@flax.struct.dataclass
class TrainState:
    """Everything a checkpoint holds.

    Attributes:
        step: steps done, int32.
        generator: parameters {"structure_encoder", "decoder"} (the MLPs belong to the decoder).
        appearance: parameters of E_a.
        appearance_stats: running statistics of E_a's batch norms.
        discriminator: parameters of D.
        generator_optimizer, appearance_optimizer, discriminator_optimizer: optax states.
    """

    step: jax.Array
    generator: Params
    appearance: Params
    appearance_stats: Params
    discriminator: Params
    generator_optimizer: optax.OptState
    appearance_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState

    @property
    def appearance_variables(self) -> Variables:
        """E_a's {"params", "batch_stats"}."""
        return {"params": self.appearance, "batch_stats": self.appearance_stats}


class Optimizers(NamedTuple):
    """One optax transformation a network; learning rates are functions of the step."""

    generator: optax.GradientTransformation
    appearance: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def frozen_labels(names: tuple[str, ...], frozen: tuple[str, ...]) -> dict[str, str]:
    """For optax.multi_transform over a tree whose top level is `names`."""
    return {name: "frozen" if name in frozen else "trained" for name in names}


def _with_frozen(
    transformation: optax.GradientTransformation, labels: Any
) -> optax.GradientTransformation:
    return optax.multi_transform({"trained": transformation, "frozen": optax.set_to_zero()}, labels)


def sgd_nesterov(
    rate: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """SGD with L2 added to the gradient: buf = momentum buf + g; step g + momentum buf.

    Not by `optax.sgd`, which would nest the state that checkpoints hold one level deeper.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=True),
        optax.scale_by_learning_rate(rate),
    )


def reid_sgd(
    backbone_rate: optax.Schedule,
    head_rate: optax.Schedule,
    momentum: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """SGD of a re-ID network: one rate for "backbone", another for its heads."""

    def labels(params: Params) -> dict[str, str]:
        return {name: "backbone" if name == "backbone" else "head" for name in params}

    return optax.multi_transform(
        {
            "backbone": sgd_nesterov(backbone_rate, momentum, weight_decay),
            "head": sgd_nesterov(head_rate, momentum, weight_decay),
        },
        labels,
    )


def make_optimizers(config: ml_collections.ConfigDict) -> Optimizers:
    """The three optimisers of docs/method.md, section 5.2, with `config.freeze` applied.

    Raises:
        InputError: `config.freeze` names an unknown part.
    """
    frozen = tuple(config.freeze)
    for part in frozen:
        if part not in PARTS:
            raise InputError(f"--config.freeze: {part!r} is none of {', '.join(PARTS)}")
    settings = config.optimizer

    def rate(value: float) -> optax.Schedule:
        return step_decay(value, tuple(settings.milestones), settings.decay)

    def adam(value: float) -> optax.GradientTransformation:
        """Adam with L2 added to the gradient; not by `optax.adam`, as in `sgd_nesterov`."""
        return optax.chain(
            optax.add_decayed_weights(settings.weight_decay),
            optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon),
            optax.scale_by_learning_rate(rate(value)),
        )

    appearance = reid_sgd(
        rate(settings.appearance_learning_rate),
        rate(settings.appearance_learning_rate * settings.head_factor),
        settings.momentum,
        settings.weight_decay,
    )
    discriminator = adam(settings.discriminator_learning_rate)
    return Optimizers(
        generator=_with_frozen(
            adam(settings.generator_learning_rate),
            frozen_labels(("structure_encoder", "decoder"), frozen),
        ),
        appearance=optax.set_to_zero() if "appearance_encoder" in frozen else appearance,
        discriminator=optax.set_to_zero() if "discriminator" in frozen else discriminator,
    )


def blank_state(
    config: ml_collections.ConfigDict, networks: Networks, optimizers: Optimizers, key: jax.Array
) -> TrainState:
    """The state at step 0 with every network as initialised. Pure."""
    parts = init_parameters(networks, config.data.height, config.data.width, key)
    return create_state(*parts, optimizers)


def create_state(
    generator: Params, appearance: dict[str, Params], discriminator: Params, optimizers: Optimizers
) -> TrainState:
    """A state at step 0 around given variables."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        appearance=appearance["params"],
        appearance_stats=appearance["batch_stats"],
        discriminator=discriminator,
        generator_optimizer=optimizers.generator.init(generator),
        appearance_optimizer=optimizers.appearance.init(appearance["params"]),
        discriminator_optimizer=optimizers.discriminator.init(discriminator),
    )
