"""Market-1501 (Zheng et al., ICCV 2015): 1,501 people, 6 cameras, 128 x 64 JPEGs."""

import os
import re

from dgnet_jax.data.readers.counts import Counts
from dgnet_jax.data.readers.folders import FolderNaming, read_folders
from dgnet_jax.data.splits import ReidDataset

FOLDER_NAME = "Market-1501-v15.09.15"
EXAMPLE_NAME = "0002_c1s1_000451_03.jpg"

# Section 4 of Zheng et al.; the gallery counts 13,115 images of the 750 test people, 2,798
# distractors and 3,819 junk images.
PUBLISHED = Counts(train=12_936, query=3_368, gallery=19_732, train_identities=751, cameras=6)

_WHAT_IT_IS = f"""\
Market-1501 is a person re-identification data set of 1,501 people seen by 6 cameras (Zheng et al.,
Scalable Person Re-identification: A Benchmark, ICCV 2015). It is for research only and comes from
its authors. --config.data.root names its folder, that folder's parent, or the .zip as downloaded.
Expected:

    {FOLDER_NAME}/
      bounding_box_train/  12,936 images such as {EXAMPLE_NAME}
      query/                3,368 images
      bounding_box_test/   19,732 images
      gt_bbox/             25,259 images, for multi-query evaluation; may be missing

Without it, configs/quickstart.py draws its own pedestrians and needs no data."""

MARKET1501 = FolderNaming(
    name="market1501",
    title="Market-1501",
    folder_name=FOLDER_NAME,
    # Identity, camera, sequence, frame, box. 28 files of the original release end in .jpg.jpg.
    pattern=re.compile(r"(-1|\d{4})_c([1-6])s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?", re.ASCII),
    example=EXAMPLE_NAME,
    what_it_is=_WHAT_IT_IS,
    nobody=True,
    multi_query="gt_bbox",
)


def read_market1501(root: str | os.PathLike[str]) -> ReidDataset:
    """Lists Market-1501.

    Args:
        root: the extracted folder, its parent, or the zip, which is read in place.

    Raises:
        InputError: see `folders.read_folders`.
    """
    return read_folders(MARKET1501, root)
