"""Checkpoints of a training run: asynchronous, the latest few kept, and the best by mAP."""

import logging
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from dgnet_jax.errors import InputError

State = TypeVar("State")
# Which checkpoint: of that number of steps, or the one with the best mAP.
Step = int | Literal["best"]


def abstract_state(state: State) -> State:
    """Replaces every array by its shape, dtype and sharding; other leaves stay as they are."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)


class _Manager(ocp.CheckpointManager):
    """Never asks jax whether the processes are to stop, as orbax does at every save.

    jax takes what it is asked with for the progress of the process: orbax, asking with the step and
    once more from a thread, would take back the number that `preemption` gave it.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints in one folder. A context manager: leaving it waits for the last save.

    In a multi-process run every process makes one and calls its methods at the same steps.
    """

    def __init__(
        self,
        directory: str | Path,
        config: ml_collections.ConfigDict | Mapping[str, Any] | None = None,
        keep: int = 3,
        read_only: bool = False,
    ):
        """Opens the folder, which is created, and removes what a killed save left in it.

        Args:
            directory: the folder of the checkpoints; one subfolder each, named by its step.
            config: stored beside every state, so that a checkpoint explains itself.
            keep: how many of the latest checkpoints stay; the best by mAP stays besides.
            read_only: for evaluation: creates, removes and saves nothing, so that a run which is
                training in the same folder is not disturbed.
        """
        if keep < 1:
            raise InputError(f"checkpoints to keep: found {keep}, at least 1 is needed to resume")
        _silence_orbax()
        self.directory = Path(directory).absolute()
        self._config = _plain(config)
        policies = ocp.checkpoint_managers
        self._manager = _Manager(
            self.directory,
            # A manager that has saved nothing yet reads an item's metadata by its handler.
            handler_registry=ocp.handlers.create_default_handler_registry(
                state=ocp.StandardCheckpointHandler(), config=ocp.JsonCheckpointHandler()
            ),
            options=ocp.CheckpointManagerOptions(
                # With a preservation policy best_fn no longer decides what is kept, but without it
                # the metrics are not written and best_step() is the latest step.
                best_fn=_mean_average_precision,
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(n=keep),
                        policies.BestN(
                            get_metric_fn=_mean_average_precision,
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> bool:
        """Starts writing `state`, whose buffers may be donated as soon as this returns.

        Args:
            step: the number of finished training steps in `state`.
            state: a tree of arrays and plain numbers.
            metrics: the evaluation of this very state; its `mAP` ranks the checkpoints. Without a
                finite mAP the checkpoint only counts as one of the latest.

        Returns:
            False if there is a checkpoint of this step already, which is left as it is.
        """
        if step in self._manager.all_steps():
            return False
        finite = {
            name: float(value)
            for name, value in (metrics or {}).items()
            if math.isfinite(float(value))
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(self._config)
            ),
            metrics=finite if "mAP" in finite else None,
        )
        return True

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, after waiting for one being written."""
        self.wait()
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the complete checkpoint with the best mAP; None if none was evaluated."""
        self.wait()
        step = self._manager.best_step()
        return step if step is not None and self._manager.metrics(step) else None

    def metrics(self, step: int) -> dict[str, float] | None:
        """The metrics that were saved with a step, or None."""
        self.wait()
        return self._manager.metrics(step)

    def restore(self, state: State, step: Step | None = None) -> State:
        """Reads a checkpoint.

        Args:
            state: a tree like the saved one that gives shapes, dtypes and shardings: the freshly
                initialised state, or its `abstract_state`.
            step: as `choose_step`'s.

        Raises:
            InputError: there is no such checkpoint, it is of another state, or it cannot be read.
        """
        step = self.choose_step(step)
        abstract = abstract_state(state)
        self._refuse_other(step, self._differences(step, abstract))
        try:
            return self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )["state"]
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
            raise InputError(self._unreadable(step, error)) from error

    def restore_part(self, state: State, step: Step | None = None) -> State:
        """Reads only the branches of a checkpoint that `state` has; the rest is not loaded.

        Args:
            state: nested dicts that name branches of the saved tree by their fields; they give
                shapes, dtypes and shardings, as in `restore`.
            step: as `choose_step`'s.

        Raises:
            InputError: as `restore`.
        """
        step = self.choose_step(step)
        abstract = abstract_state(state)
        self._refuse_other(step, self._differences(step, abstract, whole=False))
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                return reader.restore(
                    self.directory / str(step) / "state",
                    args=ocp.args.PyTreeRestore(
                        abstract,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                        partial_restore=True,
                    ),
                )
        except Exception as error:  # as in restore
            raise InputError(self._unreadable(step, error)) from error

    def choose_step(self, step: Step | None = None) -> int:
        """The step of a complete checkpoint, after waiting for one being written.

        Args:
            step: which checkpoint; "best" is the one with the best mAP, None the latest.

        Raises:
            InputError: there is no such checkpoint.
        """
        if step == "best":
            return self._choose_best()
        if isinstance(step, str):
            raise InputError(f"step: found {step!r}. Give a number of steps, or 'best'")
        self.wait()
        steps = sorted(self._manager.all_steps())
        chosen = self._manager.latest_step() if step is None else step
        if chosen is None or chosen not in steps:
            raise InputError(
                f"{self.directory}: no checkpoint{'' if step is None else f' of step {step}'}; "
                f"found steps {steps}. Train first, or choose one of these steps."
            )
        return chosen

    def _choose_best(self) -> int:
        step = self.best_step()
        metrics = None if step is None else self.metrics(step)
        if step is None or metrics is None:
            raise InputError(
                f"{self.directory}: no checkpoint has an evaluation, so none is the best; found "
                f"steps {sorted(self._manager.all_steps())}. Choose one of these steps, or train "
                "with --config.evaluation.every_steps=N, which evaluates every N steps"
            )
        absl_logging.info(
            "%s: the best checkpoint is of step %d, mAP %.4f",
            self.directory,
            step,
            _mean_average_precision(metrics),
        )
        return step

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays in a checkpoint, by dotted path.

        Raises:
            InputError: the checkpoint cannot be read.
        """
        return {name: tuple(leaf.shape) for name, leaf in self._stored(step).items()}

    def _stored(self, step: int) -> dict[str, Any]:
        try:
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise FileNotFoundError("its state/_METADATA is missing")
        except Exception as error:  # as in restore
            raise InputError(self._unreadable(step, error)) from error
        return _leaves(metadata.tree)

    def _refuse_other(self, step: int, differences: list[str]) -> None:
        if differences:
            raise InputError(
                f"{self.directory / str(step)}: the checkpoint is of another network or optimiser: "
                f"{_first(differences)}. Use the configuration it was trained with, or another "
                "work directory."
            )

    def _differences(self, step: int, abstract: Any, whole: bool = True) -> list[str]:
        """Compares stored and wanted leaves; orbax itself would cast another dtype silently."""
        stored, wanted = self._stored(step), _leaves(abstract)
        found = [f"{name} is missing in it" for name in wanted if name not in stored]
        if whole:
            found += [f"{name} is only in it" for name in stored if name not in wanted]
        for name in stored.keys() & wanted.keys():
            if not hasattr(wanted[name], "dtype"):  # a plain number
                continue
            needed = f"{wanted[name].dtype}{list(wanted[name].shape)}"
            present = f"{stored[name].dtype}{list(stored[name].shape)}"
            if needed != present:
                found.append(f"{name} is {present} in it, {needed} here")
        return sorted(found)

    def _unreadable(self, step: int, error: Exception) -> str:
        earlier = [s for s in sorted(self._manager.all_steps()) if s < step]
        advice = f"continue from step {earlier[-1]}" if earlier else "start afresh"
        detail = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        return (
            f"{self.directory / str(step)}: the checkpoint cannot be read ({detail}). "
            f"Delete this folder to {advice}."
        )

    def wait(self) -> None:
        """Blocks until the save in progress is complete; raises the error it met, if any."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the threads."""
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _mean_average_precision(metrics: Mapping[str, float]) -> float:
    return metrics["mAP"]


def _plain(config: ml_collections.ConfigDict | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(config, ml_collections.ConfigDict):
        return config.to_dict()
    return dict(config or {})


def _leaves(tree: Any) -> dict[str, Any]:
    """Leaves by dotted path; dataclasses, named tuples and lists look alike, as on the disk."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _first(items: list[str], count: int = 5) -> str:
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]) + more


class _WithoutOrbaxChatter(logging.Filter):
    """Drops what orbax says below an error: what matters of it is raised as an exception.

    So are the failed reads of a damaged checkpoint, of which asyncio reports all after the first as
    "never retrieved", a page each, below the error that says what to do.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "asyncio":
            return "OCDBT" not in record.getMessage()
        return record.levelno >= logging.ERROR or "orbax" not in record.pathname


def _silence_orbax() -> None:
    # Orbax logs through absl's one logger, whose level is the program's to choose: only orbax's own
    # dozens of lines per save are filtered.
    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        if not any(isinstance(present, _WithoutOrbaxChatter) for present in logger.filters):
            logger.addFilter(_WithoutOrbaxChatter())
