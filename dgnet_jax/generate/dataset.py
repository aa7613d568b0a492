"""A synthetic re-ID data set on the disk, in Market-1501's form.

    FOLDER/
      bounding_box_train/  named by the appearance's identity and the structure's camera
      query/, bounding_box_test/  the same of people whom the generator was not trained on
      manifest.csv         a row for each image: what it was made from
      soft_labels.npy      (training images, identities) float32, the teacher's, in manifest order
      dataset.json         the settings and the identity of each label

The set is made in blocks. A block's images are complete on the disk before the manifest lists them,
so that whatever ends the process leaves a valid set, and the next start goes on behind the last
listed block. Every block is a pure function of the model, the data and the seed: an interrupted set
ends up byte for byte like an uninterrupted one.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging

from dgnet_jax.data.generated import MANIFEST_FILE
from dgnet_jax.data.pipeline import CachedSplit, ReidData
from dgnet_jax.errors import InputError
from dgnet_jax.generate.plan import Plan, plan_test_set, plan_training_set
from dgnet_jax.generate.set_folder import SetFolder, csv_line
from dgnet_jax.inference import DGNet, TeacherModel
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.preemption import GracefulStop, Stopped

T = TypeVar("T")
BLOCK = 1024
_SECONDS_BETWEEN_REPORTS = 10


@dataclass(frozen=True)
class DatasetSettings:
    """What a synthetic set consists of.

    Attributes:
        seed: of the choice of sources.
        count, per_identity: training images; see `plan.plan_training_set`.
        test_per_identity: query and gallery images of each identity of the real queries, one of
            them a query; 0 leaves both folders out.
        quality: of the JPEGs; 75 is Pillow's default, as in the published protocol.
    """

    seed: int = 0
    count: int | None = None
    per_identity: int | None = None
    test_per_identity: int = 2
    quality: int = 75


@dataclass(frozen=True)
class _Part:
    """A plan, the real images that it is about, and whether its images have soft labels."""

    plan: Plan
    source: CachedSplit
    labelled: bool


@dataclass(frozen=True)
class _Block:
    """Rows of a part; `start` counts over all parts."""

    part: _Part
    rows: slice
    start: int

    @property
    def stop(self) -> int:
        return self.start + self.rows.stop - self.rows.start


def paint_rows(model: DGNet, images: np.ndarray, plan: Plan, rows: slice) -> np.ndarray:
    """The pictures of some rows of a plan; an appearance that comes several times is encoded once.

    Args:
        images: (n, rows, columns, 3) uint8, those that the plan's indices are about.

    Returns:
        (rows, height, width, 3) uint8.
    """
    appearances, which = np.unique(plan.appearance[rows], return_inverse=True)
    codes = model.appearance_codes(images[appearances])
    return model.repaint(images[plan.structure[rows]], codes[which])


def generate_dataset(
    model: DGNet,
    data: ReidData,
    folder: str | Path,
    settings: DatasetSettings,
    teacher: TeacherModel | None = None,
) -> Path:
    """Writes a synthetic data set, or goes on with one that was interrupted.

    Args:
        model: the generator.
        data: real images, those that the model was trained on and its test people.
        folder: of the set; created.
        settings: what to make.
        teacher: gives the soft labels; without one there are none.

    Returns:
        The manifest's path.

    Raises:
        InputError: the teacher knows other people than the data has, the folder holds another set,
            or the disk is full or broken: what the manifest lists is complete and valid then.
        Stopped: SIGTERM or Ctrl-C came; the same call goes on.
    """
    if teacher is not None and teacher.num_identities != data.num_identities:
        raise InputError(
            f"soft labels: the teacher in {teacher.source} knows {teacher.num_identities} people, "
            f"the training data has {data.num_identities}. Use the data that it was trained on "
            "(--config.data.name, --config.data.root), or leave the labels out (--nosoft_labels)"
        )
    parts = _plan_parts(data, settings)
    lines = [line for part in parts for line in _lines(part, data, settings.seed)]
    files = SetFolder(
        user_path(folder).absolute(),
        lines,
        _description(model, data, settings, teacher, len(lines)),
        (len(parts[0].plan), teacher.num_identities) if teacher else None,
        settings.quality,
    )
    blocks = list(_blocks(parts))

    def on_disk(work: Callable[[], T]) -> T:
        """`on_first_process`, for work that a full or broken disk may end."""

        def attempt() -> T:
            try:
                return work()
            except OSError as error:
                raise InputError(
                    f"{files.folder}: {error.strerror or error} after {files.count_listed()} of "
                    f"{len(lines)} images. Those that {MANIFEST_FILE} lists are complete. Make "
                    "room or repair the disk; the same command then goes on from there"
                ) from error

        return on_first_process(attempt)

    first = on_disk(lambda: files.prepare([block.start for block in blocks]))
    with GracefulStop() as stop:
        _generate(model, teacher, [b for b in blocks if b.start >= first], files, on_disk, stop)
    return files.folder / MANIFEST_FILE


def _plan_parts(data: ReidData, settings: DatasetSettings) -> list[_Part]:
    train = plan_training_set(data.train, settings.seed, settings.count, settings.per_identity)
    parts = [_Part(train, data.train, True)]
    if settings.test_per_identity:
        test = plan_test_set(data.query, settings.seed, settings.test_per_identity)
        parts += [_Part(plan, data.query, False) for plan in test]
    return parts


def _lines(part: _Part, data: ReidData, seed: int) -> Iterator[str]:
    """The manifest's rows of a part, each with its line end."""
    plan, source = part.plan, part.source
    labels = np.searchsorted(data.dataset.train_identities, plan.identities)
    for row in range(len(plan)):
        yield csv_line(
            plan.files[row],
            plan.identities[row],
            plan.cameras[row],
            labels[row] if part.labelled else "",
            source.files[plan.appearance[row]],
            source.files[plan.structure[row]],
            seed,
        )


def _block_rows(plan: Plan) -> Iterator[slice]:
    for start in range(0, len(plan), BLOCK):
        yield slice(start, min(start + BLOCK, len(plan)))


def _blocks(parts: list[_Part]) -> Iterator[_Block]:
    offset = 0
    for part in parts:
        for rows in _block_rows(part.plan):
            yield _Block(part, rows, offset + rows.start)
        offset += len(part.plan)


def _description(
    model: DGNet,
    data: ReidData,
    settings: DatasetSettings,
    teacher: TeacherModel | None,
    images: int,
) -> dict[str, Any]:
    return {
        "model": model.name,
        "data": data.dataset.name,
        "teacher": teacher and Path(teacher.source).name,
        "height": model.image_size[0],
        "width": model.image_size[1],
        "images": images,
        **asdict(settings),
        # Of each label, and of each column of the soft labels.
        "identities": data.dataset.train_identities.tolist(),
    }


def _generate(
    model: DGNet,
    teacher: TeacherModel | None,
    blocks: list[_Block],
    files: SetFolder,
    on_disk: Callable[[Callable[[], None]], None],
    stop: GracefulStop,
) -> None:
    """Paints the blocks, each while the one before is being written by the first process."""
    started = reported = time.perf_counter()
    with ThreadPoolExecutor(1) as writer:
        pending: Future[None] | None = None

        def finish_writing() -> None:
            if pending is not None:
                pending.result()

        for block in blocks:
            part = block.part
            pictures = paint_rows(model, part.source.images, part.plan, block.rows)
            labels = teacher.soft_labels(pictures) if teacher and part.labelled else None
            on_disk(finish_writing)
            if jax.process_index() == 0:
                pending = writer.submit(files.write_block, block.start, pictures, labels)
            now = time.perf_counter()
            if now - reported > _SECONDS_BETWEEN_REPORTS:
                reported = now
                _report(block.stop - blocks[0].start, blocks[-1].stop - block.stop, now - started)
            if stop.should_stop() and block is not blocks[-1]:
                on_disk(finish_writing)
                raise Stopped(stop.signal_name or "signal", "dataset", block.stop)
        on_disk(finish_writing)


def _report(done: int, left: int, seconds: float) -> None:
    rate = done / seconds
    logging.info("%d images, %.0f images/s, %d left: %.0f s", done, rate, left, left / rate)
