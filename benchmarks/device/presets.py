"""What a lease measures, at full size and as a smoke test on a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass

_STEP = "benchmarks/step_time.py"


@dataclass(frozen=True)
class Variant:
    """A step to time: flags of benchmarks/step_time.py.

    `compare` names the kind of matmul in the first stage's row that its FLOP/s are compared with.
    """

    name: str
    flags: tuple[str, ...]
    compare: str = "bfloat16"


@dataclass(frozen=True)
class Preset:
    """Sizes, and the limits of stages in seconds.

    Attributes:
        config: `--config`.
        overrides: `--config.` fields of everything, without the data set.
        machine: flags of benchmarks.device.machine.
        reference: arguments of pytest for the comparison with the released program, or ().
        tests: arguments of pytest for other tests.
        variants: the steps to time.
        timed: dispatches of each.
        base, base_teacher: names of the variants whose step times plan the training.
        profiled: the variant that is traced.
        teacher_seconds, training_seconds: planned length of the two stages of training.
        training: `--config.` fields of the training alone.
        evaluation: `--config.` fields of evaluations.
        pretrained: whether the training starts from the pack's ResNet-50.
        warm: whether DG-Net's programs are compiled while its teacher trains.
        platforms: JAX_PLATFORMS.
        required: the flag with which programs end at once where there is no accelerator, or none.
        limits: of stages by group; `compile` until a step is ready, `steps` for its timing.
        reserve: seconds of the second call that come after the training.
    """

    config: str
    overrides: Mapping[str, str]
    machine: tuple[str, ...]
    reference: tuple[str, ...]
    tests: tuple[str, ...]
    variants: tuple[Variant, ...]
    timed: int
    base: str
    base_teacher: str
    profiled: str
    teacher_seconds: float
    training_seconds: float
    training: Mapping[str, str]
    evaluation: Mapping[str, str]
    pretrained: bool
    warm: bool
    platforms: str
    required: tuple[str, ...]
    limits: Mapping[str, float]
    reserve: float


_BFLOAT16, _FLOAT32 = "--dtype=bfloat16", "--dtype=float32"

FULL = Preset(
    config="configs/market.py:l1_rmse",
    overrides={},
    machine=(),
    reference=("tests/test_reference_step.py", "-k", "float32"),
    tests=(
        "tests/test_losses.py",
        "tests/test_ranking.py",
        "tests/test_blocks.py",
        "-m",
        "not slow",
    ),
    variants=(
        Variant("bfloat16_b8", (_BFLOAT16, "--batch=8")),
        Variant("float32_b8", (_FLOAT32, "--batch=8"), "float32"),
        Variant("bfloat16_b32", (_BFLOAT16, "--batch=32")),
        Variant("float32_b32", (_FLOAT32, "--batch=32"), "float32"),
        Variant("teacher_bfloat16_b32", (_BFLOAT16, "--batch=32", "--stage=teacher")),
        Variant("bfloat16_b8_phases", (_BFLOAT16, "--batch=8", "--upsample=phases")),
        Variant("bfloat16_b8_scan4", (_BFLOAT16, "--batch=8", "--scan=4")),
        Variant("bfloat16_b8_pmap", (_BFLOAT16, "--batch=8", "--config.parallel=pmap")),
    ),
    timed=20,
    base="bfloat16_b8",
    base_teacher="teacher_bfloat16_b32",
    profiled="bfloat16_b8",
    teacher_seconds=110,
    training_seconds=190,
    training={
        "dtype": "bfloat16",
        # The pretrained file lacks most of the last stage: it learns as fast as the heads, nearly.
        "teacher.backbone_factor": "0.5",
        # Of `configs/small.py`, made for runs of a few thousand steps.
        "appearance.init": "teacher",
        "optimizer.generator_learning_rate": "5e-4",
        "optimizer.discriminator_learning_rate": "2e-4",
        "optimizer.appearance_learning_rate": "0.003",
    },
    evaluation={"evaluation.batch_size": "256", "evaluation.fid_dims": "768"},
    pretrained=True,
    warm=True,
    platforms="cuda,cpu",
    required=("--require_accelerator",),
    limits={
        "unpack": 60,
        "machine": 60,
        "tests": 200,
        "compile": 250,
        "steps": 60,
        "profile": 60,
        "train": 40,
        "finish": 75,
        "swap": 90,
        "ranking": 120,
        "images": 240,
    },
    reserve=210,
)

SMOKE = Preset(
    config="tests/tiny.py",
    overrides={},
    machine=("--size=256", "--copy_mib=8", "--repeats=2"),
    reference=(),
    tests=("tests/test_ranking.py", "-m", "not slow"),
    variants=(
        Variant("float32_b8", (_FLOAT32,), "float32"),
        Variant("teacher_float32_b8", (_FLOAT32, "--stage=teacher"), "float32"),
        Variant("no_such_field", ("--config.no_such_field=1",), "float32"),
    ),
    timed=2,
    base="float32_b8",
    base_teacher="teacher_float32_b8",
    profiled="float32_b8",
    teacher_seconds=0.3,
    training_seconds=8,
    training={"dtype": "float32", "appearance.init": "teacher"},
    evaluation={
        "evaluation.batch_size": "16",
        "evaluation.fid_dims": "64",
        "evaluation.fid_images": "16",
    },
    pretrained=False,
    warm=False,
    platforms="cpu",
    required=(),
    limits={
        "unpack": 120,
        "machine": 120,
        "tests": 300,
        "compile": 600,
        "steps": 300,
        "profile": 300,
        "train": 300,
        "finish": 120,
        "swap": 300,
        "ranking": 300,
        "images": 300,
    },
    reserve=0,
)
