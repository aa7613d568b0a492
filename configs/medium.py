"""The flag `medium` of the data sets' config files: a size for ten minutes of one GPU."""

import ml_collections

from configs.small import small


def medium(config: ml_collections.ConfigDict) -> None:
    """`small` at twice the width and batch, in bfloat16: clothes change visibly on Market-1501.

    Trained from scratch. benchmarks/results has what it reached and the time it took.
    """
    small(config)
    config.dtype = "bfloat16"
    # The published widths of the generator, but for the discriminator's and the MLPs'.
    config.structure_encoder.dim = 16
    config.structure_encoder.num_residual = 4
    config.decoder.num_residual = 4
    config.decoder.mlp_width = 256
    config.discriminator.dim = 16
    config.discriminator.num_residual = 2
    # As deep as ResNet-18: what asks for the clothes of generated images is the identity that E_a
    # sees in them.
    for network in (config.appearance, config.teacher):
        network.stage_sizes = (2, 2, 2, 2)
        network.stage_widths = (48, 96, 192, 384)
    # 30 epochs of Market-1501.
    config.teacher.total_steps = 6_000
    config.teacher.milestones = (4_000, 5_500)
    config.batch_size = 16
    config.total_steps = 5_000
    config.optimizer.milestones = (3_700, 4_700)
    config.evaluation.every_steps = 0
    config.log.every_steps = 50
    config.log.image_every_steps = 1_000
    config.log.checkpoint_every_steps = 1_000
