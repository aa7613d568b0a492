"""DG-Net on CUHK03-NP.

    python launch.py --config=configs/cuhk03.py:l1 \
        --config.data.root=DIR/CUHK03-NP --workdir=runs/cuhk03

is the published recipe, that of Market-1501, with 767 identities and a teacher of 60 epochs, on the
detected boxes; `cuhk03.py:l1,labeled` takes those drawn by hand. Give `--config.pretrained`
ImageNet weights for the published numbers (DG-Net: Rank@1 65.6, mAP 61.1).

The images vary in size and are kept at 256 x 128: 0.7 GB of memory for the training images and
0.7 GB for query and gallery. The flag `small` (`cuhk03.py:l1,small`) keeps 128 x 64, a quarter of
it, and shrinks the networks for a CPU or a first look, `medium` less, for one GPU.
"""

import ml_collections

from configs import base
from configs.medium import medium
from configs.small import small


def labeled(config: ml_collections.ConfigDict) -> None:
    """Boxes drawn by hand in the place of a detector's."""
    config.data.name = "cuhk03_labeled"


FLAGS = {"labeled": labeled, "small": small, "medium": medium}


def get_config(variant: str = "l1") -> ml_collections.ConfigDict:
    """`variant`: a reconstruction loss, then flags: "l1_rmse,labeled,small"."""
    config = base.get_config()
    config.data.name = "cuhk03_detected"
    config.data.cache_height, config.data.cache_width = 256, 128
    # 60 epochs of 7,365 images; the learning rate falls after 40.
    config.teacher.total_steps = 13_809
    config.teacher.milestones = (9_206,)
    return base.apply_variant(config, variant, FLAGS)
