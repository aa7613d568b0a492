"""CUHK03-NP: CUHK03 (Li et al., CVPR 2014) in the protocol of Zhong et al. (CVPR 2017).

767 people to train on and 700 to test, 2 cameras, PNGs of varying size, in two versions: boxes
that a detector found, and boxes that were drawn by hand.
"""

import re

from dgnet_jax.data.readers.counts import Counts
from dgnet_jax.data.readers.folders import FolderNaming

PUBLISHED_DETECTED = Counts(7_365, 1_400, 5_332, train_identities=767, cameras=2)
PUBLISHED_LABELED = Counts(7_368, 1_400, 5_328, train_identities=767, cameras=2)

_WHAT_IT_IS = """\
CUHK03-NP is CUHK03 (Li et al., DeepReID, CVPR 2014) divided as in Zhong et al., Re-ranking Person
Re-identification with k-reciprocal Encoding, CVPR 2017: 767 people to train on, 700 to test. It is
for research only and comes from its authors. --config.data.root names its folder, that folder's
parent, or the .zip; data.name is cuhk03_detected or cuhk03_labeled. Expected:

    CUHK03-NP/
      detected/
        bounding_box_train/  7,365 images such as 0001_c1_1.png
        query/               1,400 images
        bounding_box_test/   5,332 images
      labeled/
        bounding_box_train/  7,368 images
        query/               1,400 images
        bounding_box_test/   5,328 images

The folder of one version may be given as well."""


def _naming(version: str, spellings: tuple[str, ...]) -> FolderNaming:
    return FolderNaming(
        name=f"cuhk03_{version}",
        title=f"CUHK03-NP ({version})",
        folder_name="CUHK03-NP",
        # Copies differ in the number of digits and in the format; no other data set fits.
        pattern=re.compile(r"(\d{1,9})_c([1-9]\d?)(?:_\d+)*\.(?:png|jpe?g)", re.ASCII),
        example="0001_c1_1.png",
        what_it_is=_WHAT_IT_IS,
        versions=spellings,
    )


DETECTED = _naming("detected", ("detected", "Detected"))
LABELED = _naming("labeled", ("labeled", "Labeled", "labelled"))
