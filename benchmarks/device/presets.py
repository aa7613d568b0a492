"""What a lease measures, at full size and as a smoke test on a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A step to time: flags of benchmarks/step_time.py besides the training's configuration.

    `compare` names the kind of matmul in the first stage's row that its FLOP/s are compared with.
    """

    name: str
    flags: tuple[str, ...] = ()
    compare: str = "bfloat16"


@dataclass(frozen=True)
class Preset:
    """Sizes, and the limits of stages in seconds.

    Attributes:
        config: `--config`.
        machine: flags of benchmarks.device.machine.
        tests: arguments of pytest, for tests that run while the first wave is compiled.
        waves: the steps to time; those of a wave are compiled, then timed one by one.
        at_once: how many programs are compiled at the same time, the tests among them.
        wave_seconds: a wave is not begun with less time left for steps.
        timed: dispatches of each.
        programs: of the training's steps before and after the ramps, the variant with that program.
        profiled: the variant that is traced.
        identities: of the training set; a step with another number is another program.
        teacher_steps, steps: planned length of the two stages of training.
        training: `--config.` fields of the training.
        evaluation: `--config.` fields of the evaluation.
        images_seconds: with less time left for it, the evaluation leaves generated images out.
        pretrained: whether the training starts from the pack's ResNet-50.
        platforms: JAX_PLATFORMS.
        required: the flag with which programs end at once where there is no accelerator, or none.
        limits: of stages; `compile` until a step is ready, `steps` for its timing.
        reserve: seconds of the second call that come after the training.
    """

    config: str
    machine: tuple[str, ...]
    tests: tuple[str, ...]
    waves: tuple[tuple[Variant, ...], ...]
    at_once: int
    wave_seconds: float
    timed: int
    programs: Mapping[str, str]
    profiled: str
    identities: int
    teacher_steps: int
    steps: int
    training: Mapping[str, str]
    evaluation: Mapping[str, str]
    images_seconds: float
    pretrained: bool
    platforms: str
    required: tuple[str, ...]
    limits: Mapping[str, float]
    reserve: float

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Of all waves."""
        return tuple(variant for wave in self.waves for variant in wave)


FULL = Preset(
    config="configs/market.py:l1_rmse",
    machine=(),
    # Where it is after so many seconds goes to the log: a timeout alone says nothing.
    tests=("tests/test_reference_step.py", "-k", "float32", "-o", "faulthandler_timeout=150"),
    waves=(
        (
            Variant("bfloat16_b8"),
            Variant("teacher_bfloat16_b32", ("--stage=teacher",)),
            Variant("bfloat16_b8_start", ("--phase=start",)),
            Variant("float32_b8", ("--dtype=float32",), "float32"),
        ),
        (
            Variant("bfloat16_b32", ("--batch=32",)),
            Variant("bfloat16_b8_pmap", ("--config.parallel=pmap",)),
            Variant("bfloat16_b8_phases", ("--upsample=phases",)),
        ),
    ),
    at_once=4,
    wave_seconds=200,
    timed=20,
    programs={"start": "bfloat16_b8_start", "full": "bfloat16_b8"},
    profiled="bfloat16_b8",
    identities=751,
    teacher_steps=7200,
    steps=2000,
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
    images_seconds=150,
    pretrained=True,
    platforms="cuda,cpu",
    required=("--require_accelerator",),
    limits={
        "unpack": 60,
        "machine": 60,
        "tests": 330,
        "compile": 330,
        "steps": 60,
        "profile": 30,
        "train": 40,
        "finish": 75,
        "swap": 120,
        "evaluation": 300,
    },
    reserve=220,
)

SMOKE = Preset(
    config="tests/tiny.py",
    machine=("--size=256", "--copy_mib=8", "--repeats=2"),
    tests=("tests/test_ranking.py", "-m", "not slow"),
    waves=(
        (
            Variant("float32_b8", compare="float32"),
            Variant("teacher_float32_b8", ("--stage=teacher",), "float32"),
            Variant("float32_b8_start", ("--phase=start",), "float32"),
        ),
        (Variant("no_such_field", ("--config.no_such_field=1",), "float32"),),
    ),
    at_once=2,
    wave_seconds=0,
    timed=2,
    programs={"start": "float32_b8_start", "full": "float32_b8"},
    profiled="float32_b8",
    identities=5,
    teacher_steps=6,
    steps=10,
    training={"dtype": "float32", "appearance.init": "teacher"},
    evaluation={
        "evaluation.batch_size": "16",
        "evaluation.fid_dims": "64",
        "evaluation.fid_images": "16",
    },
    images_seconds=0,
    pretrained=False,
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
        "evaluation": 300,
    },
    reserve=0,
)
