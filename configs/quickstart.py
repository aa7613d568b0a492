"""A first run without any data: draws pedestrians, trains a teacher and a small DG-Net on them.

    python launch.py --config=configs/quickstart.py:l1_rmse --workdir=runs/quickstart

takes under 4 minutes on 2 CPU cores, compilation included, and ends with a table, pictures in
runs/quickstart/pictures and a page with all of it, runs/quickstart/report/index.html. The drawn
people are easy to distinguish: the figures show that everything works, not how good the method is.
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
    config.data.root = "runs/quickstart_data"
    # Many people in few images each: what is learnt has to hold for people never seen.
    config.data.drawing = ml_collections.ConfigDict(
        {"seed": 0, "train_identities": 120, "images_per_identity_camera": 2}
    )
    config.data.height, config.data.width = 64, 32
    config.data.cache_height, config.data.cache_width = 64, 32
    config.augment.pad = 3
    config.structure_encoder.num_residual = 1
    config.structure_encoder.dilations = (2,)
    config.discriminator.num_scales = 2
    for network in (config.appearance, config.teacher):
        network.stage_sizes = (1, 1, 1)
        network.stage_widths = (32, 64, 128)
        network.embedding = 128
    config.teacher.batch_size = 32
    config.teacher.total_steps = 200
    config.teacher.learning_rate = 0.05
    config.teacher.warmup_steps = 20
    config.teacher.milestones = (130, 180)
    # More steps are worth more than larger batches; batches of 2 diverge.
    config.batch_size = 4
    config.total_steps = 400
    config.ramp.generated_identity_start = 40
    config.ramp.generated_identity_steps = 150
    # Twice as fast as `small`, with momentum against the noise.
    config.optimizer.generator_learning_rate = 2e-3
    config.optimizer.beta1 = 0.5
    config.optimizer.milestones = (305, 370)
    config.evaluation.batch_size = 64
    config.evaluation.every_steps = 0
    config.log.every_steps = 25
    config.log.image_every_steps = 400
    config.log.image_rows = 6
    config.log.checkpoint_every_steps = 200
    config.report = True
    return base.apply_variant(config, variant, {})
