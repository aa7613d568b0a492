"""The real configuration shrunk until a step compiles in seconds, and runs of it in processes."""

import ml_collections

from configs import base


def tiny_config(**fields: object) -> ml_collections.ConfigDict:
    """The published configuration with tiny networks on 32 x 16 images.

    Every term is active from step 2 on. `fields` override: tiny_config(**{"teacher.decay": 0.5}).
    """
    config = base.get_config()
    config.total_steps = 6
    config.batch_size = 2
    config.data.height, config.data.width = 32, 16
    config.data.cache_height, config.data.cache_width = 32, 16
    config.augment.pad = 2
    config.structure_encoder.dim = 4
    config.structure_encoder.num_residual = 1
    config.structure_encoder.dilations = (1, 2, 3)
    config.decoder.num_residual = 2
    config.decoder.mlp_width = 8
    config.discriminator.dim = 4
    config.discriminator.num_residual = 1
    config.discriminator.num_scales = 2
    for network in (config.appearance, config.teacher):
        network.bottleneck = False
        network.stem = "strided"
        network.stage_sizes = (1, 1)
        network.stage_widths = (4, 8)
        network.last_stride = 1
        network.embedding = 8
    config.appearance.init = "teacher"
    config.teacher.batch_size = 8
    config.teacher.total_steps = 6
    config.ramp.start, config.ramp.scale = 0, 0.1
    config.evaluation.batch_size = 16
    config.evaluation.every_steps = 0
    config.log.every_steps = 1
    config.log.image_every_steps = 1000
    config.log.image_rows = 2
    config.log.checkpoint_every_steps = 2
    config.update_from_flattened_dict(fields)
    return config
