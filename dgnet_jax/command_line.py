"""The command line of `launch.py`, and what the package's other commands share with it.

Nothing here imports what may touch a device: processes have to be joined first.
"""

import argparse
import sys
import traceback
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from dgnet_jax import config
from dgnet_jax.errors import InputError
from dgnet_jax.generate import GenerateOptions

if TYPE_CHECKING:
    from dgnet_jax.runtime.checkpoints import Step


def parse_step(text: str) -> "Step":
    """The value of `--step`, for argparse's `type` too.

    Raises:
        ArgumentTypeError: it is neither a number nor "best".
    """
    if text == "best":
        return "best"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"found {text!r}. Give a number of steps, or 'best': the checkpoint with the best mAP"
        ) from None


class StepParser(flags.ArgumentParser["Step"]):
    """absl's parser of `--step`."""

    syntactic_help = "a number of steps, or best: the checkpoint with the best mAP"

    def parse(self, argument: str) -> "Step":
        try:
            return parse_step(argument)
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from error

    def flag_type(self) -> str:
        return "step"


@dataclass(frozen=True)
class Command:
    """What a command line of `launch.py` asks for: the flags of `define_flags`, by their names.

    Attributes:
        config_file: the file and variant of --config, as given; config is None where none is.
        options: the flags of --mode=generate that say what to make.
    """

    mode: str
    config: ml_collections.ConfigDict | None
    config_file: str
    workdir: str
    step: "Step | None"
    output: str | None
    queries: list[str]
    task: str | None
    options: GenerateOptions
    losses: list[str]
    seeds: list[str]
    shard: str | None
    distributed: bool
    coordinator_address: str | None
    num_processes: int | None
    process_id: int | None
    initialization_timeout: int
    require_accelerator: bool


def define_flags() -> None:
    """Defines all flags of all modes; once a process."""
    config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
    flags.DEFINE_string("workdir", None, "The folder of the run.", required=True)
    modes = ["train", "evaluate", "generate", "ablate"]
    flags.DEFINE_enum("mode", "train", modes, "What to do.")
    flags.DEFINE(
        StepParser(), "step", None, "--mode=evaluate, generate: which checkpoint; default the last."
    )
    flags.DEFINE_string(
        "output",
        None,
        "--mode=evaluate: the JSON file; default evaluation.json in the work directory. "
        "--mode=generate: the folder; default WORKDIR/generated/TASK.",
    )
    flags.DEFINE_list(
        "queries", [], "--mode=evaluate: file names of the queries whose ranked lists are drawn."
    )
    _define_process_flags()
    _define_generate_flags()
    flags.DEFINE_list(
        "losses",
        ["all"],
        "--mode=ablate: names or expressions, separated by commas; all is the thesis's seven "
        "losses and five fusions.",
    )
    flags.DEFINE_list("seeds", ["0"], "--mode=ablate: seeds, such as 0,1,2.")
    flags.DEFINE_string(
        "shard",
        None,
        "--mode=ablate: i/n, the part of the study that this process runs; i from 0.",
    )


def _define_process_flags() -> None:
    flags.DEFINE_bool(
        "distributed", False, "One of several processes; Slurm, TPU pods and MPI tell which one."
    )
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
    flags.DEFINE_integer("num_processes", None, "Processes of the run.")
    flags.DEFINE_integer("process_id", None, "This process, from 0.")
    flags.DEFINE_integer(
        "initialization_timeout",
        300,
        "Seconds to wait for process 0, and for all processes to be there.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "require_accelerator", False, "End with an error where there is neither a GPU nor a TPU."
    )


def _define_generate_flags() -> None:
    """The fields of `GenerateOptions`, which has their defaults and checks their values."""
    default = GenerateOptions()
    flags.DEFINE_string(
        "task", None, "--mode=generate: what to make: swap, interpolate, pairs or dataset."
    )
    flags.DEFINE_multi_string(
        "appearance",
        [],
        "swap, interpolate, pairs: an image or a folder of images that give their appearance; may "
        "come several times. Default: a seeded choice of the training images.",
    )
    flags.DEFINE_multi_string(
        "structure",
        [],
        "swap, interpolate, pairs: images that give their structure; default those of "
        "--appearance.",
    )
    flags.DEFINE_integer(
        "seed", default.seed, "--mode=generate: of every random choice of sources."
    )
    flags.DEFINE_integer(
        "count",
        default.count,
        "swap: how many training images to choose (default 8); dataset: training images in total "
        "(default one for each real one, as for the FID).",
    )
    flags.DEFINE_integer(
        "per_identity",
        default.per_identity,
        "dataset: training images of each identity, instead of --count.",
    )
    flags.DEFINE_integer(
        "test_per_identity",
        default.test_per_identity,
        "dataset: query and gallery images of each person of the real queries; 0 for training "
        "only.",
    )
    flags.DEFINE_bool(
        "soft_labels", default.soft_labels, "dataset: write the teacher's soft labels."
    )
    flags.DEFINE_integer(
        "quality", default.quality, "dataset: of the JPEGs, 1 to 95; 75 is the FID protocol's."
    )
    flags.DEFINE_integer("frames", default.frames, "interpolate: pictures of a strip, 2 or more.")
    flags.DEFINE_string(
        "animation", default.animation, "interpolate: form of the animations, gif or webp."
    )


def given_command() -> Command:
    """The values of the parsed flags."""
    values: dict[str, Any] = flags.FLAGS.flag_values_dict()
    given = flags.FLAGS["config"]
    values["config_file"] = config_flags.get_config_filename(given) if given.present else ""
    values["options"] = GenerateOptions(
        **{field.name: values[field.name] for field in fields(GenerateOptions)}
    )
    return Command(**{field.name: values[field.name] for field in fields(Command)})


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser; wrong fields and variants of a config are reported without a traceback.

    Args:
        argv: `sys.argv` itself, where config_flags looks for overrides; see `add_trained_config`.
    """
    add_trained_config(argv)
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:
        frames = traceback.extract_tb(error.__traceback__)
        for frame in reversed(frames):
            if frame.name == "get_config":  # the user's own file
                sys.exit(f"error: --config: {frame.filename}, line {frame.lineno}: {error}")
        sys.exit(f"error: --config has no such field: {error}. dgnet_jax/config.py lists all")
    except (flags.Error, OSError, KeyError, TypeError, ValueError) as error:
        # config_flags passes the error of a config file on as the text of its traceback.
        _, found, message = str(error).rpartition(f"{InputError.__name__}: ")
        sys.exit(f"error: {message.strip() if found else error}")


def add_trained_config(argv: list[str]) -> None:
    """Adds `--config=configs/trained.py:WORKDIR` where --mode needs a run and no --config is given.

    Its fields can then be overridden like those of any other: `--config.data.root=DIR`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("config", "mode", "workdir"):
        parser.add_argument(f"--{name}", f"-{name}")
    try:
        given, _ = parser.parse_known_args(argv[1:])
    except argparse.ArgumentError:  # a flag without its value: absl reports it
        return
    if given.config is None and given.workdir and given.mode not in (None, "train", "ablate"):
        beside = Path(argv[0]).resolve().parent / "configs" / "trained.py"
        file = beside if beside.is_file() else config.__file__
        argv.insert(1, f"--config={file}:{given.workdir}")
