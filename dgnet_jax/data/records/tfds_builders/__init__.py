"""Builders for TensorFlow Datasets, one for each reader; TensorFlow itself is not needed.

Importing this package registers them, under the values of `data.name`:

    import tensorflow_datasets as tfds
    import dgnet_jax.data.records.tfds_builders

    source = tfds.data_source(
        "market1501", split="train", data_dir=DATA_DIR,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    source[0]  # {"image": the encoded file, "identity": 2, "camera": 1, "file": "bounding_box_..."}

`python -m dgnet_jax.data.prepare` writes what they read.
"""

from dgnet_jax.data.records.tfds_builders.builders import (
    Csv,
    Cuhk03Detected,
    Cuhk03Labeled,
    Duke,
    Folder,
    Market1501,
    Msmt17,
)
from dgnet_jax.data.records.tfds_builders.reid import ReidBuilder

__all__ = [
    "BUILDERS",
    "Csv",
    "Cuhk03Detected",
    "Cuhk03Labeled",
    "Duke",
    "Folder",
    "Market1501",
    "Msmt17",
    "ReidBuilder",
]

BUILDERS: dict[str, type[ReidBuilder]] = {
    builder.name: builder
    for builder in (Market1501, Duke, Msmt17, Cuhk03Detected, Cuhk03Labeled, Folder, Csv)
}
