"""What the builders have in common."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dgnet_jax.data.readers.datasets import READERS
from dgnet_jax.data.records.prepared import LISTING, VERSION
from dgnet_jax.data.splits import Split
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import printable


class ReidBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Stores the files of a reader's data set, as they are and in its order.

    Identities, cameras and file names are in each record, and once more as lists in
    metadata.json, so that opening a data set does not read its images.
    """

    VERSION = tfds.core.Version(VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The data set's folder, as --config.data.root takes it."

    def __init__(self, *, root: str | os.PathLike[str] | None = None, **arguments: Any) -> None:
        """`root`: what the reader takes; by default TFDS's manual_dir."""
        self._root = root
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Person re-identification data set {self.name}; {type(self).__doc__}",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "identity": tfds.features.Scalar(np.int32),
                    "camera": tfds.features.Scalar(np.int32),
                    "file": tfds.features.Text(),
                }
            ),
            # The order of the files is part of a run: its batches are positions in the data set.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        dataset = READERS[self.name](dl_manager.manual_dir if self._root is None else self._root)
        self.info.metadata[LISTING] = {
            name: {
                "files": list(split.files),
                "identities": split.identities.tolist(),
                "cameras": split.cameras.tolist(),
            }
            for name, split in dataset.splits.items()
        }
        return {name: self._generate_examples(split) for name, split in dataset.splits.items()}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
        for i, file in enumerate(split.files):
            if printable(file) != file:
                raise InputError(
                    f"{printable(split.paths[i])}: the name is not valid UTF-8, which records "
                    "need; rename the file"
                )
            try:
                image = split.read_bytes(i)
            except OSError as error:
                raise InputError(
                    f"{split.paths[i]}: cannot be read ({error}). Copy the data set again"
                ) from error
            yield (
                i,
                {
                    "image": image,
                    "identity": split.identities[i],
                    "camera": split.cameras[i],
                    "file": file,
                },
            )
