"""The flag `small` of the data sets' config files: a size for a CPU or a first look."""

import ml_collections


def small(config: ml_collections.ConfigDict) -> None:
    """128 x 64 images and narrow networks, trained from scratch in 70 to 90 minutes on 2 cores."""
    config.data.height, config.data.width = 128, 64
    config.data.cache_height, config.data.cache_width = 128, 64
    config.augment.pad = 5
    config.augment.erasing_probability = 0.0
    config.structure_encoder.dim = 4
    config.structure_encoder.num_residual = 2
    config.decoder.num_residual = 2
    config.decoder.mlp_width = 128
    config.discriminator.dim = 8
    config.discriminator.num_residual = 1
    for network in (config.appearance, config.teacher):
        network.bottleneck = False
        network.stem = "strided"
        network.stage_sizes = (1, 1, 1, 1)
        network.stage_widths = (32, 64, 128, 256)
        network.last_stride = 1
        network.pooling = "max"
        network.embedding = 256
    config.appearance.init = "teacher"
    config.appearance.dropout_prime = config.appearance.dropout_fine = 0.2
    config.teacher.dropout = 0.2
    # 8 epochs of Market-1501.
    config.teacher.batch_size = 64
    config.teacher.total_steps = 1_600
    config.teacher.learning_rate = 0.1
    config.teacher.backbone_factor = 1.0
    config.teacher.warmup_steps = 100
    config.teacher.milestones = (1_100, 1_450)
    config.teacher.erasing_probability = 0.0
    config.total_steps = 3_000
    # What makes clothes change within some thousand steps, found on drawn people by measuring
    # swaps against their truth (benchmarks/results). A gray picture has the brightness of the
    # structure image's clothes, and both reconstructions reward taking it from there.
    # - The paper's equations: images teach E_a what its codes have to hold of the clothes. With
    #   the released program's cut 56 to 85 % as much of the colours moved, of brightness less.
    config.appearance.cut_gradient = False
    # - Only the identity of generated images asks for the appearance's brightness. With its full
    #   weight from the start it outweighs the reconstruction, and all images turn into one gray.
    config.ramp.generated_identity_start = 300
    config.ramp.generated_identity_steps = 600
    # - D learns little in so few steps.
    config.weights.gan = 0.2
    config.optimizer.generator_learning_rate = 1e-3
    # - All terms from the first step on: one program to compile instead of two.
    config.ramp.start = -2
    config.ramp.scale = 0.02
    config.optimizer.discriminator_learning_rate = 2e-4
    config.optimizer.appearance_learning_rate = 0.003
    config.optimizer.milestones = (2_300, 2_800)
    config.evaluation.batch_size = 256
    config.evaluation.every_steps = 800
    config.log.every_steps = 20
    config.log.image_every_steps = 200
    config.log.checkpoint_every_steps = 200
