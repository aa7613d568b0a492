"""The tasks of `launch.py --mode=generate --task=...`, from files to files."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ml_collections
import numpy as np
from absl import logging
from PIL import Image

from dgnet_jax.config_fields import checked
from dgnet_jax.data.images import Photographs, read_photographs
from dgnet_jax.data.sampling import choose_images
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid_protocol import resize_bicubic
from dgnet_jax.figures import image_grid, save_animation, save_png, swap_matrix
from dgnet_jax.generate import GenerateOptions
from dgnet_jax.generate.dataset import DatasetSettings, generate_dataset
from dgnet_jax.generate.interpolate import interpolate_appearance, interpolate_structure
from dgnet_jax.generate.swap import check_figure, swap_batches, swap_grid
from dgnet_jax.inference import DGNet, TeacherModel, load_model, load_teacher_model
from dgnet_jax.runtime.checkpoints import Step
from dgnet_jax.runtime.dataset import open_data
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.paths import printable, user_path

_SWAP_COUNT = 8
# Rows of the pictures in figures.
_FIGURE_HEIGHT = 128


@dataclass(frozen=True)
class Request:
    """What a task works with; `output` is the folder of its results."""

    model: DGNet
    config: ml_collections.ConfigDict
    workdir: str | Path
    output: Path
    options: GenerateOptions

    @property
    def metadata(self) -> dict[str, str]:
        """What every output says about itself."""
        return {"generator": self.model.name, "seed": str(self.options.seed)}


def generate(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    task: str | None,
    options: GenerateOptions | None = None,
    *,
    step: Step | None = None,
    output: str | Path | None = None,
) -> list[Path]:
    """Runs a task.

    Args:
        config: of the run.
        workdir: of the run.
        task: a key of `TASKS`.
        options: what it is asked for; the defaults of `GenerateOptions` if None.
        step: as `inference.load_model`'s.
        output: the folder of the results; by default WORKDIR/generated/TASK.

    Returns:
        The files and folders that it has written.

    Raises:
        InputError: unknown task, no such checkpoint, or images that cannot be used.
    """
    if not task or task not in TASKS:
        known = f"known tasks: {', '.join(TASKS)}"
        if not task:
            raise InputError(f"--task is missing; {known}")
        near = difflib.get_close_matches(task, TASKS, n=1)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise InputError(f"--task: unknown task {task!r}{hint}; {known}")
    config, workdir = checked(config), user_path(workdir)
    model = load_model(config, workdir, step)
    folder = user_path(output or workdir / "generated" / task)
    return TASKS[task](Request(model, config, workdir, folder, options or GenerateOptions()))


def _swap(request: Request) -> list[Path]:
    appearance, structure = _sources(request, request.options.count or _SWAP_COUNT)
    check_figure(
        len(appearance.images),
        len(structure.images),
        "--task=swap",
        "(--appearance, --structure, --count), or use --task=pairs, which writes a file for each",
    )
    grid = swap_grid(request.model, appearance.images, structure.images)
    figure = swap_matrix(
        list(appearance.images),
        list(structure.images),
        grid,
        caption=f"{request.model.name}: the appearance of the row's image on the structure of the "
        "column's",
        scale=_scale(grid),
    )
    path = request.output / "swap.png"
    _save_png(request, figure, path, appearance.paths, structure.paths)
    return [path]


def _interpolate(request: Request) -> list[Path]:
    appearance, structure = _sources(request, 3)
    model, frames = request.model, request.options.frames
    written = []
    for kind, ends, fixed, interpolate in (
        ("appearance", appearance, structure, interpolate_appearance),
        ("structure", structure, appearance, interpolate_structure),
    ):
        if len(ends.paths) < 2:
            logging.info("no interpolation of the %s: only one image gives it", kind)
            continue
        first, last = ends.images[0], ends.images[1]
        # Another person than the two ends, if there is one.
        still = 2 if len(fixed.paths) > 2 else 0
        strip = interpolate(model, first, last, fixed.images[still], frames)
        other = "structure" if kind == "appearance" else "appearance"
        figure = image_grid(
            [[fixed.images[still], first, *strip, last]],
            column_titles=[
                other,
                "from",
                *(f"{i / (frames - 1):.2f}" for i in range(frames)),
                "to",
            ],
            caption=f"{model.name}: from one {kind} to another",
            scale=_scale(strip),
        )
        paths = {kind: ends.paths[:2], other: fixed.paths[still : still + 1]}
        sources = paths["appearance"], paths["structure"]
        picture = request.output / f"interpolate_{kind}.png"
        _save_png(request, figure, picture, *sources)
        animation = picture.with_suffix(f".{request.options.animation}")
        metadata = request.metadata | _named(*sources)
        scale = _scale(strip)
        _write(animation, partial(save_animation, strip, animation, metadata, scale=scale))
        written += [picture, animation]
    if not written:
        raise InputError("--appearance, --structure: two images of one kind are needed")
    return written


def _pairs(request: Request) -> list[Path]:
    if not (request.options.appearance and request.options.structure):
        raise InputError("--task=pairs needs --appearance=FOLDER and --structure=FOLDER")
    appearance, structure = _sources(request, 0)
    first, second = _short_names(appearance.paths), _short_names(structure.paths)
    for rows, columns, pictures in swap_batches(request.model, appearance.images, structure.images):
        for i, j, picture in zip(rows, columns, pictures, strict=True):
            path = request.output / f"appearance-{first[i]}_structure-{second[j]}.png"
            _save_png(request, picture, path, (appearance.paths[i],), (structure.paths[j],))
    return [request.output]


def _dataset(request: Request) -> list[Path]:
    settings = DatasetSettings(
        seed=request.options.seed,
        count=request.options.count,
        per_identity=request.options.per_identity,
        test_per_identity=request.options.test_per_identity,
        quality=request.options.quality,
    )
    teacher: TeacherModel | None = None
    if request.options.soft_labels:
        try:
            teacher = load_teacher_model(request.config, request.workdir)
        except InputError as error:
            raise InputError(
                f"{error}. --nosoft_labels makes the data set without the teacher's labels"
            ) from error
    data = open_data(request.config)
    return [generate_dataset(request.model, data, request.output, settings, teacher)]


TASKS: dict[str, Callable[[Request], list[Path]]] = {
    "swap": _swap,
    "interpolate": _interpolate,
    "pairs": _pairs,
    "dataset": _dataset,
}


def _sources(request: Request, choose: int) -> tuple[Photographs, Photographs]:
    """The flags' appearance and structure images, at the network's size."""
    height, width = request.model.image_size
    given = {
        name: read_photographs(paths, height, width, f"--{name}")
        for name, paths in (
            ("appearance", request.options.appearance),
            ("structure", request.options.structure),
        )
        if paths
    }
    if not given:
        train = open_data(request.config).train
        chosen = choose_images(len(train.images), choose, request.options.seed)
        images = resize_bicubic(train.images[chosen], height, width)
        given["appearance"] = Photographs(images, tuple(train.files[i] for i in chosen))
    only = next(iter(given.values()))
    return given.get("appearance", only), given.get("structure", only)


def _named(appearance: tuple[str, ...], structure: tuple[str, ...]) -> dict[str, str]:
    sources = {"appearance_sources": appearance, "structure_sources": structure}
    return {name: printable("\n".join(paths)) for name, paths in sources.items()}


def _save_png(
    request: Request,
    picture: Image.Image | np.ndarray,
    path: Path,
    appearance: tuple[str, ...],
    structure: tuple[str, ...],
) -> None:
    metadata = request.metadata | _named(appearance, structure)
    _write(path, partial(save_png, picture, path, metadata))


def _write(path: Path, save: Callable[[], None]) -> None:
    """Writes a file with `save`, on the first process; InputError everywhere if it cannot."""

    def attempt() -> None:
        try:
            save()
        except OSError as error:
            raise InputError(
                f"--output: {path} cannot be written ({error.strerror or error}). Make room, or "
                "choose another folder"
            ) from error

    on_first_process(attempt)


def _short_names(paths: tuple[str, ...]) -> list[str]:
    """File names without suffix; with it, or with a number, where that is ambiguous."""
    names = [Path(path).stem for path in paths]
    for longer in ([Path(path).name for path in paths], [f"{n}-{i}" for i, n in enumerate(names)]):
        if len(set(names)) == len(names):
            break
        names = longer
    return [name.replace(os.sep, "_") for name in names]


def _scale(pictures: np.ndarray) -> int:
    return max(1, _FIGURE_HEIGHT // pictures.shape[-3])
