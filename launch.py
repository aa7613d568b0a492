"""Trains or evaluates DG-Net.

python launch.py --config=configs/market.py:l1_rmse --config.data.root=DIR --workdir=runs/l1_rmse
python launch.py --config=configs/quickstart.py:l1_rmse --workdir=runs/quickstart
python launch.py --mode=evaluate --workdir=runs/l1_rmse
"""

import logging as python_logging
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from dgnet_jax.errors import DivergedError, InputError

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.", required=True)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
_STEP = flags.DEFINE_integer("step", None, "--mode=evaluate: which checkpoint; default the last.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes; Slurm, TPU pods and MPI tell which one."
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process, from 0.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    # Imported after jax.distributed.initialize: nothing may touch a device before it.
    from dgnet_jax import report, trainer, workdir

    if jax.process_index() == 0:
        logging.info("devices: %s", ", ".join(str(device) for device in jax.devices()))
    config = _CONFIG.value
    if config is None:
        if _MODE.value == "train":
            raise app.UsageError("--config is missing, such as --config=configs/market.py:l1_rmse")
        config = workdir.load_config(_WORKDIR.value)
    try:
        config.lock()
    except OSError as error:  # a config file that is not there is first told here
        raise InputError(f"--config: {error}") from error
    if _MODE.value == "train":
        metrics = trainer.train(config, _WORKDIR.value)
    else:
        metrics = trainer.evaluate(config, _WORKDIR.value, _STEP.value)
    if jax.process_index() == 0:
        print(report.table(metrics, config))


def run(argv: list[str]) -> None:
    """Runs main; what a user can mend is told without a traceback."""
    from dgnet_jax.loop import Stopped

    try:
        main(argv)
    except (InputError, DivergedError) as error:
        sys.exit(f"error: {error}")
    except Stopped as stopped:
        print(f"{stopped}. The same command goes on from there.", file=sys.stderr)
        sys.exit(143 if stopped.signal_name == "SIGTERM" else 130)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser; wrong fields and variants of a config are told without a traceback."""
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:
        sys.exit(f"error: --config has no such field: {error}. configs/base.py lists all")
    except (flags.Error, OSError, KeyError, TypeError, ValueError) as error:
        # config_flags passes the error of a config file on as the text of its traceback.
        _, found, message = str(error).rpartition(f"{InputError.__name__}: ")
        sys.exit(f"error: {message.strip() if found else error}")


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    # It reports every kind of device that the machine does not have.
    python_logging.getLogger("jax._src.xla_bridge").setLevel(python_logging.WARNING)
    app.run(run, flags_parser=parse_flags)
