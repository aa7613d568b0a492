"""Trains or evaluates DG-Net.

python launch.py --config=configs/market.py:l1_rmse --config.data.root=DIR --workdir=runs/l1_rmse
python launch.py --config=configs/quickstart.py:l1_rmse --workdir=runs/quickstart
python launch.py --mode=evaluate --workdir=runs/l1_rmse
python launch.py --mode=evaluate --workdir=runs/l1_rmse --config.data.name=msmt17 \
    --config.data.root=DIR
python launch.py --mode=generate --workdir=runs/l1_rmse --task=swap
python launch.py --mode=ablate --config=configs/market.py:l1,small --config.data.root=DIR \
    --losses=all --seeds=0,1,2 --workdir=runs/study
"""

import logging as python_logging
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from dgnet_jax.ablation import flags as ablation_flags
from dgnet_jax.command_line import StepParser, parse_flags
from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.generate import flags as generate_flags
from dgnet_jax.runtime.devices import join_processes

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.", required=True)
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "generate", "ablate"], "What to do."
)
_STEP = flags.DEFINE(
    StepParser(), "step", None, "--mode=evaluate, generate: which checkpoint; default the last."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "--mode=evaluate: the JSON file; default evaluation.json in the work directory. "
    "--mode=generate: the folder; default WORKDIR/generated/TASK.",
)
_QUERIES = flags.DEFINE_list(
    "queries", [], "--mode=evaluate: file names of the queries whose ranked lists are drawn."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes; Slurm, TPU pods and MPI tell which one."
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
_REQUIRE_ACCELERATOR = flags.DEFINE_bool(
    "require_accelerator", False, "End with an error where there is neither a GPU nor a TPU."
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process, from 0.")
_TIMEOUT = flags.DEFINE_integer(
    "initialization_timeout",
    300,
    "Seconds to wait for process 0, and for all processes to be there.",
    lower_bound=1,
)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if _DISTRIBUTED.value or _COORDINATOR.value:
        join_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _TIMEOUT.value)
    # Imported after join_processes: nothing may touch a device before it.
    from dgnet_jax.evaluation import evaluator
    from dgnet_jax.evaluation import tables as report
    from dgnet_jax.training import trainer

    if jax.process_index() == 0:
        logging.info("devices: %s", ", ".join(str(device) for device in jax.devices()))
    if _REQUIRE_ACCELERATOR.value and jax.default_backend() == "cpu":
        raise InputError(
            "--require_accelerator: jax found CPUs only. BUILD.md, under Troubleshooting, says "
            "what to look at; without the flag the run would go on, far slower"
        )
    config = _CONFIG.value
    if config is None:
        raise app.UsageError("--config is missing, such as --config=configs/market.py:l1_rmse")
    try:
        config.lock()
    except OSError as error:  # a config file that is not there is first told here
        raise InputError(f"--config: {error}") from error
    if _MODE.value == "train":
        metrics = trainer.train(config, _WORKDIR.value)
        table = report.table(metrics, config)
    elif _MODE.value == "ablate":
        from dgnet_jax.ablation.command import ablate

        losses, seeds = ablation_flags.LOSSES.value, ablation_flags.SEEDS.value
        table = ablate(config, _WORKDIR.value, losses, seeds, ablation_flags.SHARD.value)
    elif _MODE.value == "generate":
        from dgnet_jax.generate.command import generate

        task = generate_flags.TASK.value
        paths = generate(config, _WORKDIR.value, task, _STEP.value, _OUTPUT.value)
        table = "\n".join(f"wrote {path}" for path in paths)
    else:
        found = evaluator.evaluate_fully(
            config,
            _WORKDIR.value,
            _STEP.value,
            output=_OUTPUT.value,
            queries=_QUERIES.value,
            config_name=config_flags.get_config_filename(flags.FLAGS["config"]),
        )
        table = report.evaluation_table(found)
    if jax.process_index() == 0:
        print(table)
    if _MODE.value == "train" and config.get("report") and not config.get("baseline"):
        from dgnet_jax.ablation.report import write_run_report

        page = write_run_report(_WORKDIR.value, config, metrics)
        if jax.process_index() == 0:
            print(f"report: {page}")


def run(argv: list[str]) -> None:
    """Runs main; what a user can mend is told without a traceback."""
    from dgnet_jax.runtime.preemption import Stopped

    try:
        main(argv)
    except (InputError, DivergedError) as error:
        sys.exit(f"error: {error}")
    except Stopped as stopped:
        print(f"{stopped}. The same command goes on from there.", file=sys.stderr)
        sys.exit(143 if stopped.signal_name == "SIGTERM" else 130)


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    # It reports every kind of device that the machine does not have.
    python_logging.getLogger("jax._src.xla_bridge").setLevel(python_logging.WARNING)
    app.run(run, flags_parser=parse_flags)
