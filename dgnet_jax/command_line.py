"""The command line of `launch.py`, and what the package's other commands share with it.

Nothing here imports what may touch a device: processes have to be joined first.
"""

import argparse
import re
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
from dgnet_jax.runtime.paths import user_path

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


class LossListParser(flags.ArgumentParser[list[str]]):
    """absl's parser of a list of losses: commas within parentheses separate parameters."""

    syntactic_help = "losses separated by commas, such as l1,barron(alpha=0,c=0.1)"

    def parse(self, argument: str | list[str]) -> list[str]:
        return argument if isinstance(argument, list) else config.split_list(argument)

    def flag_type(self) -> str:
        return "list of losses"


class LossListSerializer(flags.ArgumentSerializer[list[str]]):
    """Writes what `LossListParser` reads."""

    def serialize(self, value: list[str]) -> str:
        return ",".join(value)


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
    terms: list[str]
    objectives: list[str]
    trials: int
    sampler: str
    distributed: bool
    coordinator_address: str | None
    num_processes: int | None
    process_id: int | None
    initialization_timeout: int
    require_accelerator: bool


MODES = ("train", "evaluate", "generate", "ablate", "search", "describe")


def define_flags() -> None:
    """Defines all flags of all modes; once a process."""
    config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
    flags.DEFINE_string(
        "workdir",
        None,
        "The folder of the run; default runs/CONFIG_VARIANT, of a study runs/CONFIG_VARIANT_study, "
        "of a search runs/CONFIG_VARIANT_search.",
    )
    flags.DEFINE_enum("mode", "train", MODES, "What to do; describe prints every config field.")
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
    flags.DEFINE(
        LossListParser(),
        "losses",
        ["all"],
        "--mode=ablate: names or expressions, separated by commas; all is the thesis's seven "
        "losses and five fusions, printed the forms that it prints where they are others, beyond "
        "what it did not study.",
        serializer=LossListSerializer(),
    )
    flags.DEFINE_list(
        "seeds",
        ["0"],
        "--mode=ablate: seeds, such as 0,1,2. --mode=search: those of each trial, whose objectives "
        "are means.",
    )
    flags.DEFINE_string(
        "shard",
        None,
        "--mode=ablate: i/n, the part of the study that this process runs; i from 0. "
        "--mode=search: one of n processes, which share the trials.",
    )
    _define_search_flags()


def _define_search_flags() -> None:
    flags.DEFINE(
        LossListParser(),
        "terms",
        [],
        "--mode=search: losses, with ranges of weights and parameters where the default 0.05:5 and "
        "the losses' own are not wanted: l1,0.1:4*rmse,huber(delta=0.1:2).",
        serializer=LossListSerializer(),
    )
    flags.DEFINE_list(
        "objectives",
        ["fid", "mAP"],
        "--mode=search: metrics to improve, by the names of their columns in tables; several are a "
        "Pareto search.",
    )
    flags.DEFINE_integer(
        "trials",
        30,
        "--mode=search: in total, the thesis's twelve losses included, which come first.",
        lower_bound=1,
    )
    flags.DEFINE_enum("sampler", "tpe", ("tpe", "random"), "--mode=search: what suggests trials.")


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


# The modes that take a flag; all modes take the others.
MODES_OF = {
    "step": ("evaluate", "generate"),
    "output": ("evaluate", "generate"),
    "queries": ("evaluate",),
    "task": ("generate",),
    **{field.name: ("generate",) for field in fields(GenerateOptions)},
    "losses": ("ablate",),
    "seeds": ("ablate", "search"),
    "shard": ("ablate", "search"),
    "terms": ("search",),
    "objectives": ("search",),
    "trials": ("search",),
    "sampler": ("search",),
}
# Of default work directories.
_SUFFIXES = {"ablate": "study", "search": "search"}
# What may have been meant in the place of a flag of another mode.
_MEANT = {
    "seed": "--config.seed is the training's",
    "losses": "--config=FILE:LOSS chooses the loss of a training, --terms those of a search",
    "seeds": "--config.seed is the training's",
}


def given_command() -> Command:
    """The values of the parsed flags, with "~" in paths as the home folder.

    Raises:
        InputError: a flag is of another mode, or nothing says which folder the run's is.
    """
    values: dict[str, Any] = flags.FLAGS.flag_values_dict()
    _refuse_flags_of_other_modes(values["mode"])
    given = flags.FLAGS["config"]
    values["config_file"] = config_flags.get_config_filename(given) if given.present else ""
    workdir = values["workdir"] or default_workdir(values["config_file"], values["mode"])
    values["workdir"] = str(user_path(workdir))
    values["output"] = values["output"] and str(user_path(values["output"]))
    values["options"] = GenerateOptions(
        **{field.name: values[field.name] for field in fields(GenerateOptions)}
    )
    return Command(**{field.name: values[field.name] for field in fields(Command)})


def _refuse_flags_of_other_modes(mode: str) -> None:
    for name, modes in MODES_OF.items():
        if flags.FLAGS[name].present and mode not in modes:
            meant = f" ({_MEANT[name]})" if name in _MEANT else ""
            raise InputError(
                f"--{name}: is for --mode={' or '.join(modes)}, but the mode is {mode}. Leave the "
                f"flag out, or give --mode={modes[0]}{meant}"
            )


def default_workdir(config_file: str, mode: str) -> str:
    """The work directory of a command that names none.

    Args:
        config_file: --config as given, a file with its variant after a colon: `runs/FILE_VARIANT`
            is the folder of its run; the run itself for `configs/trained.py:RUN`.
        mode: a study and a search get folders of their own.

    Raises:
        InputError: there is no configuration to name it after.
    """
    if mode == "describe":
        return "runs"
    if not config_file:
        if mode in ("train", *_SUFFIXES):
            raise InputError("--config is missing, such as --config=configs/market.py:l1_rmse")
        raise InputError(f"--workdir is missing: --mode={mode} needs the folder of a run")
    file, _, variant = config_file.partition(":")
    if Path(file).name in ("trained.py", "config.py") and variant:
        if not variant.endswith(".safetensors"):
            return variant
        return f"runs/{Path(variant).stem}"
    words = [Path(file).stem, *variant.split(","), _SUFFIXES.get(mode, "")]
    plain = [re.sub(r"[^\w.+-]+", "_", word).strip("_") for word in words]
    return "runs/" + "_".join(word for word in plain if word)


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
    if given.config is None and given.workdir and given.mode in ("evaluate", "generate"):
        beside = Path(argv[0]).resolve().parent / "configs" / "trained.py"
        file = beside if beside.is_file() else config.__file__
        argv.insert(1, f"--config={file}:{given.workdir}")
