"""DG-Net on MSMT17.

    python launch.py --config=configs/msmt17.py:l1 \
        --config.data.root=DIR/MSMT17_V1 --workdir=runs/msmt17

is the published recipe: Market-1501's with 1,041 identities, 150,000 steps, the last 45,000 of them
with a thousandth of the learning rates, and a teacher of 60 epochs. Give `--config.pretrained`
ImageNet weights for the published numbers (DG-Net: Rank@1 77.2, mAP 52.3).

The images vary in size and are kept at 256 x 128: 3.2 GB of memory for the training images and,
from the first evaluation on, 9.2 GB for query and gallery, in each process. Where that is too much,
`--config.data.cache_height=128 --config.data.cache_width=64` keeps a quarter of it, at the price of
detail; so do the flags `small` (`msmt17.py:l1,small`) and `medium`, which shrink the networks too.
"""

import ml_collections

from configs import base
from configs.medium import medium
from configs.small import small

FLAGS = {"small": small, "medium": medium}


def get_config(variant: str = "l1") -> ml_collections.ConfigDict:
    """`variant`: a reconstruction loss, then flags: "l1_rmse,small"."""
    config = base.get_config()
    config.data.name = "msmt17"
    config.data.cache_height, config.data.cache_width = 256, 128
    config.total_steps = 150_000
    # 60 epochs of 32,621 images; the learning rate falls after 40.
    config.teacher.total_steps = 61_164
    config.teacher.milestones = (40_776,)
    return base.apply_variant(config, variant, FLAGS)
