"""Trains and evaluates DG-Net, generates images with it, studies and searches its losses.

python launch.py --config=configs/market.py:l1_rmse
python launch.py --config=configs/market.py:l1_rmse --config.data.root=DIR --workdir=runs/l1_rmse
python launch.py --config=configs/quickstart.py:l1_rmse --workdir=runs/quickstart
python launch.py --mode=evaluate --workdir=runs/l1_rmse
python launch.py --mode=evaluate --workdir=runs/l1_rmse --config.data.name=msmt17 \
    --config.data.root=DIR
python launch.py --mode=generate --workdir=runs/l1_rmse --task=swap
python launch.py --mode=ablate --config=configs/market.py:l1,small --config.data.root=DIR \
    --losses=all --seeds=0,1,2 --workdir=runs/study
python launch.py --mode=search --config=configs/quickstart.py:l1 --terms="l1,rmse,huber(0.1:2)" \
    --objectives=truth_l1,mAP --trials=30 --workdir=runs/search
python launch.py --mode=describe
"""

import logging as python_logging
import sys
from collections.abc import Iterator

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from dgnet_jax import command_line
from dgnet_jax.command_line import Command, parse_flags
from dgnet_jax.errors import DivergedError, InputError, one_line
from dgnet_jax.runtime.devices import join_processes

command_line.define_flags()
# --help lists the flags of this module alone.
flags.adopt_module_key_flags(command_line)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    command = command_line.given_command()
    if command.mode == "describe":
        from dgnet_jax.config_fields import described

        print(described(command.config))
        return
    if command.distributed or command.coordinator_address:
        join_processes(
            command.coordinator_address,
            command.num_processes,
            command.process_id,
            command.initialization_timeout,
        )
    first = jax.process_index() == 0
    if first:
        logging.info("devices: %s", ", ".join(str(device) for device in jax.devices()))
    if command.require_accelerator and jax.default_backend() == "cpu":
        raise InputError(
            "--require_accelerator: jax found CPUs only. BUILD.md, under Troubleshooting, says "
            "what to look at; without the flag the run would go on, far slower"
        )
    config = command.config
    if config is None:
        raise app.UsageError("--config is missing, such as --config=configs/market.py:l1_rmse")
    try:
        config.lock()
    except OSError as error:  # where config_flags reports a config file that is not there
        raise InputError(f"--config: {error}") from error
    if first:
        print(f"work directory: {command.workdir}")
    for text in MODES[command.mode](config, command):
        if first:
            print(text)


# Modules are imported where they are used: nothing may touch a device before `join_processes`.


def train(config: ConfigDict, command: Command) -> Iterator[str]:
    """Yields the table, and where the report is."""
    from dgnet_jax.evaluation.tables import table
    from dgnet_jax.training import trainer

    metrics = trainer.train(config, command.workdir)
    yield table(metrics, config)
    if config.get("report") and not config.get("baseline"):
        from dgnet_jax.ablation.report import write_run_report

        yield f"report: {write_run_report(command.workdir, config, metrics)}"


def evaluate(config: ConfigDict, command: Command) -> Iterator[str]:
    """Yields the table."""
    from dgnet_jax.evaluation import evaluator
    from dgnet_jax.evaluation.tables import evaluation_table

    found = evaluator.evaluate_fully(
        config,
        command.workdir,
        command.step,
        output=command.output,
        queries=command.queries,
        config_name=command.config_file,
    )
    yield evaluation_table(found)


def generate(config: ConfigDict, command: Command) -> Iterator[str]:
    """Yields a line for each file."""
    from dgnet_jax.generate import tasks

    for path in tasks.generate(
        config,
        command.workdir,
        command.task,
        command.options,
        step=command.step,
        output=command.output,
    ):
        yield f"wrote {path}"


def ablate(config: ConfigDict, command: Command) -> Iterator[str]:
    """Yields the tables, and where the report is."""
    from dgnet_jax.ablation.command import ablate

    yield ablate(config, command.workdir, command.losses, command.seeds, command.shard)


def search(config: ConfigDict, command: Command) -> Iterator[str]:
    """Yields the front, and where the report is."""
    from dgnet_jax.ablation.command import search

    yield search(
        config,
        command.workdir,
        terms=command.terms,
        objectives=command.objectives,
        trials=command.trials,
        seeds=command.seeds,
        sampler=command.sampler,
        shard=command.shard,
    )


MODES = {
    "train": train,
    "evaluate": evaluate,
    "generate": generate,
    "ablate": ablate,
    "search": search,
}


def run(argv: list[str]) -> None:
    """Runs main; what a user can correct ends it without a traceback."""
    from dgnet_jax.runtime.preemption import Stopped

    try:
        with one_line(InputError, DivergedError):
            main(argv)
    except Stopped as stopped:
        print(f"{stopped}. The same command goes on from there.", file=sys.stderr)
        sys.exit(143 if stopped.signal_name == "SIGTERM" else 130)


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    # It reports every kind of device that the machine does not have.
    python_logging.getLogger("jax._src.xla_bridge").setLevel(python_logging.WARNING)
    app.run(run, flags_parser=parse_flags)
