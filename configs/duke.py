"""DG-Net on DukeMTMC-reID, for those who hold a copy (its authors have withdrawn it).

    python launch.py --config=configs/duke.py:l1 \
        --config.data.root=DIR/DukeMTMC-reID --workdir=runs/duke

is the published recipe, that of Market-1501, with 702 identities and a teacher of 60 epochs. Give
`--config.pretrained` ImageNet weights for the published numbers (DG-Net: Rank@1 86.6, mAP 74.8;
thesis, L1: FID 20.84, Rank@1 81.19, mAP 67.33).

The images vary in size and are kept at 256 x 128: 1.6 GB of memory for the training images and
2.0 GB for query and gallery. The flag `small` (`duke.py:l1,small`) keeps 128 x 64, a quarter of
it, and shrinks the networks for a CPU or a first look, `medium` less, for one GPU.
"""

import ml_collections

from configs import base
from configs.medium import medium
from configs.small import small

FLAGS = {"small": small, "medium": medium}


def get_config(variant: str = "l1") -> ml_collections.ConfigDict:
    """`variant`: a reconstruction loss, then flags: "l1_rmse,small"."""
    config = base.get_config()
    config.data.name = "duke"
    config.data.cache_height, config.data.cache_width = 256, 128
    # 60 epochs of 16,522 images; the learning rate falls after 40.
    config.teacher.total_steps = 30_979
    config.teacher.milestones = (20_653,)
    return base.apply_variant(config, variant, FLAGS)
