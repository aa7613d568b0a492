"""The compiled step of training, and the rest that runs of one process can share."""

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dgnet_jax.config_fields import CODES, USES, expressions
from dgnet_jax.data.augment import augment, random_erasing
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.randomness import share_of
from dgnet_jax.evaluation.evaluator import Evaluator
from dgnet_jax.losses import Expression
from dgnet_jax.models import Networks, Variables, build_networks
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.dataset import open_data
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.state import Optimizers, TrainState, blank_state, make_optimizers
from dgnet_jax.training.train_step import (
    EVERY_TERM,
    ActiveTerms,
    Batch,
    StepRandomness,
    active_terms,
    make_update,
)

# Fields in which the runs that share a `Session` may differ from each other.
MAY_DIFFER_WITHIN = ("seed", "reconstruction_loss", "reconstruction", "teacher.checkpoint")


def make_train_step(
    config: ml_collections.ConfigDict,
    networks: Networks,
    optimizers: Optimizers,
    active: ActiveTerms = EVERY_TERM,
    axis: str | None = None,
    reconstruction: Mapping[str, Expression] | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the pure step (state, teacher, {"images" uint8, "labels"}) -> (state, losses).

    It augments on the device and draws all its randomness from (config.seed, state.step). A fourth
    argument, `run_inputs` of another configuration, takes the place of config.seed and of the
    numbers in its reconstruction losses: compiled with it, one step serves all seeds, and all
    weights and parameters of the same losses.
    images: (batch, 4, rows, columns, 3), in the order of `train_step.Batch`; labels: (batch, 2).
    active, axis, reconstruction: as of `train_step.make_update`.
    """
    chosen = reconstruction or expressions(config)
    update = make_update(config, networks, optimizers, active, axis, chosen)
    settings = config.augment
    own = run_inputs(config, chosen)

    def step(
        state: TrainState, teacher: Variables, batch: Any, run: RunInputs = own
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(run.key), state.step)
        augment_key, erase_key, dropout_key, coin_key = jax.random.split(key, 4)
        images = augment(
            augment_key,
            batch["images"],
            height=config.data.height,
            width=config.data.width,
            pad=settings.pad,
            mirror_probability=settings.mirror_probability,
            share=share_of(axis),
        )
        erased = None
        if settings.erasing_probability:
            erased = random_erasing(
                erase_key,
                images,
                probability=settings.erasing_probability,
                area=tuple(settings.erasing_area),
                aspect=settings.erasing_aspect,
                attempts=settings.erasing_attempts,
                share=share_of(axis),
            )
        # In float32 whatever the mode, so that the throws are the same ones in float64.
        probability = jnp.float32(config.structure_encoder.train_probability)
        coin = StepRandomness(dropout_key, jax.random.bernoulli(coin_key, probability))
        found = Batch(images, erased, batch["labels"])
        return update(state, teacher, found, coin, run.reconstruction)

    return step


class RunInputs(NamedTuple):
    """The numbers in which runs that share a compiled step differ, as plain arrays.

    Attributes:
        key: data of the key of `config.seed`, uint32.
        reconstruction: `Expression.inputs` of each of `config_fields.USES`.
    """

    key: Any
    reconstruction: dict[str, Any]


def run_inputs(
    config: ml_collections.ConfigDict, reconstruction: Mapping[str, Expression] | None = None
) -> RunInputs:
    """Those of a configuration, or of its seed and the losses given."""
    chosen = reconstruction or expressions(config)
    return RunInputs(seed_key(config), {use: one.inputs for use, one in chosen.items()})


def seed_key(config: ml_collections.ConfigDict) -> np.ndarray:
    """The key of `config.seed` as plain uint32 numbers, which go to all devices as others do."""
    with jax.ensure_compile_time_eval():  # also where a step is made inside of a traced function
        return np.asarray(jax.random.key_data(jax.random.key(config.seed)))


class Session:
    """What runs of one process have in common if they differ in seed and loss alone.

    Each part is made when it is first asked for, and kept.

    Attributes:
        config: of one of the runs.
        placement: on the devices.
        teacher: its variables, where they are there already; else each run gets its own.
        together: losses that every run's expressions get with weight 0 where they lack them, so
            that all runs share one program.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        teacher: Variables | None = None,
        together: Expression | None = None,
    ) -> None:
        self.config, self.teacher, self.together = config, teacher, together
        self.placement = place(config.get("parallel", "mesh"))
        self._steps: dict[tuple[Hashable, ActiveTerms], Callable[..., Any]] = {}

    @cached_property
    def data(self) -> ReidData:
        """The data set, decoded once."""
        return open_data(self.config)

    @cached_property
    def networks(self) -> Networks:
        """The modules."""
        return build_networks(self.config, self.data.num_identities)

    @cached_property
    def optimizers(self) -> Optimizers:
        """Of all networks."""
        return make_optimizers(self.config)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Ranks the gallery; compiled once."""
        return Evaluator(self.config, self.networks, self.data, self.placement)

    @cached_property
    def blank_state(self) -> Callable[[jax.Array], TrainState]:
        """A key to the state at step 0, on all devices; compiled once."""
        blank = partial(blank_state, self.config, self.networks, self.optimizers)
        return self.placement.compile_init(blank)

    def reconstruction(self, config: ml_collections.ConfigDict) -> dict[str, Expression]:
        """R of each use in a run, with the losses of `together` that it can compare."""
        found = expressions(config)
        if self.together is None:
            return found
        return {
            use: one.padded(self.together.on_codes() if use in CODES else self.together)
            for use, one in found.items()
        }

    def inputs(self, config: ml_collections.ConfigDict) -> RunInputs:
        """The fourth argument of a run's steps, on all devices."""
        return self.placement.put_state(run_inputs(config, self.reconstruction(config)))

    def step(
        self,
        config: ml_collections.ConfigDict,
        step: int,
        reconstruction: Mapping[str, Expression] | None = None,
    ) -> Callable[..., Any]:
        """(state, teacher, batch, inputs) -> (state, losses) for a 0-based step of `config`.

        Compiled once for each set of losses and each set of active terms: before and after the
        ramps. `inputs` holds the losses' weights and parameters.

        Args:
            config: of the run.
            step: its next one.
            reconstruction: `self.reconstruction(config)`, which takes longer than the rest.
        """
        reconstruction = reconstruction or self.reconstruction(config)
        forms = tuple(reconstruction[use].form for use in USES)
        key = forms, active_terms(config, step)
        if key not in self._steps:
            make = partial(
                make_train_step,
                config,
                self.networks,
                self.optimizers,
                key[1],
                reconstruction=reconstruction,
            )
            self._steps[key] = self.placement.compile_step(make, arguments=4, batch_argument=2)
        return self._steps[key]

    def check_steps(self, config: ml_collections.ConfigDict, state: TrainState, first: int) -> None:
        """Traces the next and the last step of a run: what does not fit raises here, not later.

        jax keeps what it has traced for the steps themselves, so that on one mesh this costs
        nothing but that it comes first.

        Args:
            config: of the run.
            state: shapes and types of its state.
            first: the 0-based step that it goes on with. A run that is over has nothing to trace.
        """
        if first >= config.total_steps:
            return
        cache = config.data.cache_height, config.data.cache_width
        rows = config.batch_size
        images = jnp.zeros((2, config.data.height, config.data.width, 3))
        teacher = jax.eval_shape(self.networks.teacher.init, jax.random.key(0), images)
        arguments = (
            self.placement.abstract(state),
            self.placement.abstract(teacher),
            {
                "images": self.placement.abstract_batch((rows, 4, *cache, 3), np.uint8),
                "labels": self.placement.abstract_batch((rows, 2), np.int32),
            },
            self.placement.abstract(run_inputs(config, self.reconstruction(config))),
        )
        for step in (first, config.total_steps - 1):
            self.placement.trace_step(self.step(config, step), arguments)

    def check_batches(self) -> None:
        """Raises InputError if a batch, of the teacher that is to be trained too, does not fit."""
        self.placement.check_batch("batch_size", self.config.batch_size)
        if self.teacher is None and not self.config.teacher.checkpoint:
            self.placement.check_batch("teacher.batch_size", self.config.teacher.batch_size)

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raises ValueError if a run of `config` cannot share this."""
        present = work_directory.as_json(self.config)
        lines = work_directory.differences(present, config, MAY_DIFFER_WITHIN)
        if lines:
            raise ValueError("runs that share must not differ in\n" + "\n".join(lines))
