"""DG-Net on your own images, in folders or listed in a table.

    python launch.py --config=configs/custom.py:l1_rmse --config.data.root=FOLDER --workdir=runs/own

reads FOLDER/bounding_box_train, FOLDER/query and FOLDER/bounding_box_test, whose files are named
after identity and camera (0017_c12_001.png). A table with the columns path, identity, camera and
split (train, query or gallery) takes any folders and names:

    python launch.py --config=configs/custom.py:l1_rmse,csv --config.data.root=TABLE.csv \
        --workdir=runs/own

Every image needs a camera: see `dgnet_jax/data/readers/own.py`, which says all about both forms.

Steps and schedules are Market-1501's (13,000 images of 751 people); with far fewer images fewer
steps will do: `--config.total_steps`, `--config.teacher.total_steps` and both `milestones`. Images
are kept in memory at 256 x 128, 98 kB each. The flag `small` (`custom.py:l1_rmse,small`) keeps
128 x 64 and shrinks the networks for a CPU or a first look, `medium` less, for one GPU.
"""

import ml_collections

from configs import base
from configs.medium import medium
from configs.small import small


def csv(config: ml_collections.ConfigDict) -> None:
    """A table in the place of folders."""
    config.data.name = "csv"


FLAGS = {"csv": csv, "small": small, "medium": medium}


def get_config(variant: str = "l1") -> ml_collections.ConfigDict:
    """`variant`: a reconstruction loss, then flags: "l1_rmse,csv,small"."""
    config = base.get_config()
    config.data.name = "folder"
    config.data.cache_height, config.data.cache_width = 256, 128
    return base.apply_variant(config, variant, FLAGS)
