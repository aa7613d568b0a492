"""How `launch.py` reads its command line, and what the package's other commands share with it."""

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from dgnet_jax import config
from dgnet_jax.errors import InputError

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


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser; wrong fields and variants of a config are told without a traceback.

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
    """Adds the work directory's configuration where a run is there already, without a --config.

    Its fields can then be overridden like those of any other: `--config.data.root=DIR`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("config", "mode", "workdir"):
        parser.add_argument(f"--{name}", f"-{name}")
    try:
        given, _ = parser.parse_known_args(argv[1:])
    except argparse.ArgumentError:  # a flag without its value, which absl tells
        return
    if given.config is None and given.workdir and given.mode not in (None, "train", "ablate"):
        beside = Path(argv[0]).resolve().parent / "configs" / "trained.py"
        file = beside if beside.is_file() else config.__file__
        argv.insert(1, f"--config={file}:{given.workdir}")
