"""Which images of a data set are combined into a synthetic one: a pure function of the seed."""

from typing import NamedTuple

import numpy as np

from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.data.readers.folders import FOLDERS
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid_protocol import structure_permutation

# Second words of the seed sequences, so that the draws are independent.
_STRUCTURES, _APPEARANCES, _TEST = 601, 602, 603


class Plan(NamedTuple):
    """Rows of a synthetic set, one image each.

    appearance, structure: (n,) indices into the source split.
    identities: (n,), as in the file names of the appearances.
    cameras: (n,), those of the structures, whose backgrounds the pictures keep.
    files: names inside the set.
    """

    appearance: np.ndarray
    structure: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)


def plan_training_set(
    source: CachedSplit, seed: int, count: int | None = None, per_identity: int | None = None
) -> Plan:
    """The training images of a synthetic set.

    Args:
        source: real training images, decoded or not: its images are not read.
        seed: of the choice.
        count: images in total. Every source image gives its appearance and its structure equally
            often (but for one), structures by a new permutation each time. By default the number
            of source images, which is exactly the FID protocol's set.
        per_identity: images of each identity instead: its images' appearances in turn, on
            structures of other images at random.

    Raises:
        InputError: a number below 1, or both numbers.
    """
    if count is not None and per_identity is not None:
        raise InputError("--count and --per_identity: give one of them")
    for flag, number in (("count", count), ("per_identity", per_identity)):
        if number is not None and number < 1:
            raise InputError(f"--{flag}: found {number}, 1 or more is needed")
    if per_identity is None:
        pairs = _in_turn(len(source.identities), count, seed)
    else:
        pairs = _by_identity(source.identities, per_identity, seed)
    return _plan("train", source, *pairs)


def plan_test_set(source: CachedSplit, seed: int, per_identity: int) -> tuple[Plan, Plan]:
    """Queries, one for each identity, and a gallery of the other images of each.

    Args:
        source: real query images: people who are not in the training set.
        per_identity: images of each identity, 2 or more, from different cameras as far as there
            are some, so that every query has a match that counts.
    """
    if per_identity < 2:
        raise InputError(
            f"--test_per_identity: found {per_identity}; 0 for no query and gallery, or 2 or more"
        )
    rng = np.random.default_rng([seed, _TEST])
    cameras = np.unique(source.cameras)
    seen_by = [np.flatnonzero(source.cameras == camera) for camera in cameras]
    appearance, structure = [], []
    for identity in np.unique(source.identities):
        images = rng.permutation(np.flatnonzero(source.identities == identity))
        order = rng.permutation(len(cameras))
        for index in range(per_identity):
            appearance.append(images[index % len(images)])
            structure.append(rng.choice(seen_by[order[index % len(cameras)]]))
    first = np.arange(len(appearance)) % per_identity == 0
    pairs = np.array(appearance), np.array(structure)
    return (
        _plan("query", source, *(array[first] for array in pairs)),
        _plan("gallery", source, *(array[~first] for array in pairs)),
    )


def _in_turn(images: int, count: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    count = images if count is None else count
    repetitions = -(-count // images)
    structure = np.concatenate([structure_permutation(images, seed, r) for r in range(repetitions)])
    appearance = np.tile(np.arange(images), repetitions)
    if count < repetitions * images:
        # Which images are left out of the last repetition is random, not the last people.
        rng = np.random.default_rng([seed, _APPEARANCES])
        start = (repetitions - 1) * images
        last = np.sort(rng.choice(images, count - start, replace=False))
        kept = np.concatenate([np.arange(start), start + last])
        appearance, structure = appearance[kept], structure[kept]
    # Images of one appearance lie together: its code is computed once.
    order = np.argsort(appearance, kind="stable")
    return appearance[order], structure[order]


def _by_identity(
    identities: np.ndarray, per_identity: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    images = len(identities)
    if images < 2:
        raise InputError("--per_identity: at least 2 source images are needed")
    rng = np.random.default_rng([seed, _STRUCTURES])
    appearance = []
    for identity in np.unique(identities):
        own = rng.permutation(np.flatnonzero(identities == identity))
        appearance.append(np.sort(np.resize(own, per_identity)))
    chosen = np.concatenate(appearance)
    # Any image but the appearance's own.
    structure = rng.integers(images - 1, size=len(chosen))
    return chosen, structure + (structure >= chosen)


def _plan(split: str, source: CachedSplit, appearance: np.ndarray, structure: np.ndarray) -> Plan:
    identities, cameras = source.identities[appearance], source.cameras[structure]
    # In this form of names 0 and -1 are nobody; some data sets count people from 0.
    shift = max(0, 1 - int(source.identities.min()))
    files = tuple(
        f"{FOLDERS[split]}/{market_name(int(identity) + shift, int(camera), index)}"
        for index, (identity, camera) in enumerate(zip(identities, cameras, strict=True))
    )
    return Plan(appearance, structure, identities, cameras, files)


def market_name(identity: int, camera: int, index: int) -> str:
    """A file name in Market-1501's form; (frame, box) is the image's number in the set.

    With more than 6 cameras or 9,999 people `data.name=folder` reads it, `market1501` does not.
    """
    box, frame = divmod(index, 10**6)
    return f"{identity:04d}_c{camera}s1_{frame:06d}_{box:02d}.jpg"
