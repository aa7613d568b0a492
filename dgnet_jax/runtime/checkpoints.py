"""Checkpoints of a training run: asynchronous, the latest few kept, and the best by mAP.

Beside its arrays a checkpoint holds their checksums (`checksums/metadata`, JSON), which are
compared where it is read. One that is older than they are is read without.
"""

import contextlib
import errno
import json
import logging
import math
import os
import re
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from dgnet_jax.errors import InputError, disk_full, naming
from dgnet_jax.runtime.atomic import write_json
from dgnet_jax.runtime.checksums import changed, checksums
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.reading import ARCHIVE_BYTES, NotRegularError, check_regular, read_json

State = TypeVar("State")
# Which checkpoint: of that number of steps, or the one with the best mAP.
Step = int | Literal["best"]
_CHECKSUMS = "checksums"
# How tensorstore begins to say that a file is missing, too short, or not what was written ("Error "
# without a code is an invalid content). Memory, permissions and a failing disk begin otherwise.
_DAMAGE = re.compile("((DATA_LOSS|NOT_FOUND|OUT_OF_RANGE|FAILED_PRECONDITION): |Error )")
# What orbax stumbles over in a description that is JSON, but not the one that it expects.
_UNEXPECTED = (ValueError, LookupError, AttributeError, TypeError, NotImplementedError)
_STATUS = re.compile("[A-Z_]+: ")
# After which a folder that is being removed is gone.
_REMOVAL_SECONDS = 1.0


class _DamageError(Exception):
    """What is wrong with the files of a checkpoint."""


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


def last_saved(directory: Path) -> int | None:
    """The step of the last complete checkpoint in a folder, which is not opened; None for none.

    Whether it can be restored shows when it is.
    """
    if not directory.is_dir():
        return None
    steps = (int(path.name) for path in directory.iterdir() if path.name.isdecimal())
    return max(steps, default=None)


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

        Raises:
            InputError: `keep` is below 1, the evaluation of a checkpoint is damaged, or something
                in the folder is neither a file nor a folder.
        """
        if keep < 1:
            raise InputError(f"checkpoints to keep: found {keep}, at least 1 is needed to resume")
        _silence_orbax()
        self.directory = Path(directory).absolute()
        self._config, self._read_only = _plain(config), read_only
        self._refuse_special_files()
        self._refuse_damaged_metrics()
        try:
            self._manager = self._open(keep)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            # A save of this process that failed still writes into the folder that is removed.
            time.sleep(_REMOVAL_SECONDS)
            self._manager = self._open(keep)

    def _open(self, keep: int) -> _Manager:
        policies = ocp.checkpoint_managers
        return _Manager(
            self.directory,
            # A manager that has saved nothing yet reads an item's metadata by its handler.
            handler_registry=ocp.handlers.create_default_handler_registry(
                state=ocp.StandardCheckpointHandler(),
                config=ocp.JsonCheckpointHandler(),
                **{_CHECKSUMS: ocp.JsonCheckpointHandler()},
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
                create=not self._read_only,
                cleanup_tmp_directories=not self._read_only,
                read_only=self._read_only,
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

        Raises:
            DiskFullError: there was no room for it, or for the one before, which this waits for.
                The complete ones stay as they are.
        """
        if step in self._manager.all_steps():
            return False
        # Only the first process writes them.
        sums = checksums(_leaves(state)) if jax.process_index() == 0 else {}
        with naming(self.directory):  # the save before this one is waited for
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    config=ocp.args.JsonSave(self._config),
                    checksums=ocp.args.JsonSave(sums),
                ),
                metrics=_ranking(metrics or {}),
            )
        return True

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the evaluation of a checkpoint that was saved without one, such as at a stop.

        Args:
            step: of a checkpoint; nothing happens where it has metrics, or is not there any more.
            metrics: as `save`'s; nothing happens without a finite mAP.
        """
        found = _ranking(metrics)
        self.wait()
        if found is None or step not in self._manager.all_steps():
            return
        folder = self.directory / str(step) / "metrics"

        def write() -> None:
            # Asked here: another process would find what the first one has just written.
            if self._manager.metrics(step):
                return
            folder.mkdir(exist_ok=True)
            write_json(folder / "metrics", found, indent=None)

        on_first_process(write)
        self._manager.reload()

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
            InputError: there is no such checkpoint, it is of another state, a file of it is damaged
                or may not be read, or an array is not what was saved. What else happens, such as
                too little memory, is raised as it is.
        """
        step = self.choose_step(step)
        abstract = abstract_state(state)
        self._refuse_other(step, self._differences(step, abstract))
        with self._reading(step):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )["state"]
            self._verify(step, restored)
        return restored

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
        with self._reading(step):
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                restored = reader.restore(
                    self.directory / str(step) / "state",
                    args=ocp.args.PyTreeRestore(
                        abstract,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                        partial_restore=True,
                    ),
                )
            self._verify(step, restored)
        return restored

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
        with self._reading(step):
            metadata = self._manager.item_metadata(step)["state"]
            if metadata is None:
                raise _DamageError("its state/_METADATA is missing")
            return _leaves(metadata.tree)

    def _verify(self, step: int, restored: Any) -> None:
        """Raises _DamageError if an array is not the one that was saved."""
        folder = self.directory / str(step)
        try:
            recorded = read_json(folder / _CHECKSUMS / "metadata", dict[str, str], "")
        except FileNotFoundError as error:
            if (folder / _CHECKSUMS).exists() or _CHECKSUMS in _items(folder):
                raise _DamageError(f"{_CHECKSUMS}/metadata is missing") from error
            return  # older than checksums
        except InputError as error:
            if isinstance(error.__cause__, PermissionError):
                raise error.__cause__ from None
            raise _DamageError(str(error).strip()) from error
        names = changed(_leaves(restored), recorded)
        if names:
            raise _DamageError(f"not the numbers that were saved: {_first(sorted(names))}")

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Says what is wrong with the files of a checkpoint if that is what a block failed of."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
            folder = self.directory / str(step)
            if _is_missing_file(error) and self._read_only:
                # A training that removes it does so file by file.
                time.sleep(_REMOVAL_SECONDS)
            if not folder.is_dir():
                raise InputError(
                    f"{folder}: the checkpoint was removed while it was read: a training keeps the "
                    "latest few (log.keep_checkpoints) and the best. Choose a later one"
                ) from error
            if _proves_damage(error):
                raise InputError(self._damaged(step, error)) from error
            if isinstance(error, OSError) or str(error).startswith("PERMISSION_DENIED: "):
                raise InputError(
                    f"{folder}: the checkpoint cannot be read ({_detail(error)}). Look at its "
                    "permissions and at the disk"
                ) from error
            if isinstance(error, _UNEXPECTED) and not _STATUS.match(str(error)):
                raise InputError(
                    f"{folder}: the checkpoint cannot be read ({_detail(error)}). It was written "
                    f"by another release of orbax-checkpoint than {ocp.__version__}, or what "
                    "describes its arrays is damaged. Choose another step, or read it with the "
                    "release that wrote it"
                ) from error
            error.add_note(f"This came up while the checkpoint {folder} was read.")
            raise

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

    def _damaged(self, step: int, error: Exception) -> str:
        earlier = [s for s in sorted(self._manager.all_steps()) if s < step]
        advice = f"continue from step {earlier[-1]}" if earlier else "start afresh"
        return (
            f"{self.directory / str(step)}: the checkpoint is damaged ({_detail(error)}). "
            f"Delete this folder to {advice}."
        )

    def _refuse_special_files(self) -> None:
        """Raises InputError for a FIFO or a device, which orbax would read without end."""
        # Unlike Path.rglob, os.walk passes over folders that a running training removes meanwhile.
        for folder, _, names in os.walk(self.directory):
            for file in (Path(folder, name) for name in names):
                try:
                    check_regular(file, ARCHIVE_BYTES)
                except NotRegularError as error:
                    raise InputError(
                        f"{file}: {error}. Restore it, or remove the checkpoint that it is part of"
                    ) from error
                except OSError:  # removed, or orbax will say what it is
                    continue

    def _refuse_damaged_metrics(self) -> None:
        """Raises InputError if an evaluation is not one: orbax reads all of them to open."""
        for file in sorted(self.directory.glob("*/metrics/metrics")):
            remedy = (
                f"Delete {file.parent}: the evaluation of this checkpoint is lost, not its state"
            )
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, by a training
                read_json(file, dict[str, float], remedy)

    def wait(self) -> None:
        """Blocks until the save in progress is complete; raises the error it met, if any.

        Raises:
            DiskFullError: there was no room for it.
        """
        with naming(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the threads; raises as `wait`."""
        with naming(self.directory):
            self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _ranking(metrics: Mapping[str, float]) -> dict[str, float] | None:
    """The finite ones; None if the mAP is not among them."""
    finite = {n: float(value) for n, value in metrics.items() if math.isfinite(float(value))}
    return finite if "mAP" in finite else None


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


def _items(folder: Path) -> list[str]:
    """What orbax notes as saved in a checkpoint; nothing where it cannot be told."""
    try:
        noted = read_json(folder / "_CHECKPOINT_METADATA", dict[str, Any], "")
    except (InputError, OSError):
        return []
    return list(noted.get("item_handlers") or [])


def _is_missing_file(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or str(error).startswith("NOT_FOUND: ")


def _proves_damage(error: Exception) -> bool:
    if isinstance(error, ValueError):
        unparsable = json.JSONDecodeError, UnicodeDecodeError
        return isinstance(error, unparsable) or bool(_DAMAGE.match(str(error)))
    kinds = _DamageError, FileNotFoundError, NotADirectoryError, IsADirectoryError
    return isinstance(error, kinds)


def _detail(error: Exception) -> str:
    name = "" if isinstance(error, _DamageError) else f"{type(error).__name__}: "
    return textwrap.shorten(f"{name}{error}", 300)


def _first(items: list[str], count: int = 5) -> str:
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]) + more


class _WithoutOrbaxChatter(logging.Filter):
    """Drops what orbax says below an error: what matters of it is raised as an exception.

    So is a full disk, of which each of its threads prints a page, and so are the failed reads of a
    damaged checkpoint, of which asyncio reports all after the first as
    "never retrieved", a page each, below the error that says what to do.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "asyncio":
            return "OCDBT" not in record.getMessage()
        raised = record.exc_info[1] if record.exc_info else None
        if "orbax" in record.pathname and raised is not None and disk_full(raised):
            return False
        return record.levelno >= logging.ERROR or "orbax" not in record.pathname


def _silence_orbax() -> None:
    # Orbax logs through absl's one logger, whose level is the program's to choose: only orbax's own
    # dozens of lines per save are filtered.
    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        if not any(isinstance(present, _WithoutOrbaxChatter) for present in logger.filters):
            logger.addFilter(_WithoutOrbaxChatter())
