"""Every field of a configuration: its default, what it may be, and what it means.

`python launch.py --mode=describe` prints the table and docs/configuration.md holds it. Where there
is a published value it is the default; `Field.source` says where it was published.
"""

import difflib
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_collections
import tabulate

from dgnet_jax.config_kinds import (
    Kind,
    below_one,
    milestones,
    one_of,
    path,
    real,
    shares,
    some_of,
    text,
    whole,
    wholes,
    yes_or_no,
)
from dgnet_jax.errors import InputError
from dgnet_jax.losses import Expression, canonical_expression, parse

DGNET = "DG-Net"
"""A default of DG-Net's paper (CVPR 2019) or, where that is silent, of its released program."""
PROGRAM = "released program"
"""A default of the released program where the paper has another, or has no such thing."""
RERANKING = "Zhong 2017"
"""A default of the paper on k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""
OURS = "ours"
"""This project's choice: no published value is known, or there is nothing of the kind elsewhere."""
SOURCES = (DGNET, PROGRAM, RERANKING, OURS)


@dataclass(frozen=True)
class Field:
    """A field.

    Attributes:
        default: its value, of the published recipe.
        kind: what it may be.
        comment: what it means, with units.
        source: where the default is from, one of `SOURCES`.
        before: what runs from before the field was there did, where that is not the default; else
            None.
    """

    default: Any
    kind: Kind
    comment: str
    source: str = OURS
    before: Any = None


DATA_SETS = (
    "market1501",
    "duke",
    "msmt17",
    "cuhk03_detected",
    "cuhk03_labeled",
    "folder",
    "csv",
    "quickstart",
)
_EXPRESSION = text("a name, a fusion or a weighted sum of losses", canonical_expression)
_OWN_EXPRESSION = text(
    "a name, a fusion or a weighted sum of losses, or ''",
    lambda spec: spec and canonical_expression(spec),
)

USES = ("images", "structure_code", "appearance_code", "cycle")
"""What a reconstruction loss compares: the fields of `config.reconstruction`."""
CODES = ("structure_code", "appearance_code")
"""Those of `USES` that have no rows and columns of pixels."""

# By dotted name, in the order in which they are shown.
FIELDS: dict[str, Field] = {
    "seed": Field(
        0,
        whole(0, 2**32 - 1),
        "Of everything random: initialisation, sampling, augmentation, dropout, the coin.",
    ),
    "total_steps": Field(
        100_000,
        whole(1),
        "Steps of DG-Net training; one step sees batch_size images in each of the two directions.",
        source=DGNET,
    ),
    "batch_size": Field(
        8,
        whole(2),
        "Images per direction and step, over all devices together.",
        source=DGNET,
    ),
    "reconstruction_loss": Field(
        "l1",
        _EXPRESSION,
        "R, used for images, structure codes, appearance codes and the cycle (thesis, chapter "
        "4): a name (l1, mse, rmse, mrae, cos, huber, ml, ...), a fusion (l1_rmse, ...) or a sum "
        'such as "0.5*l1+2*huber(0.2)". docs/method.md has all losses.',
        source=DGNET,
    ),
    "reconstruction.images": Field(
        "",
        _OWN_EXPRESSION,
        "R of the two image reconstructions (their weights are weights.self_reconstruction and "
        'weights.same_identity_reconstruction); "" takes reconstruction_loss.',
        source=DGNET,
    ),
    "reconstruction.structure_code": Field(
        "",
        _OWN_EXPRESSION,
        'R of structure codes; "" takes reconstruction_loss. Losses that need images are refused.',
        source=DGNET,
    ),
    "reconstruction.appearance_code": Field(
        "",
        _OWN_EXPRESSION,
        'R of appearance codes; "" takes reconstruction_loss. Losses that need images are '
        "refused. With appearance.cut_gradient this term has no gradient, whatever its R.",
        source=DGNET,
    ),
    "reconstruction.cycle": Field(
        "",
        _OWN_EXPRESSION,
        'R of the images that are swapped back; "" takes reconstruction_loss.',
        source=DGNET,
    ),
    "gan_loss": Field(
        "lsgan",
        one_of("lsgan", "nsgan"),
        '"lsgan" (least squares) or "nsgan" (non-saturating cross-entropy).',
        source=PROGRAM,
    ),
    "dtype": Field(
        "float32",
        one_of("float32", "bfloat16", "float64"),
        'Of convolutions and matmuls: "float32", "bfloat16" or "float64". Parameters, '
        'statistics, losses and optimisers stay in float32 under "bfloat16".',
    ),
    "parallel": Field(
        "mesh",
        one_of("mesh", "pmap"),
        'How a step is spread over devices: "mesh" (jit over all of them, batch norms of the '
        'whole batch) or "pmap" (each normalises its own images, as the released program on '
        "several GPUs).",
    ),
    "pretrained": Field(
        "",
        path(),
        "ImageNet weights of the backbones (E_a's, the teacher's), a .safetensors file in "
        'torchvision\'s naming (from `python -m dgnet_jax.convert`); "" starts from scratch.',
    ),
    "released": Field(
        "",
        path(),
        "A trained DG-Net to evaluate and generate with in the place of the work directory's: "
        "a .safetensors file with a released checkpoint (`python -m dgnet_jax.convert FOLDER "
        "OUT`), or with a run (`--to-safetensors`).",
    ),
    "inception": Field(
        "",
        path(),
        "The FID Inception, a .safetensors file (`python -m dgnet_jax.convert "
        'pt_inception-2015-12-05-6726825d.pth OUT`); "" leaves FID and KID out.',
    ),
    "baseline": Field(
        False,
        yes_or_no(),
        "True: trains config.teacher alone, the re-ID baseline, on real or generated images.",
    ),
    "report": Field(
        False,
        yes_or_no(),
        "True: a training ends with a page of its curves and pictures, WORKDIR/report/index.html.",
    ),
    "freeze": Field(
        (),
        some_of("structure_encoder", "decoder", "appearance_encoder", "discriminator"),
        'Parts that stay as initialised: any of "structure_encoder", "decoder", '
        '"appearance_encoder", "discriminator".',
        source=DGNET,
    ),
    "data.name": Field(
        "market1501",
        one_of(*DATA_SETS),
        'Reader of the data set: "market1501", "duke", "msmt17", "cuhk03_detected", '
        '"cuhk03_labeled"; "folder" or "csv", one\'s own; or "quickstart", which draws its own '
        "pedestrians.",
    ),
    "data.root": Field(
        "",
        path(),
        'The extracted folder, its parent, or the .zip; of "csv" the table; or where `python '
        "-m dgnet_jax.data.prepare` has put the data set, a folder or gs://BUCKET/...",
    ),
    "data.generated": Field(
        "",
        path(),
        'Of the baseline: a data set of --mode=generate --task=dataset to train on, or "".',
    ),
    "data.generated_labels": Field(
        "soft",
        one_of("soft", "lsro", "identity"),
        "Of data.generated: the teacher's soft labels, uniform ones (LSRO), or the "
        "appearance's identity.",
    ),
    "data.real": Field(
        True,
        yes_or_no(),
        "Of the baseline: whether the real training images are trained on, too.",
    ),
    "data.poses": Field(
        "",
        text("paths, separated by commas, or ''"),
        "Of --mode=evaluate: files of the gallery images' joints "
        "(NAME:KEYPOINTS_Y:KEYPOINTS_X, as pose-transfer programs share them), separated by "
        'commas. They find the garments whose colours are measured; "" uses fixed bands.',
    ),
    "data.cameras": Field(
        True,
        yes_or_no(),
        "Whether ranking removes a query's matches by its own camera, the field's protocol; False "
        "takes each image as one by a camera of its own, so that the query image itself alone is "
        "removed. For images of unknown cameras, or of one.",
        source=DGNET,
    ),
    "data.height": Field(
        256,
        whole(4, 4096, "a multiple of 4"),
        "Rows of the network's images, in pixels.",
        source=DGNET,
    ),
    "data.width": Field(
        128,
        whole(4, 4096, "a multiple of 4"),
        "Columns of the network's images, in pixels.",
        source=DGNET,
    ),
    "data.cache_height": Field(
        128,
        whole(1, 4096),
        "Rows of the decoded images kept in memory, in pixels (Market-1501's own size).",
    ),
    "data.cache_width": Field(
        64,
        whole(1, 4096),
        "Columns of the decoded images kept in memory, in pixels.",
    ),
    "augment.mirror_probability": Field(
        0.5,
        real(0, at_most=1),
        "Of turning an image left to right.",
        source=DGNET,
    ),
    "augment.pad": Field(
        10,
        whole(0, 4096),
        "Pixels of edge values added on each side before the random crop. The teacher is trained "
        "with as many, which is ours.",
        source=DGNET,
    ),
    "augment.erasing_probability": Field(
        0.5,
        real(0, at_most=1),
        "Of random erasing of the images whose identity logits are taken; 0 turns it off and "
        "saves the second pass of E_a.",
        source=PROGRAM,
    ),
    "augment.erasing_area": Field(
        (0.02, 0.4),
        shares(),
        "Smallest and largest erased share of the image.",
        source=DGNET,
    ),
    "augment.erasing_aspect": Field(
        0.3,
        real(above=0, at_most=1),
        "Smallest ratio of height to width of the erased rectangle; the largest is its inverse.",
        source=DGNET,
    ),
    "augment.erasing_attempts": Field(
        100,
        whole(1, 10_000),
        "Tries for each image to find a rectangle that fits.",
        source=DGNET,
    ),
    "structure_encoder.dim": Field(
        16,
        whole(1, 65_536),
        "Channels of the first convolution; the structure code has 8 * dim.",
        source=DGNET,
    ),
    "structure_encoder.num_residual": Field(
        4,
        whole(0, 1_000),
        "Residual blocks of the structure encoder.",
        source=DGNET,
    ),
    "structure_encoder.dilations": Field(
        (3, 6, 9),
        wholes(1, 1),
        "Of the branches of the atrous pyramid.",
        source=DGNET,
    ),
    "structure_encoder.train_probability": Field(
        0.5,
        real(0, at_most=1),
        "The coin: with this probability a step's structure-code and cycle terms train E_s, with "
        "the generated images fixed; else they train the images, with E_s fixed.",
        source=PROGRAM,
    ),
    "decoder.num_residual": Field(
        4,
        whole(1, 1_000),
        "AdaIN blocks; block i reads slice i of the appearance code, so this divides parts * "
        "channels.",
        source=DGNET,
    ),
    "decoder.mlp_width": Field(
        512,
        whole(1, 65_536),
        "Hidden width of the MLPs that turn the appearance code into AdaIN's scales and shifts.",
        source=DGNET,
    ),
    "discriminator.dim": Field(
        32,
        whole(1, 65_536),
        "Channels of the first convolution of each PatchGAN.",
        source=DGNET,
    ),
    "discriminator.num_residual": Field(
        4,
        whole(0, 1_000),
        "Residual blocks of each PatchGAN.",
        source=DGNET,
    ),
    "discriminator.num_scales": Field(
        3,
        whole(1, 16),
        "PatchGANs, each on an image of half the size.",
        source=DGNET,
    ),
    "discriminator.gradient_penalty": Field(
        0.01,
        real(0),
        "Weight of the mean squared norm of D's gradient at real images.",
        source=PROGRAM,
    ),
    "appearance.init": Field(
        "imagenet",
        one_of("imagenet", "teacher"),
        'Start of E_a\'s backbone: "imagenet" (config.pretrained; from scratch if that is '
        'empty) or "teacher".',
        source=DGNET,
    ),
    "appearance.bottleneck": Field(
        True,
        yes_or_no(),
        "Bottleneck blocks (ResNet-50) or basic blocks (ResNet-18).",
        source=DGNET,
    ),
    "appearance.stage_sizes": Field(
        (3, 4, 6, 3),
        wholes(1, 1),
        "Blocks of each stage; ResNet-50 has 3-4-6-3.",
        source=DGNET,
    ),
    "appearance.stage_widths": Field(
        (64, 128, 256, 512),
        wholes(1, 1, "as many as stage_sizes"),
        "Channels of each stage; a bottleneck block gives four times as many.",
        source=DGNET,
    ),
    "appearance.stem": Field(
        "resnet",
        one_of("resnet", "strided"),
        '"resnet": 7x7 stride 2, then max pooling; "strided": one 7x7 of stride 4.',
        source=DGNET,
    ),
    "appearance.last_stride": Field(
        1,
        one_of(1, 2),
        "Stride of the last stage.",
        source=DGNET,
    ),
    "appearance.parts": Field(
        4,
        whole(1, 1_000),
        "Horizontal stripes of the appearance code.",
        source=DGNET,
    ),
    "appearance.pooling": Field(
        "max",
        one_of("max", "average"),
        "Of the appearance code and of the input of the heads.",
        source=DGNET,
    ),
    "appearance.embedding": Field(
        512,
        whole(1, 65_536),
        "Length of the embedding of each head.",
        source=DGNET,
    ),
    "appearance.dropout_prime": Field(
        0.5,
        below_one(),
        "Dropped share of the embedding, primary head.",
        source=DGNET,
    ),
    "appearance.dropout_fine": Field(
        0.75,
        below_one(),
        "Dropped share of the embedding, fine head.",
        source=DGNET,
    ),
    "appearance.cut_gradient": Field(
        True,
        yes_or_no(),
        "True: the image losses never train E_a (the released program). False: the paper's "
        "equations.",
        source=PROGRAM,
    ),
    "appearance.train_bn": Field(
        True,
        yes_or_no(),
        "True: the frozen copy of E_a and the teacher normalise generated images with batch "
        "statistics; False: with running statistics.",
        source=PROGRAM,
    ),
    "teacher.checkpoint": Field(
        "",
        path(),
        "A work directory whose teacher is used, or the released program's net_last.pth "
        'converted by `python -m dgnet_jax.convert`; "" trains one in this run\'s work '
        "directory.",
    ),
    "teacher.label_style": Field(
        0,
        one_of(0, 1, 2, 3, 4),
        "0 soft labels, 1 one-hot of their argmax, 2 the appearance's identity, 3 uniform "
        "(LSRO), 4 soft labels restricted to the two source identities.",
        source=DGNET,
    ),
    "teacher.label_dropout": Field(
        True,
        yes_or_no(),
        "Whether teacher.dropout acts when the teacher labels generated images, as it does in the "
        "released program; whatever appearance.train_bn is, which chooses the statistics of batch "
        "norms. Runs from before 2026-11-28 had none.",
        before=False,
        source=PROGRAM,
    ),
    "teacher.bottleneck": Field(
        True,
        yes_or_no(),
        "As appearance.bottleneck.",
        source=DGNET,
    ),
    "teacher.stage_sizes": Field(
        (3, 4, 6, 3),
        wholes(1, 1),
        "Blocks of each stage.",
        source=DGNET,
    ),
    "teacher.stage_widths": Field(
        (64, 128, 256, 512),
        wholes(1, 1, "as many as stage_sizes"),
        "Channels of each stage, as appearance.stage_widths.",
        source=DGNET,
    ),
    "teacher.stem": Field(
        "resnet",
        one_of("resnet", "strided"),
        "As appearance.stem.",
        source=DGNET,
    ),
    "teacher.last_stride": Field(
        2,
        one_of(1, 2),
        "Stride of the last stage; the released program takes either.",
    ),
    "teacher.pooling": Field(
        "average",
        one_of("max", "average"),
        "Of the input of the head.",
        source=DGNET,
    ),
    "teacher.embedding": Field(
        512,
        whole(1, 65_536),
        "Length of the embedding.",
        source=DGNET,
    ),
    "teacher.dropout": Field(
        0.5,
        below_one(),
        "Dropped share of the embedding.",
        source=DGNET,
    ),
    "teacher.total_steps": Field(
        24_255,
        whole(1),
        "Steps of its training (cross-entropy, SGD with Nesterov momentum): 60 epochs of "
        "Market-1501.",
    ),
    "teacher.batch_size": Field(
        32,
        whole(2),
        "Images a step, over all devices together.",
    ),
    "teacher.learning_rate": Field(
        0.05,
        real(0),
        "Of the head.",
    ),
    "teacher.backbone_factor": Field(
        0.1,
        real(0),
        "Learning rate of the backbone, relative to the head's.",
    ),
    "teacher.momentum": Field(
        0.9,
        below_one(),
        "Nesterov momentum.",
    ),
    "teacher.weight_decay": Field(
        5e-4,
        real(0),
        "L2, added to the gradient of every parameter.",
    ),
    "teacher.warmup_steps": Field(
        0,
        whole(0),
        "Steps in which the rate rises linearly, from a warmup_steps-th of it.",
    ),
    "teacher.milestones": Field(
        (16_170,),
        milestones(),
        "Steps at which the rates are multiplied by teacher.decay.",
    ),
    "teacher.decay": Field(
        0.1,
        real(0, at_most=1),
        "See teacher.milestones.",
    ),
    "teacher.erasing_probability": Field(
        0.5,
        real(0, at_most=1),
        "Of random erasing; the rectangle is as in config.augment.",
    ),
    "weights.gan": Field(
        1.0,
        real(0),
        "Of the adversarial loss.",
        source=DGNET,
    ),
    "weights.self_reconstruction": Field(
        5.0,
        real(0),
        "Of R between an image and its reconstruction from its own codes.",
        source=DGNET,
    ),
    "weights.same_identity_reconstruction": Field(
        5.0,
        real(0),
        "Of R between an image and its reconstruction with the appearance of the person's "
        "other image.",
        source=DGNET,
    ),
    "weights.identity": Field(
        1.0,
        real(0),
        "Of the identity cross-entropy of E_a, primary head.",
        source=DGNET,
    ),
    "weights.same_identity": Field(
        1.0,
        real(0),
        "Of the identity cross-entropy of the person's other image.",
        source=DGNET,
    ),
    "weights.generated_identity": Field(
        0.5,
        real(0),
        "Of the identity cross-entropy of generated images.",
        source=DGNET,
    ),
    "weights.structure_code": Field(
        1.0,
        real(0),
        "Largest value of the ramped weight of R between structure codes.",
        source=DGNET,
    ),
    "weights.appearance_code": Field(
        1.0,
        real(0),
        "Largest value of the ramped weight of R between appearance codes.",
        source=DGNET,
    ),
    "weights.cycle": Field(
        2.0,
        real(0),
        "Largest value of the ramped weight of R after swapping back.",
        source=PROGRAM,
    ),
    "weights.teacher": Field(
        2.0,
        real(0),
        "Largest value of the ramped weight of the teacher term.",
        source=DGNET,
    ),
    "weights.fine": Field(
        0.2,
        real(0),
        "Of the fine head's cross-entropies, relative to the teacher term.",
        source=DGNET,
    ),
    "ramp.start": Field(
        30_000,
        whole(-1_000_000),
        "A ramped weight at step t is ramp.scale * (t - ramp.start), at most the weight; 0 "
        "until ramp.start.",
        source=PROGRAM,
    ),
    "ramp.teacher_delay": Field(
        0,
        whole(-1_000_000),
        "Steps from ramp.start to the start of the teacher term's own ramp, which weights.fine "
        "follows; below 0 the teacher begins before the others.",
        source=PROGRAM,
    ),
    "ramp.scale": Field(
        5e-4,
        real(0),
        "Growth of a ramped weight at each step; 0 leaves these terms out.",
        source=PROGRAM,
    ),
    "ramp.generated_identity_start": Field(
        0,
        whole(0),
        "Step up to which weights.generated_identity is 0, where it has a ramp.",
        source=DGNET,
    ),
    "ramp.generated_identity_steps": Field(
        0,
        whole(0),
        "Steps in which weights.generated_identity rises linearly; 0 (as published) has it "
        "constant.",
        source=DGNET,
    ),
    "optimizer.generator_learning_rate": Field(
        1e-4,
        real(0),
        "Adam, of E_s, decoder and MLPs.",
        source=DGNET,
    ),
    "optimizer.discriminator_learning_rate": Field(
        1e-4,
        real(0),
        "Adam, of D.",
        source=DGNET,
    ),
    "optimizer.beta1": Field(
        0.0,
        below_one(),
        "Of Adam.",
        source=DGNET,
    ),
    "optimizer.beta2": Field(
        0.999,
        below_one(),
        "Of Adam.",
        source=DGNET,
    ),
    "optimizer.epsilon": Field(
        1e-8,
        real(above=0),
        "Of Adam.",
        source=DGNET,
    ),
    "optimizer.appearance_learning_rate": Field(
        0.002,
        real(0),
        "SGD with Nesterov momentum, of the backbone of E_a.",
        source=DGNET,
    ),
    "optimizer.head_factor": Field(
        10.0,
        real(0),
        "Learning rate of the heads of E_a, relative to the backbone's.",
        source=DGNET,
    ),
    "optimizer.momentum": Field(
        0.9,
        below_one(),
        "Nesterov momentum of E_a.",
        source=DGNET,
    ),
    "optimizer.weight_decay": Field(
        5e-4,
        real(0),
        "L2, added to the gradient of every parameter.",
        source=DGNET,
    ),
    "optimizer.milestones": Field(
        (60_000, 90_000, 105_000),
        milestones(),
        "Steps at which all learning rates are multiplied by optimizer.decay; those behind "
        "total_steps have no effect.",
        source=DGNET,
    ),
    "optimizer.decay": Field(
        0.1,
        real(0, at_most=1),
        "See optimizer.milestones.",
        source=DGNET,
    ),
    "evaluation.batch_size": Field(
        64,
        whole(1),
        "Images a batch of feature extraction.",
    ),
    "evaluation.alpha": Field(
        0.5,
        real(0),
        "Score = prime . prime + alpha * fine . fine.",
        source=DGNET,
    ),
    "evaluation.rerank": Field(
        True,
        yes_or_no(),
        "Of --mode=evaluate: whether k-reciprocal re-ranking (Zhong et al., CVPR 2017) is a "
        "row of the table. It takes about ten times as long as ranking.",
    ),
    "evaluation.rerank_k1": Field(
        20,
        whole(1),
        "Neighbours of the k-reciprocal sets.",
        source=RERANKING,
    ),
    "evaluation.rerank_k2": Field(
        6,
        whole(1),
        "Neighbours of the query expansion.",
        source=RERANKING,
    ),
    "evaluation.rerank_lambda": Field(
        0.3,
        real(0, at_most=1),
        "Weight of the original distance, beside the Jaccard distance.",
        source=RERANKING,
    ),
    "evaluation.generated_images": Field(
        True,
        yes_or_no(),
        "Of --mode=evaluate: whether generated images are measured too (FID, KID, diversity, "
        "identity consistency): one image for each training image is painted.",
    ),
    "evaluation.fid_dims": Field(
        2048,
        one_of(64, 192, 768, 2048),
        "Length of FID's features: 64, 192, 768 or 2048 (the published one).",
        source=DGNET,
    ),
    "evaluation.fid_images": Field(
        0,
        whole(0),
        "Training images, and gallery images, that FID takes: a seeded choice; 0 takes all.",
        source=DGNET,
    ),
    "evaluation.fid_jpeg": Field(
        True,
        yes_or_no(),
        "Whether generated images are also measured by DG-Net's protocol: levels truncated to 8 "
        "bits, JPEG files, at most 12,936 images; half of FID's time. The PNG figure is ours: "
        "levels rounded, all images.",
        source=DGNET,
    ),
    "evaluation.every_steps": Field(
        10_000,
        whole(-1),
        "Steps between evaluations; 0: only before the first and after the last step; -1: "
        "none, but for the swaps of drawn people.",
    ),
    "log.every_steps": Field(
        50,
        whole(1),
        "Steps between log lines.",
    ),
    "log.image_every_steps": Field(
        2_000,
        whole(1),
        "Steps between image grids.",
    ),
    "log.image_rows": Field(
        8,
        whole(1, 1000),
        "Rows of an image grid.",
    ),
    "log.checkpoint_every_steps": Field(
        2_000,
        whole(1),
        "Steps between checkpoints.",
    ),
    "log.keep_checkpoints": Field(
        2,
        whole(1),
        "Checkpoints kept, the best by mAP besides.",
    ),
}

# Of the configurations that draw their data set: the arguments of `data.synthetic.draw_dataset`.
DRAWING: dict[str, Field] = {
    "data.drawing.seed": Field(0, whole(0), "Of all randomness of the drawn data set."),
    "data.drawing.train_identities": Field(48, whole(2), "People to train on."),
    "data.drawing.test_identities": Field(24, whole(1), "People of the queries and the gallery."),
    "data.drawing.images_per_identity_camera": Field(
        5, whole(2), "Images of a person by each of the four cameras."
    ),
    "data.drawing.distractors": Field(40, whole(0), "Gallery images of nobody, identity 0000."),
    "data.drawing.junk": Field(30, whole(0), "Badly cropped gallery images, identity -1."),
    "data.drawing.height": Field(128, whole(1, 4096), "Rows of a drawn image, in pixels."),
    "data.drawing.width": Field(64, whole(1, 4096), "Columns of a drawn image, in pixels."),
}


def default_config() -> ml_collections.ConfigDict:
    """The full-size network and the published recipe, for Market-1501's format of data."""
    config = ml_collections.ConfigDict()
    for name, field in FIELDS.items():
        section, _, leaf = name.rpartition(".")
        if section and section not in config:
            config[section] = ml_collections.ConfigDict()
        (config[section] if section else config)[leaf] = field.default
    return config


def older_config() -> ml_collections.ConfigDict:
    """What a stored run that lacks a field did in its place: the default, or `Field.before`."""
    config = default_config()
    for name, field in FIELDS.items():
        if field.before is not None:
            _set(config, name, field.before)
    return config


def checked(
    config: ml_collections.ConfigDict, absent: ml_collections.ConfigDict | None = None
) -> ml_collections.ConfigDict:
    """A copy of a configuration whose every field is of its kind.

    "~" in paths becomes the home folder.

    Args:
        config: to check.
        absent: has the values of fields that `config` lacks; the defaults if None.

    Raises:
        InputError: names every field that is unknown or has a value that it may not have, with the
            value and what to give.
    """
    locked = config.is_locked
    config = config.copy_and_resolve_references()
    config.unlock()
    wrong: list[str] = []
    found = dict(_leaves(config))
    known = FIELDS | DRAWING
    sections = {name.rpartition(".")[0] for name in known}
    for name, value in found.items():
        if name not in known:
            wrong.append(_unknown(name, sections))
            continue
        try:
            _set(config, name, known[name].kind.value(value))
        except ValueError:  # pydantic's ValidationError too
            wrong.append(_refusal(name, value, known[name].kind))
    if wrong:
        raise InputError("\n".join(wrong))
    for name, value in _leaves(absent or default_config()):
        if name not in found:
            _set(config, name, value)
    _check_together(config)
    return config.lock() if locked else config


def described(config: ml_collections.ConfigDict | None = None) -> str:
    """The table of all fields for a terminal: name, default and its source, range, comment.

    Args:
        config: its values that are not the default are shown too.
    """
    given = {} if config is None else dict(_leaves(config))
    rows = []
    for name, field in FIELDS.items():
        default = textwrap.fill(repr(field.default), 24)
        if name in given and given[name] != field.default:
            default += "\n" + textwrap.fill(f"here {given[name]!r}", 24)
        words = textwrap.fill(field.kind.range, 32), textwrap.fill(field.comment, 60)
        rows.append((name, default, field.source, *words))
    return tabulate.tabulate(rows, _HEADERS, tablefmt="simple_grid", disable_numparse=True)


def as_markdown() -> str:
    """The tables of docs/configuration.md, one a section of the configuration."""
    sections: dict[str, list[tuple[str, ...]]] = {}
    for name, field in (FIELDS | DRAWING).items():
        default = f"`{field.default!r}`"
        cells = (f"`{name}`", default, field.source, field.kind.range, field.comment)
        row = tuple(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells)
        sections.setdefault(name.rpartition(".")[0], []).append(row)
    return "\n\n".join(
        f"## {_TITLES[section]}\n\n{tabulate.tabulate(rows, _HEADERS, tablefmt='github')}"
        for section, rows in sections.items()
    )


_HEADERS = ("field", "default", "source", "may be", "meaning")
_TITLES = {
    "": "The run",
    "reconstruction": "`reconstruction`: R of single terms",
    "data": "`data`: the images",
    "augment": "`augment`: what is done to training images",
    "structure_encoder": "`structure_encoder`: E_s",
    "decoder": "`decoder`: G",
    "discriminator": "`discriminator`: D",
    "appearance": "`appearance`: E_a",
    "teacher": "`teacher`: the teacher, or the re-ID baseline",
    "weights": "`weights`: of the loss's terms",
    "ramp": "`ramp`: weights that rise",
    "optimizer": "`optimizer`: of DG-Net",
    "evaluation": "`evaluation`",
    "log": "`log`",
    "data.drawing": '`data.drawing`: of a drawn data set (`data.name` "quickstart")',
}


def _check_together(config: ml_collections.ConfigDict) -> None:
    """Raises InputError for fields that are right alone and do not fit each other."""
    if not config.baseline:
        expressions(config)
    for network in ("appearance", "teacher"):
        sizes, widths = config[network].stage_sizes, config[network].stage_widths
        if len(sizes) != len(widths):
            raise InputError(
                f"--config.{network}.stage_sizes: found {sizes}, and stage_widths {widths}. Give "
                "as many of one as of the other"
            )
    if config.appearance.init == "teacher" and not config.baseline:
        for name in ("bottleneck", "stem", "stage_sizes", "stage_widths"):
            if config.appearance[name] != config.teacher[name]:
                raise InputError(
                    f"--config.appearance.init: 'teacher' needs the same backbone in "
                    f"config.appearance and config.teacher, but {name} is "
                    f"{config.appearance[name]} and {config.teacher[name]}. bottleneck, stem, "
                    "stage_sizes and stage_widths must be equal; last_stride and pooling may differ"
                )


def expressions(config: ml_collections.ConfigDict) -> dict[str, Expression]:
    """The reconstruction loss R of each of `USES`.

    Raises:
        InputError: a loss that needs images is to compare codes, or one is unknown.
    """
    found = {use: parse(config.reconstruction[use] or config.reconstruction_loss) for use in USES}
    for use in CODES:
        if not found[use].images_only:
            continue
        own = bool(config.reconstruction[use])
        field = f"reconstruction.{use}" if own else "reconstruction_loss"
        raise InputError(
            f"--config.{field}: {found[use]} has {', '.join(found[use].images_only)}, which needs "
            f"the rows and columns of an image, and would compare {use.replace('_', ' ')}s too. "
            "Give codes a loss of their own: --config.reconstruction.structure_code=l1 "
            "--config.reconstruction.appearance_code=l1"
        )
    return found


def reconstruction_text(config: ml_collections.ConfigDict) -> str:
    """R in words: "l1_rmse", or "ssim (structure_code: l1, appearance_code: l1)"."""
    own = config.get("reconstruction", {})
    parts = [f"{use}: {own[use]}" for use in USES if own.get(use)]
    return config.reconstruction_loss + (f" ({', '.join(parts)})" if parts else "")


def _refusal(name: str, value: Any, kind: Kind) -> str:
    word = value.lower() if isinstance(value, str) else ""
    near = difflib.get_close_matches(word, kind.choices, n=1, cutoff=0.4)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return f"--config.{name}: found {value!r}. Give {kind.range}{hint}"


def _unknown(name: str, sections: set[str]) -> str:
    if name in sections:
        return f"--config.{name}: found a value. It is a section, of fields such as " + ", ".join(
            [field for field in FIELDS if field.startswith(f"{name}.")][:3]
        )
    near = difflib.get_close_matches(name, FIELDS, n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    return f"--config.{name}: no such field{hint}. python launch.py --mode=describe lists all"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    section, _, leaf = name.rpartition(".")
    node = config
    for part in section.split(".") if section else ():
        if part not in node:
            node[part] = ml_collections.ConfigDict()
        node = node[part]
    if leaf in node and type(node[leaf]) is not type(value):
        del node[leaf]  # ConfigDict keeps a field's first type
    node[leaf] = value
