"""Drawn people at 128 x 64: the networks whose weights come with the repository (demo/).

    python launch.py --config=configs/drawn.py:l1_rmse --workdir=runs/drawn

draws 1,500 people (12,000 images) and trains on them, then measures swaps of people that training
has not seen against their truth. It is made for a GPU.
"""

import ml_collections

from configs import base
from configs.small import small


def get_config(variant: str = "l1") -> ml_collections.ConfigDict:
    """`variant`: a reconstruction loss, such as "l1_rmse"."""
    config = base.get_config()
    small(config)
    config.data.name = "quickstart"
    # Where the data set is drawn, and what `data.synthetic.draw_dataset` gets.
    config.data.root = "runs/drawn_data"
    config.data.drawing = ml_collections.ConfigDict(
        {
            "seed": 0,
            "train_identities": 1500,
            "test_identities": 60,
            "images_per_identity_camera": 2,
        }
    )
    # Between `small`, whose swaps stay blurred, and the published 16: 1.6 million parameters.
    config.structure_encoder.dim = 12
    config.structure_encoder.num_residual = 4
    config.structure_encoder.dilations = (3, 6, 9)
    config.decoder.num_residual = 4
    config.discriminator.dim = 16
    config.discriminator.num_residual = 2
    config.teacher.total_steps = 1_500
    config.teacher.milestones = (1_000, 1_350)
    config.batch_size = 16
    config.total_steps = 6_000
    config.optimizer.milestones = (4_500, 5_600)
    config.evaluation.every_steps = -1
    config.log.every_steps = 100
    config.log.image_every_steps = 1_500
    config.log.checkpoint_every_steps = 1_500
    config.report = True
    return base.apply_variant(config, variant, {})
