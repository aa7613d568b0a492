"""Configurations: every hyper-parameter with its published value, variants of it, a run's own.

`configs/market.py`, `configs/quickstart.py` and the others, and a user's own files, start from
`default_config` and take arguments after a colon, a reconstruction loss first, then flags:

    python launch.py --config=configs/market.py:l1_rmse,small --config.total_steps=2000

Any field can be overridden as `--config.field.name=value`. Published values: DG-Net (CVPR 2019);
docs/method.md.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_collections
from safetensors import SafetensorError, safe_open

from dgnet_jax.errors import InputError
from dgnet_jax.losses import canonical_expression
from dgnet_jax.runtime.workdir import from_json, load_config

CONFIG_KEY = "config"
"""Of a .safetensors file's metadata: the configuration of the run that it is of, as JSON."""


def default_config() -> ml_collections.ConfigDict:
    """The full-size network and the published recipe, for Market-1501's format of data."""
    config = ml_collections.ConfigDict()

    # Of everything random: initialisation, sampling, augmentation, dropout, the coin.
    config.seed = 0
    # Steps of DG-Net training; one step sees batch_size images in each of the two directions.
    config.total_steps = 100_000
    # Images per direction and step, over all devices together.
    config.batch_size = 8
    # R, used for images, structure codes, appearance codes and the cycle (thesis, chapter 4):
    # a name (l1, mse, rmse, mrae, cos, huber, ml), a fusion (l1_rmse, ...) or "0.5*l1+2*rmse".
    config.reconstruction_loss = "l1"
    # "lsgan" (least squares) or "nsgan" (non-saturating cross-entropy).
    config.gan_loss = "lsgan"
    # Of convolutions and matmuls: "float32", "bfloat16" or "float64". Parameters, statistics,
    # losses and optimisers stay in float32 under "bfloat16".
    config.dtype = "float32"
    # How a step is spread over devices: "mesh" (jit over all of them, batch norms of the whole
    # batch) or "pmap" (each normalises its own images, as the released program on several GPUs).
    config.parallel = "mesh"
    # ImageNet weights of the backbones (E_a's, the teacher's), a .safetensors file in
    # torchvision's naming (from `python -m dgnet_jax.convert`); "" starts from scratch.
    config.pretrained = ""
    # A trained DG-Net to evaluate and generate with in the place of the work directory's: a
    # .safetensors file with a released checkpoint (`python -m dgnet_jax.convert FOLDER OUT`), or
    # with a run (`--to-safetensors`).
    config.released = ""
    # The FID Inception, a .safetensors file (`python -m dgnet_jax.convert
    # pt_inception-2015-12-05-6726825d.pth OUT`); "" leaves FID and KID out.
    config.inception = ""
    # True: trains config.teacher alone, the re-ID baseline, on real or generated images.
    config.baseline = False
    # True: a training ends with a page of its curves and pictures, WORKDIR/report/index.html.
    config.report = False
    # Parts that stay as initialised: any of "structure_encoder", "decoder",
    # "appearance_encoder", "discriminator".
    config.freeze = ()

    data = config.data = ml_collections.ConfigDict()
    # Reader of the data set: "market1501", "duke", "msmt17", "cuhk03_detected", "cuhk03_labeled";
    # "folder" or "csv", one's own; or "quickstart", which draws its own pedestrians.
    data.name = "market1501"
    # The extracted folder, its parent, or the .zip; of "csv" the table; or where
    # `python -m dgnet_jax.data.prepare` has put the data set, a folder or gs://BUCKET/...
    data.root = ""
    # Of the baseline: a data set of --mode=generate --task=dataset to train on, or ""; its labels,
    # "soft" (the teacher's), "lsro" (uniform) or "identity" (the appearance's); and whether the
    # real training images are trained on, too.
    data.generated = ""
    data.generated_labels = "soft"
    data.real = True
    # Of --mode=evaluate: files of the gallery images' joints (NAME:KEYPOINTS_Y:KEYPOINTS_X, as
    # pose-transfer programs share them), separated by commas. They find the garments whose colours
    # are measured; "" uses fixed bands.
    data.poses = ""
    # Rows and columns of the network's images, in pixels.
    data.height = 256
    data.width = 128
    # Rows and columns of the decoded images kept in memory, in pixels (Market-1501's own size).
    data.cache_height = 128
    data.cache_width = 64

    augment = config.augment = ml_collections.ConfigDict()
    augment.mirror_probability = 0.5
    # Pixels of edge values added on each side before the random crop.
    augment.pad = 10
    # Random erasing of the images whose identity logits are taken; probability 0 turns it off
    # and saves the second pass of E_a.
    augment.erasing_probability = 0.5
    # Erased share of the image, and the smallest ratio of height to width (the largest is 1 / it).
    augment.erasing_area = (0.02, 0.4)
    augment.erasing_aspect = 0.3
    augment.erasing_attempts = 100

    structure = config.structure_encoder = ml_collections.ConfigDict()
    # Channels of the first convolution; the structure code has 8 * dim.
    structure.dim = 16
    structure.num_residual = 4
    structure.dilations = (3, 6, 9)

    decoder = config.decoder = ml_collections.ConfigDict()
    # AdaIN blocks; block i reads slice i of the appearance code, so this divides parts * channels.
    decoder.num_residual = 4
    # Hidden width of the MLPs that turn the appearance code into AdaIN's scales and shifts.
    decoder.mlp_width = 512

    discriminator = config.discriminator = ml_collections.ConfigDict()
    discriminator.dim = 32
    discriminator.num_residual = 4
    discriminator.num_scales = 3
    # Weight of the mean squared norm of D's gradient at real images.
    discriminator.gradient_penalty = 0.01

    appearance = config.appearance = ml_collections.ConfigDict()
    # Start of E_a's backbone: "imagenet" (config.pretrained; from scratch if that is empty) or
    # "teacher".
    appearance.init = "imagenet"
    # ResNet-50 is bottleneck blocks, 3-4-6-3, with stem "resnet".
    appearance.bottleneck = True
    appearance.stage_sizes = (3, 4, 6, 3)
    appearance.stage_widths = (64, 128, 256, 512)
    appearance.stem = "resnet"
    appearance.last_stride = 1
    # Horizontal stripes of the appearance code.
    appearance.parts = 4
    # "max" or "average", of the code and of the heads' input.
    appearance.pooling = "max"
    appearance.embedding = 512
    appearance.dropout_prime = 0.5
    appearance.dropout_fine = 0.75
    # True: the image losses never train E_a (the released program). False: the paper's equations.
    appearance.cut_gradient = True
    # True: the frozen copy of E_a and the teacher normalise generated images with batch
    # statistics; False: with running statistics.
    appearance.train_bn = True

    teacher = config.teacher = ml_collections.ConfigDict()
    # A work directory whose teacher is used, or the released program's net_last.pth converted by
    # `python -m dgnet_jax.convert`; "" trains one in this run's work directory.
    teacher.checkpoint = ""
    # 0 soft labels, 1 one-hot of their argmax, 2 the appearance's identity, 3 uniform (LSRO),
    # 4 soft labels restricted to the two source identities.
    teacher.label_style = 0
    teacher.bottleneck = True
    teacher.stage_sizes = (3, 4, 6, 3)
    teacher.stage_widths = (64, 128, 256, 512)
    teacher.stem = "resnet"
    teacher.last_stride = 2
    teacher.pooling = "average"
    teacher.embedding = 512
    teacher.dropout = 0.5
    # Its training: cross-entropy, SGD with Nesterov momentum, 60 epochs of Market-1501 with the
    # learning rate times 0.1 after 40. The backbone learns at a tenth of the head's rate.
    teacher.total_steps = 24_255
    teacher.batch_size = 32
    teacher.learning_rate = 0.05
    teacher.backbone_factor = 0.1
    teacher.momentum = 0.9
    teacher.weight_decay = 5e-4
    # Steps in which the rate rises linearly, from a warmup_steps-th of it.
    teacher.warmup_steps = 0
    teacher.milestones = (16_170,)
    teacher.decay = 0.1
    teacher.erasing_probability = 0.5

    weights = config.weights = ml_collections.ConfigDict()
    weights.gan = 1.0
    weights.self_reconstruction = 5.0
    weights.same_identity_reconstruction = 5.0
    weights.identity = 1.0
    weights.same_identity = 1.0
    weights.generated_identity = 0.5
    # Largest values of the ramped weights.
    weights.structure_code = 1.0
    weights.appearance_code = 1.0
    weights.cycle = 2.0
    weights.teacher = 2.0
    # Of the fine head's cross-entropies, relative to the teacher term.
    weights.fine = 0.2

    ramp = config.ramp = ml_collections.ConfigDict()
    # A ramped weight at step t is scale * (t - start), at most the weight above; 0 until start.
    ramp.start = 30_000
    ramp.scale = 5e-4
    # weights.generated_identity rises linearly in so many steps, from a step on before which it is
    # 0; without steps (as published) it is constant.
    ramp.generated_identity_start = 0
    ramp.generated_identity_steps = 0

    optimizer = config.optimizer = ml_collections.ConfigDict()
    # Adam of the generator (E_s, decoder, MLPs) and of the discriminator.
    optimizer.generator_learning_rate = 1e-4
    optimizer.discriminator_learning_rate = 1e-4
    optimizer.beta1 = 0.0
    optimizer.beta2 = 0.999
    optimizer.epsilon = 1e-8
    # SGD with Nesterov momentum of E_a: its backbone, and its heads at head_factor times the rate.
    optimizer.appearance_learning_rate = 0.002
    optimizer.head_factor = 10.0
    optimizer.momentum = 0.9
    # L2, added to the gradient of every parameter.
    optimizer.weight_decay = 5e-4
    # All learning rates are multiplied by decay at these steps.
    optimizer.milestones = (60_000, 90_000)
    optimizer.decay = 0.1

    evaluation = config.evaluation = ml_collections.ConfigDict()
    # Images a batch of feature extraction.
    evaluation.batch_size = 64
    # Score = prime . prime + alpha * fine . fine.
    evaluation.alpha = 0.5
    # Of --mode=evaluate: whether k-reciprocal re-ranking (Zhong et al., CVPR 2017) is a row of the
    # table, and its settings. It takes about ten times as long as ranking.
    evaluation.rerank = True
    evaluation.rerank_k1 = 20
    evaluation.rerank_k2 = 6
    evaluation.rerank_lambda = 0.3
    # Of --mode=evaluate: whether generated images are measured too (FID, KID, diversity, identity
    # consistency): one image for each training image is painted.
    evaluation.generated_images = True
    # Length of FID's features: 64, 192, 768 or 2048 (the published one).
    evaluation.fid_dims = 2048
    # Training images, and gallery images, that FID takes: a seeded choice; 0 takes all.
    evaluation.fid_images = 0
    # Whether generated images are also measured as JPEG, as published; half of FID's time.
    evaluation.fid_jpeg = True
    # Steps between evaluations; 0: only before the first and after the last step; -1: none, but for
    # the swaps of drawn people.
    evaluation.every_steps = 10_000

    log = config.log = ml_collections.ConfigDict()
    # Steps between log lines, image grids and checkpoints.
    log.every_steps = 50
    log.image_every_steps = 2_000
    # Rows of an image grid.
    log.image_rows = 8
    log.checkpoint_every_steps = 2_000
    # Checkpoints kept, the best by mAP besides.
    log.keep_checkpoints = 2
    return config


def apply_variant(
    config: ml_collections.ConfigDict,
    variant: str,
    flags: Mapping[str, Callable[[ml_collections.ConfigDict], None]],
) -> ml_collections.ConfigDict:
    """Applies the argument after a config file's colon, such as "l1_rmse,small".

    Args:
        config: changed in place.
        variant: a reconstruction loss, then flags, separated by commas; all may be left out.
        flags: name to a function that changes the config.

    Raises:
        InputError: an unknown loss or flag; lists the known ones and suggests the nearest.
    """
    words = [word.strip() for word in variant.split(",") if word.strip()]
    for index, word in enumerate(words):
        if word in flags:
            flags[word](config)
        elif index == 0:
            canonical_expression(word)
            config.reconstruction_loss = word
        else:
            near = difflib.get_close_matches(word, flags, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise InputError(
                f"--config: unknown flag {word!r} after the colon{hint}. Known flags: "
                f"{', '.join(sorted(flags)) or 'none'}. "
                "The reconstruction loss comes first, flags after it: 'l1_rmse,small'."
            )
    return config


def trained_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The configuration of a trained run, as its work directory holds it.

    Fields that are newer than the run get the default.

    Args:
        workdir: the folder of the run; or a .safetensors file of `export.released.to_safetensors`,
            which becomes `config.released`.

    Raises:
        InputError: it is no work directory and no such file.
    """
    weights = Path(workdir).expanduser()
    if weights.suffix == ".safetensors" and not weights.is_dir():
        config = _config_inside(weights)
        config.released = str(weights)
    else:
        config = load_config(workdir)
    fill(config, default_config())
    return config


def _config_inside(weights: Path) -> ml_collections.ConfigDict:
    try:
        with safe_open(weights, framework="numpy") as file:
            return from_json(json.loads((file.metadata() or {})[CONFIG_KEY]))
    except FileNotFoundError as error:
        raise InputError(f"{weights}: no such file; name a .safetensors file or a run") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{weights}: holds no configuration ({_reason(error)}); python -m dgnet_jax.convert "
            "--to-safetensors RUN FILE writes one that does. For others give a configuration, such "
            "as --config=configs/market.py, and --config.released=FILE"
        ) from error


def _reason(error: Exception) -> str:
    return f"no {error} in its metadata" if isinstance(error, KeyError) else str(error)


def fill(config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict) -> None:
    """Gives a configuration, in place, the fields of `defaults` that it lacks."""
    for name, default in defaults.items():
        if name not in config:
            config[name] = default
        elif isinstance(default, ml_collections.ConfigDict):
            fill(config[name], default)


# `--config=dgnet_jax/config.py:runs/a` is the configuration of a run.
get_config = trained_config
