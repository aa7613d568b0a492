"""All measurements on a borrowed machine, in two calls of one command each.

    python3 -m benchmarks.device.lease first --pack=device_pack/first --out=OUT
    python3 -m benchmarks.device.lease second --pack=device_pack/second --out=OUT --seconds=400
    python -m benchmarks.device.lease smoke

Each stage runs in processes of its own with a time limit; results are printed and appended to
OUT/results.jsonl as they come. A stage that fails, hangs or crashes is reported and the next one
runs. `smoke` does all of it with tiny networks on a CPU. This process itself needs only the
standard library. README.md has the stages and what they take.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from benchmarks.device.presets import FULL, Preset, Variant
from benchmarks.device.stages import Results, Row, Stage, end_all, run_in_turns, run_together
from benchmarks.device.unpack import DATA

ROOT = Path(__file__).resolve().parents[2]
# The groups of stages of each call, in order.
GROUPS = {
    "first": ("unpack", "machine", "tests", "steps", "profile", "train"),
    "second": ("unpack", "finish", "evaluation"),
}
# The first leaves most of a lease to the training. The second: a limit of 600 seconds for a call,
# and time to start and to bring files back.
_FIRST, _SECOND = 400.0, 570.0
# What reading a trace and the start of the training need of a call, however long steps take.
_AFTER_STEPS = 40.0
# What the timing of a compiled step needs: compiling ends before.
_TURN_SECONDS = 10.0


class Place(NamedTuple):
    """work: the folder that stays on the machine; pack: of this call; out: what is brought back."""

    work: Path
    pack: Path
    out: Path


# A group's stages run at the same time.
Group = tuple[str, Sequence[Stage]]


def python(*arguments: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *arguments]


def fields(values: Mapping[str, str]) -> list[str]:
    """`--config.` flags."""
    return [f"--config.{name}={value}" for name, value in values.items()]


def first_call(preset: Preset, place: Place, results: Results) -> Iterator[Group]:
    """The stages up to the start of the training; later ones depend on results of earlier ones."""
    limits, work = preset.limits, place.work
    yield from _unpack(preset, place)
    yield (
        "machine",
        [_stage("machine", preset, "benchmarks.device.machine", *preset.required, *preset.machine)],
    )
    # Kernels that need not be fast are not timed while the steps' are.
    precise = {
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": "--xla_gpu_autotune_level=0",
    }
    check = python("-m", "benchmarks.device.checks", *preset.tests)
    yield "tests", [Stage("tests", [check], limits["tests"], precise)]

    trace = work / "trace"

    def with_share(variant: Variant, row: Row) -> Row:
        ceiling = results.of("machine").get(f"matmul_{variant.compare}_tflops")
        reached = row.get("tflop_per_second")
        if not ceiling or reached is None:
            return row
        return row | {"share_of_matmul": round(reached / ceiling, 4), "against": variant.compare}

    flags = training_flags(preset, place)
    # The training's own configuration, so that it finds its programs in the cache.
    step = python(
        *("benchmarks/step_time.py", *flags),
        *(f"--identities={preset.identities}", f"--steps={preset.timed}"),
    )
    stages = []
    for variant in preset.variants:
        command = [*step, *variant.flags, f"--turn={_turn(place, variant)}"]
        if variant.name == preset.profiled:
            command.append(f"--trace={trace}")
        adjust = partial(with_share, variant)
        stages.append(Stage(_name(variant), [command], limits["compile"], adjust=adjust))
    yield "steps", stages
    profile = f"--out={place.out / 'profile.txt'}"
    yield "profile", [_stage("profile", preset, "benchmarks.device.trace", str(trace), profile)]
    compiled = {phase: results.of(f"step {name}") for phase, name in preset.programs.items()}
    warm = [f"--warm={phase}" for phase, row in compiled.items() if not row]
    start = python("-m", "benchmarks.device.training", "start", str(work), *warm, "--", *flags)
    yield "train", [Stage("train", [start], limits["train"])]


def second_call(preset: Preset, place: Place, until: float) -> Iterator[Group]:
    """The stages after the training, which gets the time that these do not need.

    until: of `time.monotonic()`, the end of the call.
    """
    limits, work = preset.limits, place.work
    yield from _unpack(preset, place)
    collect = python("-m", "benchmarks.device.collect", str(work), str(place.out))
    run = f"--workdir={work / 'run'}"
    launch = python("launch.py", run, *preset.required, *_data(place))
    waiting = max(0.0, until - time.monotonic() - preset.reserve)
    finish = python(
        *("-m", "benchmarks.device.training", "finish", str(work), f"--seconds={waiting:.0f}")
    )
    yield "finish", [Stage("finish", [finish, collect], waiting + limits["finish"])]
    swap = [*launch, "--mode=generate", "--task=swap"]
    results = work / "evaluation.json"
    # It is written at the end: without time for all of it there would be no ranking.
    images = until - time.monotonic() >= preset.images_seconds
    evaluate = [
        *(*launch, "--mode=evaluate", *fields(preset.evaluation), f"--output={results}"),
        f"--config.evaluation.generated_images={images}",
        f"--config.inception={work / 'weights' / 'inception.safetensors'}",
    ]
    commands = {
        "swap": [swap, collect],
        "evaluation": [evaluate, [*collect, f"--evaluation={results}"]],
    }
    yield "evaluation", [Stage(name, both, limits[name]) for name, both in commands.items()]


def training_flags(preset: Preset, place: Place) -> list[str]:
    """Flags of launch.py for a training of the preset's length.

    Ramps and milestones stand at the published shares of the steps: 30 % without ramped terms, 4 %
    until they have their full weights, learning rates cut at 60 % and 90 %.
    """
    teacher_steps, steps = preset.teacher_steps, preset.steps
    ramp_steps = max(1.0, 0.04 * steps)
    planned = {
        "teacher.total_steps": str(teacher_steps),
        "teacher.warmup_steps": str(min(100, teacher_steps // 10)),
        "teacher.milestones": f"({2 * teacher_steps // 3},{9 * teacher_steps // 10})",
        "total_steps": str(steps),
        "ramp.start": str(3 * steps // 10),
        "ramp.scale": f"{2 / ramp_steps:.6g}",
        "optimizer.milestones": f"({6 * steps // 10},{9 * steps // 10})",
        "evaluation.every_steps": "-1",
        "log.every_steps": str(max(1, min(50, steps // 10))),
        "log.image_every_steps": str(max(1, steps // 3)),
        "log.checkpoint_every_steps": str(max(1, steps // 3)),
    }
    if preset.pretrained:
        planned["pretrained"] = str(place.work / "weights" / "resnet50.safetensors")
    return [
        *preset.required,
        f"--config={preset.config}",
        *_data(place),
        *fields({**preset.training, **planned}),
    ]


def _data(place: Place) -> list[str]:
    return [f"--config.data.root={place.work / 'data' / DATA}"]


def _stage(name: str, preset: Preset, module: str, *arguments: str) -> Stage:
    return Stage(name, [python("-m", module, *arguments)], preset.limits[name])


def _name(variant: Variant) -> str:
    return f"step {variant.name}"


def _turn(place: Place, variant: Variant) -> Path:
    return place.work / "turns" / variant.name


def _unpack(preset: Preset, place: Place) -> Iterator[Group]:
    yield (
        "unpack",
        [_stage("unpack", preset, "benchmarks.device.unpack", str(place.pack), str(place.work))],
    )


def environment(work: Path) -> dict[str, str]:
    """Variables of all stages."""
    paths = [str(work / "site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "JAX_COMPILATION_CACHE_DIR": str(work / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        # Several processes share the card while programs are compiled.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "DGNET_SHARED": str(work / "shared"),
    }


def run_groups(
    groups: Iterator[Group],
    chosen: Sequence[str],
    preset: Preset,
    place: Place,
    results: Results,
    until: float,
) -> None:
    """Runs the stages of the chosen groups, a group after the other.

    Compiling takes longer than all else, and the tests compile too: they run while the first wave
    of steps is compiled.
    """
    tests: Sequence[Stage] = []
    for name, stages in groups:
        if name not in chosen:
            continue
        if name == "tests" and "steps" in chosen:
            tests = stages
        elif name == "steps":
            run_waves(tests, stages, preset, place, results, until - _AFTER_STEPS)
        else:
            run_together(stages, results, ROOT, until)


def run_waves(
    tests: Sequence[Stage],
    steps: Sequence[Stage],
    preset: Preset,
    place: Place,
    results: Results,
    until: float,
) -> None:
    """Compiles and times the steps a wave after the other, as long as time is left.

    Args:
        tests: run while the first wave is compiled.
        steps: a stage for each of `preset.variants`.
        until: of `time.monotonic()`, the end of all waves.
    """
    waiting = iter(steps)
    for number, wave in enumerate(preset.waves):
        with_turns = [(next(waiting), _turn(place, variant)) for variant in wave]
        stages = [*((test, None) for test in tests if number == 0), *with_turns]
        left = until - time.monotonic()
        if left < preset.wave_seconds:
            reason = f"{left:.0f} s are left for steps, a wave takes {preset.wave_seconds:.0f}"
            for stage, _ in stages:
                results.add({"stage": stage.name, "status": "skipped", "reason": reason})
            continue
        run_in_turns(
            stages,
            preset.limits["steps"],
            results,
            ROOT,
            until,
            at_once=preset.at_once,
            ready_until=until - _TURN_SECONDS * len(wave),
        )


def run_call(
    call: str,
    preset: Preset,
    place: Place,
    seconds: float,
    chosen: Sequence[str] = (),
) -> list[Row]:
    """Runs one call and returns its rows.

    Args:
        call: "first" or "second".
        seconds: until the end of the call.
        chosen: groups of stages; all by default.
    """
    until = time.monotonic() + seconds
    for folder in (place.work, place.out):
        folder.mkdir(parents=True, exist_ok=True)
    kept, brought = place.work / "results.jsonl", place.out / "results.jsonl"
    if kept.is_file():
        shutil.copyfile(kept, brought)
    results = Results((kept, brought), place.out / "log.txt")
    os.environ.update(environment(place.work) | {"JAX_PLATFORMS": preset.platforms})
    if call == "first":
        groups = first_call(preset, place, results)
    else:
        groups = second_call(preset, place, until)
    run_groups(groups, chosen or GROUPS[call], preset, place, results, until)
    return results.rows


def _stop(number: int, _: FrameType | None) -> None:
    """On SIGTERM: the stages end with this process, a training in the background does not."""
    end_all()
    sys.exit(128 + number)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser(
        "python3 -m benchmarks.device.lease",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("call", choices=["first", "second", "smoke"])
    result.add_argument("--pack", type=Path, help="the folder that pack.py wrote for this call")
    result.add_argument("--out", type=Path, help="results are written here")
    result.add_argument("--work", type=Path, default=Path("device_work"), help="kept between calls")
    result.add_argument(
        "--seconds",
        type=float,
        help=f"until the call has to be over (default: {_FIRST:.0f}, second: {_SECOND:.0f})",
    )
    result.add_argument("--stages", default="", help="some of a call's, with commas between them")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        _call(argv)
    finally:
        signal.signal(signal.SIGTERM, before)


def _call(argv: Sequence[str] | None) -> None:
    command = parser()
    arguments = command.parse_args(argv)
    if arguments.call == "smoke":
        from benchmarks.device.smoke import smoke

        with tempfile.TemporaryDirectory() as folder:
            out = arguments.out or Path(folder) / "out"
            smoke(Path(folder), out)
        return
    known = GROUPS[arguments.call]
    chosen = tuple(filter(None, arguments.stages.split(",")))
    if unknown := [name for name in chosen if name not in known]:
        command.error(f"--stages: {', '.join(unknown)}: not of {', '.join(known)}")
    if arguments.out is None:
        command.error("--out is missing: a folder for the results")
    unpacking = not chosen or "unpack" in chosen
    if unpacking and not (arguments.pack and (arguments.pack / "pack.json").is_file()):
        command.error(
            f"--pack={arguments.pack}: no pack there; python -m benchmarks.device.pack makes it"
        )
    pack = (arguments.pack or arguments.work).absolute()
    place = Place(arguments.work.absolute(), pack, arguments.out.absolute())
    seconds = arguments.seconds or (_FIRST if arguments.call == "first" else _SECOND)
    run_call(arguments.call, FULL, place, seconds, chosen)


if __name__ == "__main__":
    main()
