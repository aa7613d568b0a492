"""DG-Net's measurement of generated images (docs/method.md, sections 7.6 to 7.9).

    real = RealImages(images, labels, gallery, inception=load_extractor(FILE), teacher=embed)
    results = evaluate_generated(partial(swapped_training_images, model, seed=0), real)

One generated image for every training image, against all training images, at 256 x 128. As PNG,
that is as painted, which is this project's figure; and by DG-Net's protocol, after JPEG.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8
from PIL import Image

from dgnet_jax.data.synthetic import Settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.consistency import identity_consistency
from dgnet_jax.evaluation.diversity import diversity, same_identity_pairs
from dgnet_jax.evaluation.extraction import InceptionExtractor
from dgnet_jax.evaluation.fid import FeatureStatistics
from dgnet_jax.evaluation.fid_protocol import (
    HEIGHT,
    WIDTH,
    Pictures,
    decode_jpeg,
    encode_jpeg,
    jpeg_indices,
    resize_bicubic,
)
from dgnet_jax.evaluation.kid import kid
from dgnet_jax.models.inception import HOW_TO_GET_WEIGHTS
from dgnet_jax.runtime.atomic import replacing, write_image
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.reading import STATISTICS_BYTES, check_zip

CHUNK = 256
# Of real images, whose pairs lie side by side by identity.
_PAIRS_AT_ONCE = 2_500

# Images on the host to features.
FeatureFn = Callable[[UInt8[np.ndarray, "n height width 3"]], Float[np.ndarray, "n dim"]]
# Training images to one picture each.
Generate = Callable[[UInt8[np.ndarray, "n rows columns 3"]], Iterable[Pictures]]
Results = dict[str, float | int | bool | str]

# Second word of the seed sequences of the choices of images.
_TRAIN, _GALLERY = 801, 802
_MIN_FEATURES = 4


class RealImages:
    """The images that generated ones are compared with; their features are computed once.

    Attributes:
        images, labels: training images and their identities.
        gallery: images of other people, or None.
        inception, teacher: networks, or None.
        drawn: what a drawn data set depends on, so that its swaps have a truth; else None.
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "n rows columns 3"],
        labels: Int[np.ndarray, " n"],
        gallery: UInt8[np.ndarray, "m gallery_rows gallery_columns 3"] | None = None,
        *,
        inception: InceptionExtractor | None = None,
        teacher: FeatureFn | None = None,
        limit: int = 0,
        seed: int = 0,
        cache: str | Path | None = None,
        drawn: Settings | None = None,
        jpeg: bool = True,
    ) -> None:
        """Takes the images; nothing is computed yet.

        Args:
            images, labels, gallery: as above, of any size in pixels. Leave junk out.
            inception: of FID and KID; None leaves them out.
            teacher: of the Frechet distance in its space and of identity consistency: an evaluator
                that did not train with the generator; None leaves them out.
            limit: at most so many training images and so many gallery images, a seeded choice, as
                if there were no more; 0 takes all.
            seed: of that choice, of diversity's pairs and of KID's subsets.
            cache: an .npz that keeps Inception features of the real images from one process to the
                next. It is checked by a sum over images and weights. Several processes do not use
                it: they must all extract, or none.
            drawn: kept for who measures against the truth.
            jpeg: whether generated images are also measured as JPEG.
        """
        self.seed = seed
        chosen = _choice(len(images), limit, seed, _TRAIN)
        self.images, self.labels = images[chosen], np.asarray(labels)[chosen]
        self.gallery = gallery
        if gallery is not None:
            self.gallery = gallery[_choice(len(gallery), limit, seed, _GALLERY)]
        self.inception, self.teacher, self.drawn = inception, teacher, drawn
        self.jpeg = jpeg
        self._cache = None if cache is None or jax.process_count() > 1 else Path(cache)
        self._stored = _read_cache(self._cache)
        self._features: dict[tuple[str, str], np.ndarray] = {}

    def inception_features(self, split: str) -> Float[np.ndarray, "images dims"]:
        """Of split "train" or "gallery"."""
        assert self.inception is not None
        if ("inception", split) not in self._features:
            images = self._split(split)
            name = f"{self.inception.name} {HEIGHT}x{WIDTH} {_checksum(images)}"
            if name not in self._stored:
                self._stored[name] = self._extract(self.inception, images)
                self._write_cache()
            self._features["inception", split] = self._stored[name]
        return self._features["inception", split]

    def teacher_features(self, split: str) -> Float[np.ndarray, "images dim"]:
        """Of split "train" or "gallery"."""
        assert self.teacher is not None
        if ("teacher", split) not in self._features:
            features = self._extract(self.teacher, self._split(split))
            self._features["teacher", split] = features
        return self._features["teacher", split]

    @cached_property
    def pairs(self) -> Int[np.ndarray, "pairs 2"]:
        """Training images that diversity compares, by their places in `images`."""
        return same_identity_pairs(self.labels, self.seed)

    @cached_property
    def diversity(self) -> float:
        """Of the training images, a few identities in memory at a time."""
        total = 0.0
        for pairs in np.array_split(self.pairs, -(-len(self.pairs) // _PAIRS_AT_ONCE)):
            needed, places = np.unique(pairs, return_inverse=True)
            resized = resize_bicubic(self.images[needed])
            total += len(pairs) * diversity(resized, places.reshape(pairs.shape))
        return total / len(self.pairs)

    def _split(self, split: str) -> UInt8[np.ndarray, "n rows columns 3"]:
        images = self.images if split == "train" else self.gallery
        assert images is not None
        return images

    @staticmethod
    def _extract(
        function: FeatureFn, images: UInt8[np.ndarray, "n rows columns 3"]
    ) -> Float[np.ndarray, "n dim"]:
        parts = [
            function(resize_bicubic(images[start : start + CHUNK]))
            for start in range(0, len(images), CHUNK)
        ]
        return np.concatenate(parts)

    def _write_cache(self) -> None:
        if self._cache is not None:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._cache) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **self._stored)


def evaluate_generated(
    generate: Generate,
    real: RealImages,
    *,
    keep: str | Path | None = None,
) -> Results:
    """Measures a generator by DG-Net's protocol.

    Generated images are measured as they come and not kept, but for those of diversity's pairs:
    up to 98 kB for each training image.

    Args:
        generate: called with `real.images`; yields one picture for every one of them, with its
            appearance, rounded and truncated, in any order and in batches of any size, such as
            `partial(fid_protocol.swapped_training_images, model, seed=seed)`.
        real: the real images and the networks.
        keep: a folder for the pictures, png/INDEX.png and jpeg/INDEX.jpg; None writes nothing.

    Returns:
        A flat dictionary. Counts `generated`, `real`, `gallery`.
        With Inception: `dims`; `fid_png`, ours: all images, levels rounded; if asked for,
        `fid_jpeg`, DG-Net's protocol: `generated_jpeg` images, 12,936 at most, levels truncated, as
        JPEG; with `kid_mean`, `kid_sd`, `kid_jpeg_mean`, `kid_jpeg_sd` over `kid_subsets` of
        `kid_subset_size`; `fid_real` (7.22 in the paper), `kid_real_mean`, `kid_real_sd`, real
        training images against the gallery: the floor;
        `fid_singular`, whether some set is too small for its dims. Without, `inception_missing`
        says how to get it.
        With the teacher: `teacher_frechet` and its floor `teacher_frechet_real`, Frechet distances
        in the space of its features, which are not FID; `teacher_dims`, `teacher_singular`;
        `identity_consistency`, against the training images.
        Where an identity has two images: `diversity` over `diversity_pairs`, `diversity_real` of
        the training images at the same pairs.

    Raises:
        InputError: no image, or `generate` does not give one picture for each.
    """
    if not len(real.images):
        raise InputError("no training image to compare with")
    # Real images first, so that they are not held together with as many generated ones.
    of_real = real.diversity if len(real.pairs) else 0.0
    needed, places = np.unique(real.pairs, return_inverse=True)
    measured = _measure(generate, real, needed, keep)
    order = measured.indices
    if not np.array_equal(np.sort(order), np.arange(len(real.images))):
        raise InputError(
            f"generated images: found {len(order)} for {len(real.images)} training images; one "
            "for each is needed"
        )
    results: Results = {"generated": len(order), "real": len(real.images)}
    if real.gallery is not None:
        results["gallery"] = len(real.gallery)
    if real.inception is None:
        results["inception_missing"] = (
            f"FID and KID are not available: no Inception weights. {HOW_TO_GET_WEIGHTS}"
        )
    else:
        results |= _inception_results(real, measured.png, measured.jpeg)
    if real.teacher is not None:
        results |= _teacher_results(real, measured.teacher, real.labels[order])
    if len(real.pairs):
        results["diversity"] = diversity(measured.pictures, places.reshape(real.pairs.shape))
        results["diversity_real"] = of_real
        results["diversity_pairs"] = len(real.pairs)
    return results


class _Measured(NamedTuple):
    """What is left of the generated images: indices and features, in the order that they came.

    pictures: those asked for, in the order asked. Features are empty, of one axis, without the
    network.
    """

    indices: Int[np.ndarray, " n"]
    png: Float[np.ndarray, "n dims"] | Float[np.ndarray, "0"]
    jpeg: Float[np.ndarray, "n dims"] | Float[np.ndarray, "0"]
    teacher: Float[np.ndarray, "n dim"] | Float[np.ndarray, "0"]
    pictures: UInt8[np.ndarray, "needed height width 3"]


def _measure(
    generate: Generate,
    real: RealImages,
    needed: Int[np.ndarray, " needed"],
    keep: str | Path | None,
) -> _Measured:
    found: dict[str, list[np.ndarray]] = {name: [] for name in _Measured._fields[:-1]}
    kept = np.zeros((len(needed), HEIGHT, WIDTH, 3), np.uint8)
    places = {index: place for place, index in enumerate(needed.tolist())}
    done = 0
    of_jpeg = jpeg_indices(len(real.images) if real.jpeg else 0, real.seed)
    for indices, pictures, truncated in _chunks(generate(real.images)):
        found["indices"].append(indices)
        for index, picture in zip(indices.tolist(), pictures, strict=True):
            if index in places:
                kept[places[index]] = picture
        if keep is not None:
            on_first_process(partial(_save, Path(keep), indices, pictures, truncated))
        if real.inception is not None:
            found["png"].append(real.inception(pictures))
            measured = truncated[np.isin(indices, of_jpeg)]
            if len(measured):
                files = [encode_jpeg(picture) for picture in measured]
                found["jpeg"].append(real.inception(np.stack([decode_jpeg(x) for x in files])))
        if real.teacher is not None:
            found["teacher"].append(real.teacher(pictures))
        done += len(indices)
        logging.log_every_n_seconds(
            logging.INFO, "measured %d of %d generated images", 30, done, len(real.images)
        )
    whole = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in found.items()}
    return _Measured(**whole, pictures=kept)


def _inception_results(
    real: RealImages, png: Float[np.ndarray, "n dims"], jpeg: Float[np.ndarray, "n dims"]
) -> Results:
    train = real.inception_features("train")
    sets = {"png": png} | ({"jpeg": jpeg} if real.jpeg else {})
    if real.gallery is not None:
        sets["real"] = real.inception_features("gallery")
    reference = FeatureStatistics.of(train)
    results: Results = {"dims": reference.dims}
    if real.jpeg:
        results["generated_jpeg"] = len(jpeg)
    singular = reference.singular
    for name, features in sets.items():
        statistics = FeatureStatistics.of(features)
        singular |= statistics.singular
        results[f"fid_{name}"] = reference.distance(statistics)
        if min(len(train), len(features)) >= _MIN_FEATURES:
            prefix = "kid" if name == "png" else f"kid_{name}"
            distance = kid(train, features, seed=real.seed)
            results[f"{prefix}_mean"], results[f"{prefix}_sd"] = distance.mean, distance.sd
            if name == "png":
                results["kid_subsets"] = distance.subsets
                results["kid_subset_size"] = distance.subset_size
    results["fid_singular"] = singular
    return results


def _teacher_results(
    real: RealImages,
    generated: Float[np.ndarray, "n dim"],
    generated_labels: Int[np.ndarray, " n"],
) -> Results:
    train = real.teacher_features("train")
    reference, statistics = FeatureStatistics.of(train), FeatureStatistics.of(generated)
    singular = reference.singular or statistics.singular
    results: Results = {"teacher_frechet": reference.distance(statistics)}
    if real.gallery is not None:
        gallery = FeatureStatistics.of(real.teacher_features("gallery"))
        results["teacher_frechet_real"] = reference.distance(gallery)
        singular |= gallery.singular
    return results | {
        "teacher_dims": reference.dims,
        "teacher_singular": singular,
        "identity_consistency": identity_consistency(
            generated, generated_labels, train, real.labels
        ),
    }


def _chunks(batches: Iterable[Pictures]) -> Iterator[Pictures]:
    """The same images at 256 x 128 in batches of `CHUNK`, so that networks run on full ones."""
    waiting: list[Pictures] = []
    count = 0
    for indices, *both in batches:
        waiting.append(Pictures(np.asarray(indices), *map(resize_bicubic, both)))
        count += len(indices)
        while count >= CHUNK:
            whole = Pictures(*map(np.concatenate, zip(*waiting, strict=True)))
            yield Pictures(*(part[:CHUNK] for part in whole))
            waiting = [Pictures(*(part[CHUNK:] for part in whole))]
            count -= CHUNK
    if count:
        yield Pictures(*map(np.concatenate, zip(*waiting, strict=True)))


def _choice(count: int, limit: int, seed: int, purpose: int) -> np.ndarray | slice:
    if limit < 0:
        raise InputError(f"limit: found {limit}. Give a number of images, or 0 for all.")
    if not 0 < limit < count:
        return slice(None)
    rng = np.random.default_rng([seed, purpose])
    return np.sort(rng.choice(count, limit, replace=False))


def _checksum(images: np.ndarray) -> str:
    shape = "x".join(map(str, images.shape))
    return f"{shape} {zlib.crc32(np.ascontiguousarray(images).data):08x}"


def _read_cache(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        check_zip(path, STATISTICS_BYTES)
        return dict(np.load(path, allow_pickle=False))
    except Exception as error:  # whatever is wrong with it, it can be computed again
        logging.warning("%s: not readable (%s); computed again", path, error)
        return {}


def _save(
    folder: Path,
    indices: Int[np.ndarray, " b"],
    pictures: UInt8[np.ndarray, "b height width 3"],
    truncated: UInt8[np.ndarray, "b height width 3"],
) -> None:
    for kind in ("png", "jpeg"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index, picture, cut in zip(indices, pictures, truncated, strict=True):
        with replacing(folder / "png" / f"{index:06d}.png") as temporary:
            write_image(Image.fromarray(picture), temporary, format="PNG")
        with replacing(folder / "jpeg" / f"{index:06d}.jpg") as temporary:
            temporary.write_bytes(encode_jpeg(cut))
