"""A trained DG-Net, and its teacher, as functions of images on the host.

    model = load_model(trained_config("runs/mine"), "runs/mine")
    pictures = model.swap(appearance_images, structure_images)

Images are (n, rows, columns, 3) uint8 RGB of any size. Batches are sharded over all devices.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dgnet_jax.config import trained_config
from dgnet_jax.config_fields import checked
from dgnet_jax.convert import load_released, load_teacher_weights
from dgnet_jax.errors import InputError
from dgnet_jax.models import Networks, Variables, build_networks, build_teacher
from dgnet_jax.models.embedding import Embeddings
from dgnet_jax.models.forward import Forward, TeacherForward, compiled
from dgnet_jax.models.initialization import init_parameters
from dgnet_jax.models.reid import Teacher
from dgnet_jax.runtime.checkpoints import Checkpoints, Step
from dgnet_jax.runtime.devices import (
    Placement,
    map_batches,
    place,
    run_batches,
    use_compilation_cache,
)
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.provenance import checksum
from dgnet_jax.runtime.workdir import DGNET_STAGE, TEACHER_STAGE, stage_directory

_CHECKPOINT_FLAG = "--config.teacher.checkpoint"
# What decides what the teacher computes, its number of identities aside.
_NETWORK_FIELDS = (
    "bottleneck",
    "stage_sizes",
    "stage_widths",
    "stem",
    "last_stride",
    "pooling",
    "embedding",
)


class _OnDevices:
    """What the networks below have in common: batches of a size, spread over all devices."""

    config: ml_collections.ConfigDict
    placement: Placement

    @property
    def batch_size(self) -> int:
        """Images per call over all devices."""
        wanted = self.config.evaluation.batch_size
        return self.placement.round_up("evaluation.batch_size", wanted)

    def _batched(self, function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
        return run_batches(
            function, *arrays, batch_size=self.batch_size, sharding=self.placement.sharded
        )


@dataclass(frozen=True, eq=False)
class DGNet(_OnDevices):
    """A trained DG-Net; each function is compiled once for a size of images.

    Attributes:
        config: the run's configuration; `evaluation.batch_size`, rounded up to a multiple of the
            devices, is the batch of every function.
        networks: the modules.
        generator: parameters {"structure_encoder", "decoder"}.
        appearance: E_a's variables {"params", "batch_stats"}.
        step: the training step; 0 for released weights.
        source: the work directory or file that it came from.
    """

    config: ml_collections.ConfigDict
    networks: Networks
    generator: Variables
    appearance: Variables
    step: int
    source: str
    placement: Placement = field(default_factory=place)

    @property
    def num_identities(self) -> int:
        """Identities that it was trained with."""
        return self.networks.appearance_encoder.num_identities

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of the images that it paints."""
        return self.config.data.height, self.config.data.width

    @cached_property
    def name(self) -> str:
        """For the metadata of what it paints: where it is from, its step, a sum of its weights."""
        return f"{Path(self.source).absolute().name} step {self.step} weights {self._checksum:08x}"

    @cached_property
    def _checksum(self) -> int:
        return checksum((self.generator, self.appearance))

    def embeddings(self, images: np.ndarray) -> np.ndarray:
        """Prime and fine retrieval embeddings, each of unit norm: (n, 2, dim) float32."""
        embeddings = partial(self._compiled("embeddings"), self.appearance)
        return embed(
            embeddings, images, batch_size=self.batch_size, sharding=self.placement.sharded
        )

    def appearance_codes(self, images: np.ndarray) -> np.ndarray:
        """(n, parts * channels) float32."""
        return self._run("appearance_codes", (self.appearance,), images)

    def structure_codes(self, images: np.ndarray) -> np.ndarray:
        """(n, height / 4, width / 4, channels) float32."""
        return self._run("structure_codes", (self.generator,), images)

    def decode(self, structure: np.ndarray, appearance: np.ndarray) -> np.ndarray:
        """n structure and n appearance codes to (n, height, width, 3) uint8."""
        return self._run("paint", (self.generator,), structure, appearance)

    def repaint(self, structure_images: np.ndarray, appearance: np.ndarray) -> np.ndarray:
        """n images' structures with n appearance codes: (n, height, width, 3) uint8."""
        return self._run("repaint", (self.generator,), structure_images, appearance)

    def swap(self, appearance_images: np.ndarray, structure_images: np.ndarray) -> np.ndarray:
        """The appearance of image i on the structure of structure image i, (n, h, w, 3)."""
        variables = self.generator, self.appearance
        return self._run("swap", variables, appearance_images, structure_images)

    def swap_in_both_ways(
        self, appearance_images: np.ndarray, structure_images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`swap` with its levels rounded, as elsewhere, and truncated, as DG-Net's FID has them."""
        variables = self.generator, self.appearance
        both = self._run("swap_in_both_ways", variables, appearance_images, structure_images)
        return both[:, 0], both[:, 1]

    def _run(self, name: str, variables: tuple[Variables, ...], *arrays: np.ndarray) -> np.ndarray:
        return self._batched(partial(self._compiled(name), *variables), *arrays)

    def _compiled(self, name: str) -> Callable[..., Any]:
        return compiled(Forward(self.networks, *self.image_size), name)


@dataclass(frozen=True, eq=False)
class TeacherModel(_OnDevices):
    """The frozen teacher: an evaluator that did not train with the generator, and its soft labels.

    Attributes:
        config, network, source: as `DGNet`'s.
        variables: {"params", "batch_stats"}.
    """

    config: ml_collections.ConfigDict
    network: Teacher
    variables: Variables
    source: str
    placement: Placement = field(default_factory=place)

    @property
    def num_identities(self) -> int:
        """Columns of the soft labels."""
        return self.network.num_identities

    def embeddings(self, images: np.ndarray) -> np.ndarray:
        """Embeddings over the images and their mirrors, of unit norm: (n, dim) float32."""
        return self._run("embeddings", images)

    def soft_labels(self, images: np.ndarray) -> np.ndarray:
        """The mean of the softmaxes on an image and on its mirror: (n, identities) float32."""
        return self._run("soft_labels", images)

    def _run(self, name: str, images: np.ndarray) -> np.ndarray:
        forward = TeacherForward(self.network, self.config.data.height, self.config.data.width)
        return self._batched(partial(compiled(forward, name), self.variables), images)


@dataclass(frozen=True, eq=False)
class Baseline:
    """A run of the re-ID baseline: it ranks as a `DGNet` does, and paints nothing.

    Attributes:
        teacher: its network.
        step: of its training.
    """

    teacher: TeacherModel
    step: int

    @property
    def num_identities(self) -> int:
        """Identities that it was trained with."""
        return self.teacher.num_identities

    @property
    def source(self) -> str:
        """The work directory that it came from."""
        return self.teacher.source

    @property
    def name(self) -> str:
        """For captions: where it is from, and its step."""
        return f"{Path(self.source).absolute().name} step {self.step}"

    def embeddings(self, images: np.ndarray) -> np.ndarray:
        """Its one embedding in the place of the prime and of the fine one: (n, 2, dim) float32."""
        found = self.teacher.embeddings(images)
        return np.stack([found, found], axis=1)


def load_model(
    config: ml_collections.ConfigDict, workdir: str | Path | None, step: Step | None = None
) -> DGNet:
    """The DG-Net of a work directory, or of `config.released` if that is given.

    Only the generator's and E_a's parameters are read, and the number of identities is the
    checkpoint's: no data set is needed.

    Args:
        config: as trained: `config.trained_config(workdir)`.
        workdir: of a run, which may still be training; nothing in it is changed. None with
            `config.released`.
        step: which checkpoint; "best" is the one with the best mAP in its training's evaluations,
            None the latest.

    Raises:
        InputError: there is no such run or checkpoint, or it is of another network.
    """
    config = checked(config)
    use_compilation_cache()
    placement = place()
    if config.released:
        return _load_released(config, config.released, placement)
    if config.baseline:
        raise InputError(
            f"--workdir={workdir}: a run of the re-ID baseline, which has no generator; "
            "--mode=evaluate ranks with it"
        )
    directory = _stage_folder(workdir, DGNET_STAGE)
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.choose_step(step)
        identities = _identities(checkpoints, step, "appearance.prime.classifier.kernel")
        networks = build_networks(config, identities)
        init = partial(init_parameters, networks, config.data.height, config.data.width)
        generator, appearance, _ = jax.eval_shape(init, jax.random.key(0))
        wanted = {
            "generator": generator,
            "appearance": appearance["params"],
            "appearance_stats": appearance["batch_stats"],
        }
        found = checkpoints.restore_part(placement.abstract(wanted), step)
    appearance = {"params": found["appearance"], "batch_stats": found["appearance_stats"]}
    return DGNet(config, networks, found["generator"], appearance, step, str(workdir), placement)


def load_teacher_model(
    config: ml_collections.ConfigDict, workdir: str | Path | None
) -> TeacherModel:
    """The trained teacher of `config.teacher.checkpoint`, or else of the work directory itself.

    The checkpoint is another run's work directory, or a converted `net_last.pth` of the released
    program.

    Raises:
        InputError: there is none, it is unfinished, or of another network than `config.teacher`.
    """
    config = checked(config)
    use_compilation_cache()
    source = config.teacher.checkpoint or workdir
    if not source:
        raise InputError("--config.teacher.checkpoint is empty, and there is no work directory")
    flag = _CHECKPOINT_FLAG if config.teacher.checkpoint else "--workdir"
    return _finished_teacher(config, user_path(source), flag, place())


def load_teacher(
    config: ml_collections.ConfigDict, num_identities: int, source: Path, placement: Placement
) -> Variables:
    """The variables of a teacher that is trained already, for a run that needs one.

    Args:
        config: of the run that needs it.
        num_identities: of the run's data set.
        source: another run's work directory; or a .safetensors file, the teacher of the released
            program (`net_last.pth`) as `python -m dgnet_jax.convert` writes it. What such a file
            does not say, the pooling and the strides, is `config.teacher`'s.

    Returns:
        {"params", "batch_stats"}, on all devices.

    Raises:
        InputError: there is none, it is unfinished, of another network than `config.teacher`, or
            of another number of identities.
    """
    model = _finished_teacher(config, source, _CHECKPOINT_FLAG, placement)
    if model.num_identities != num_identities:
        raise InputError(
            f"{_CHECKPOINT_FLAG}: the teacher in {source} knows {model.num_identities} "
            f"identities, the data set has {num_identities}; it must have been trained on the "
            "same ones"
        )
    return model.variables


def load_baseline(
    config: ml_collections.ConfigDict, workdir: str | Path | None, step: Step | None = None
) -> Baseline:
    """The re-ID baseline of a work directory, finished or still training.

    Args:
        config, workdir, step: as `load_model`'s, of a run with `config.baseline`.

    Raises:
        InputError: there is no such run or checkpoint, or it is of another network.
    """
    config = checked(config)
    use_compilation_cache()
    return Baseline(*_restore_teacher(config, workdir, step, "--workdir", place()))


def _finished_teacher(
    config: ml_collections.ConfigDict, source: Path, flag: str, placement: Placement
) -> TeacherModel:
    """The teacher of a converted file or of a work directory, named by `flag`."""
    of_a_file = source.is_file() or source.suffix in (".safetensors", ".pth")
    if flag == _CHECKPOINT_FLAG and of_a_file:
        variables: Variables = load_teacher_weights(source, build_teacher(config, 1))
        identities = variables["params"]["head"]["classifier"]["kernel"].shape[-1]
        network = build_teacher(config, identities)
        return TeacherModel(config, network, placement.put_state(variables), str(source), placement)
    directory = stage_directory(source, TEACHER_STAGE)
    if flag == _CHECKPOINT_FLAG and not directory.is_dir():
        raise InputError(
            f"{flag}: no trained teacher in {source} (no {directory}); give the work directory of "
            "a run whose teacher stage is finished, or leave it empty to train one"
        )
    model, step = _restore_teacher(config, source, None, flag, placement)
    planned = trained_config(source).teacher.total_steps
    if step < planned:
        raise InputError(
            f"{flag}: the teacher in {source} is unfinished, at step {step} of {planned}; run its "
            "training to the end first"
        )
    return model


def _restore_teacher(
    config: ml_collections.ConfigDict,
    source: str | Path | None,
    step: Step | None,
    flag: str,
    placement: Placement,
) -> tuple[TeacherModel, int]:
    """The teacher of a work directory, named by `flag`, and its step."""
    directory = _stage_folder(source, TEACHER_STAGE, flag)
    refuse_other_network(config, trained_config(str(source)), Path(str(source)), flag)
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.choose_step(step)
        identities = _identities(checkpoints, step, "params.head.classifier.kernel")
        network = build_teacher(config, identities)
        images = jnp.zeros((2, config.data.height, config.data.width, 3))
        wanted = dict(jax.eval_shape(network.init, jax.random.key(0), images))
        variables = checkpoints.restore_part(placement.abstract(wanted), step)
    return TeacherModel(config, network, variables, str(source), placement), step


def refuse_other_network(
    config: ml_collections.ConfigDict,
    saved: ml_collections.ConfigDict,
    workdir: Path,
    flag: str = _CHECKPOINT_FLAG,
) -> None:
    """Raises InputError if the teacher in a work directory, named by `flag`, is of other fields.

    Its strides, pooling and stem leave no trace in the shapes of its parameters.
    """
    differences = [
        f"teacher.{field} is {saved.teacher[field]} there, {config.teacher[field]} now"
        for field in _NETWORK_FIELDS
        if saved.teacher[field] != config.teacher[field]
    ]
    if differences:
        raise InputError(
            f"{flag}: the teacher in {workdir} is another network: {'; '.join(differences)}. Set "
            "these fields to its values, or train another one"
        )


def _load_released(config: ml_collections.ConfigDict, path: str, placement: Placement) -> DGNet:
    generator, appearance, _, step = load_released(path, build_networks(config, 1))
    identities = appearance["params"]["prime"]["classifier"]["kernel"].shape[-1]
    return DGNet(
        config,
        build_networks(config, identities),
        placement.put_state(generator),
        placement.put_state(appearance),
        step,
        path,
        placement,
    )


def _stage_folder(workdir: str | Path | None, stage: str, flag: str = "--workdir") -> Path:
    if workdir is None:
        raise InputError("--workdir: none given; name the folder of a finished run")
    directory = stage_directory(user_path(workdir), stage)
    if not directory.is_dir():
        raise InputError(
            f"{flag}={workdir}: no checkpoints of the {stage} stage in it (no {directory}); "
            "train first"
        )
    return directory


def _identities(checkpoints: Checkpoints, step: int, kernel: str) -> int:
    """The outputs of a classifier in a checkpoint."""
    shapes = checkpoints.shapes(step)
    if kernel not in shapes:
        raise InputError(
            f"{checkpoints.directory / str(step)}: no array {kernel!r} in it; it is no checkpoint "
            "of this stage"
        )
    return shapes[kernel][-1]


def embed(
    features_fn: Callable[[jax.Array], Embeddings],
    images: np.ndarray,
    *,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> np.ndarray:
    """Runs a jitted feature function over a cache of images, each counted exactly once.

    Every batch has the same shape, so that `features_fn` is compiled once: the last one is filled
    up with zeros, whose features are cut off. A batch is dispatched before the features of the one
    before are fetched, so the device does not wait for the host.

    Args:
        features_fn: (batch_size, height, width, 3) uint8 to (prime, fine), each (batch_size, dim).
            What it computes for one image must not depend on the others of the batch.
        images: (images, height, width, 3) uint8 on the host; the same in every process.
        batch_size: images per call over all devices.
        sharding: how a batch lies on the devices; one device if None. May span processes.

    Returns:
        (images, 2, dim) float32: prime, then fine, of each image in order; whole in every process.

    Raises:
        InputError: if there are no images, or the batch size is below 1 or cannot be sharded so.
    """
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"images: found shape {images.shape}. Give at least one image, (n, height, width, 3)."
        )
    batches = map_batches(features_fn, images, batch_size=batch_size, sharding=sharding)
    return np.concatenate([np.stack(pair, axis=1, dtype=np.float32) for pair in batches])
