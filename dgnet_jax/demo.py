"""A trained DG-Net at once: swaps, an interpolation and ranked lists from the stored weights.

    python -m dgnet_jax.demo
    python -m dgnet_jax.demo --appearance DIR --structure DIR

draws people whom the training has not seen, dresses each in the clothes of others and shows the
truth below; or swaps the people of two folders of your own. Everything is written to `runs/demo`.
"""

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dgnet_jax.config import trained_config
from dgnet_jax.data.images import read_photographs
from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.data.synthetic import (
    Settings,
    Shot,
    TrueSwaps,
    choose_shots,
    draw_dataset,
    draw_shots,
    draw_true_swaps,
)
from dgnet_jax.errors import InputError, one_line
from dgnet_jax.evaluation.features import ranking_features
from dgnet_jax.evaluation.ranked_lists import ranked_lists_picture
from dgnet_jax.evaluation.truth import measure_in_short
from dgnet_jax.figures import save_animation, save_png, swap_matrix, truth_matrix
from dgnet_jax.generate.interpolate import interpolate_appearance
from dgnet_jax.generate.swap import check_figure
from dgnet_jax.inference import DGNet, load_model
from dgnet_jax.runtime.paths import user_path

WEIGHTS = Path(__file__).parents[1] / "demo" / "drawn_people.safetensors"

_APPEARANCES, _STRUCTURES = 6, 8
_FRAMES = 9
_QUERIES, _GALLERY_PEOPLE = 4, 24
_SCALE = 2
# Images at a time: few, so that none are computed for nothing.
_BATCH = 16


def drawn_people(model: DGNet, folder: Path, seed: int) -> list[str]:
    """Swaps of drawn people beside their truth, an interpolation and ranked lists.

    Args:
        model: trained on drawn people; its configuration says whom it has seen.
        folder: gets swaps.png, interpolation.gif and ranked_lists.png.
        seed: of the choice of people.

    Returns:
        What is in the files, a line each.
    """
    settings = drawing_settings(model)
    appearances, structures = choose_shots(settings, _STRUCTURES, seed)
    truth = draw_true_swaps(settings, appearances[:_APPEARANCES], structures, *model.image_size)
    swapped = all_swaps(model, truth.appearances, truth.structures)
    figures = measure_in_short(swapped, truth)
    _save_swaps(model, truth, swapped, folder / "swaps.png")
    _save_interpolation(model, truth.appearances, truth.structures, folder)
    searched = _save_ranked_lists(model, settings, seed, folder / "ranked_lists.png")
    return [
        "swaps.png: every row's clothes on every column's person, and the truth below: "
        f"{100 * figures['appearance_transfer']:.0f} % of the garments' colours moved, SSIM of "
        f"lightness {figures['structure_kept']:.2f}",
        "interpolation.gif: one person from the clothes of one to those of another",
        f"ranked_lists.png: {searched}",
    ]


def own_images(
    model: DGNet, appearance: Sequence[str], structure: Sequence[str], folder: Path
) -> list[str]:
    """Swaps and an interpolation of a user's own images; arguments as of `drawn_people`."""
    worn = read_photographs(appearance, *model.image_size, "--appearance").images
    wanted = read_photographs(structure, *model.image_size, "--structure").images
    check_figure(len(worn), len(wanted), "--appearance and --structure", "in the two folders")
    swapped = all_swaps(model, worn, wanted)
    picture = swap_matrix(list(worn), list(wanted), swapped, caption=_CAPTION, scale=_SCALE)
    save_png(picture, folder / "swaps.png", {"source": model.name})
    _save_interpolation(model, worn, wanted, folder)
    return ["swaps.png", "interpolation.gif"]


_CAPTION = "Appearance of the row's image on the structure of the column's"


def drawing_settings(model: DGNet) -> Settings:
    """What the data set of the training depends on."""
    if "drawing" not in model.config.data:
        raise InputError(
            f"--weights={model.source}: not trained on drawn people, so nobody whom it has not "
            "seen can be drawn; give --appearance and --structure, folders of images"
        )
    parameters = inspect.signature(draw_dataset).parameters
    names = {field.name for field in dataclasses.fields(Settings)} - {"version"}
    drawing = model.config.data.drawing.to_dict()
    return Settings(**{name: drawing.get(name, parameters[name].default) for name in names})


def all_swaps(model: DGNet, appearances: np.ndarray, structures: np.ndarray) -> np.ndarray:
    """(n, m, height, width, 3) uint8 of n and m images."""
    n, m = len(appearances), len(structures)
    codes, structure_codes = model.appearance_codes(appearances), model.structure_codes(structures)
    pictures = model.decode(np.tile(structure_codes, (n, 1, 1, 1)), np.repeat(codes, m, axis=0))
    return pictures.reshape(n, m, *pictures.shape[1:])


def _save_swaps(model: DGNet, truth: TrueSwaps, swapped: np.ndarray, file: Path) -> None:
    picture = truth_matrix(
        list(truth.appearances),
        list(truth.structures),
        swapped,
        truth.truth,
        caption=f"{_CAPTION}, as painted and, below it, as drawn: the truth. Nobody here was seen "
        "in training",
        scale=_SCALE,
    )
    save_png(picture, file, {"source": model.name})


def _save_interpolation(
    model: DGNet, appearances: np.ndarray, structures: np.ndarray, folder: Path
) -> None:
    frames = interpolate_appearance(model, appearances[0], appearances[-1], structures[0], _FRAMES)
    save_animation(frames, folder / "interpolation.gif", {"source": model.name}, scale=_SCALE)


def _save_ranked_lists(model: DGNet, settings: Settings, seed: int, file: Path) -> str:
    """Queries by the first camera, everybody's images by the others; returns how many."""
    shots, _ = choose_shots(settings, _GALLERY_PEOPLE, seed)
    people = [shot.identity for shot in shots]
    others = [Shot(person, camera, 0) for person in people for camera in (2, 3, 4)]
    queries = people[:_QUERIES]
    query = _split(model, settings, [Shot(person, 1, 0) for person in queries])
    gallery = _split(model, settings, others)
    alpha = model.config.evaluation.alpha
    query_features, gallery_features = (
        ranking_features(found[:, 0], found[:, 1], alpha=alpha)
        for found in (model.embeddings(query.images), model.embeddings(gallery.images))
    )
    picture = ranked_lists_picture(
        range(len(queries)),
        query_features,
        query,
        gallery_features,
        gallery,
        caption=f"{len(queries)} of {len(people)} drawn people, whom training has not seen, "
        f"searched in {len(others)} images by other cameras.",
    )
    save_png(picture, file, {"source": model.name})
    return f"{len(queries)} people searched among {len(people)}"


def _split(model: DGNet, settings: Settings, shots: Sequence[Shot]) -> CachedSplit:
    names = tuple(f"{shot.identity:04d}_c{shot.camera}" for shot in shots)
    return CachedSplit(
        draw_shots(settings, shots, *model.image_size),
        np.array([shot.identity for shot in shots], np.int32),
        np.array([shot.camera for shot in shots], np.int32),
        names,
        names,
    )


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser(
        "python -m dgnet_jax.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, words in (("appearance", "clothes come"), ("structure", "poses and places come")):
        result.add_argument(
            f"--{name}",
            action="append",
            metavar="PATH",
            help=f"an image or a folder that {words} from; several times if need be",
        )
    result.add_argument(
        "--weights",
        default=str(WEIGHTS),
        metavar="FILE",
        help="a .safetensors file of a run, or the folder of a run; default: %(default)s",
    )
    result.add_argument(
        "--output", type=user_path, default=Path("runs/demo"), help="default: %(default)s"
    )
    result.add_argument("--seed", type=int, default=0, help="of the choice of drawn people")
    return result


def main(argv: Sequence[str]) -> None:
    """The command; what a user can correct ends it with status 1 and "error: ..."."""
    arguments = parser().parse_args(argv)
    with one_line():
        if (arguments.appearance is None) != (arguments.structure is None):
            raise InputError("--appearance and --structure: give both, or none for drawn people")
        if arguments.seed < 0:
            raise InputError(f"--seed: found {arguments.seed}; give 0 or more")
        config = trained_config(arguments.weights)
        config.evaluation.batch_size = _BATCH
        model = load_model(config, None if config.released else arguments.weights)
        if arguments.appearance is None:
            lines = drawn_people(model, arguments.output, arguments.seed)
        else:
            lines = own_images(model, arguments.appearance, arguments.structure, arguments.output)
        for line in lines:
            print(arguments.output / line)


if __name__ == "__main__":
    main(sys.argv[1:])
