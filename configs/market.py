"""DG-Net on Market-1501.

    python launch.py --config=configs/market.py:l1_rmse \
        --config.data.root=DIR/Market-1501-v15.09.15 --workdir=runs/l1_rmse

is the published recipe at full size with the L1 + RMSE reconstruction loss: 100,000 steps of batch
8 at 256 x 128, after a ResNet-50 teacher. Give `--config.pretrained` ImageNet weights for the
published numbers (DG-Net: Rank@1 94.8, mAP 86.0; thesis, L1 + RMSE: FID 15.63, Rank@1 91.42).

    python launch.py --config=configs/market.py:l1_rmse,small --config.data.root=DIR ...

keeps the images at their native 128 x 64 and shrinks the networks for a CPU or a first look; the
flag `medium` in its place shrinks them less, for a few minutes of one GPU.

    python launch.py --config=configs/market.py:baseline --config.data.root=DIR \
        --config.data.generated=GENERATED --workdir=runs/baseline

trains the re-ID baseline alone, on real images and a generated data set.
"""

import ml_collections

from configs import base
from configs.medium import medium
from configs.small import small


def baseline(config: ml_collections.ConfigDict) -> None:
    """The re-ID baseline (the teacher) alone, on real images or on --config.data.generated."""
    config.baseline = True


FLAGS = {"small": small, "medium": medium, "baseline": baseline}


def get_config(variant: str = "l1") -> ml_collections.ConfigDict:
    """`variant`: a reconstruction loss, then flags: "l1_rmse,small"."""
    return base.apply_variant(base.get_config(), variant, FLAGS)
