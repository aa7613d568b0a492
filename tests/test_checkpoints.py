"""Checkpoints survive what happens to a run, and say what is wrong with a damaged one."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from absl import logging as absl_logging
from processes import run_two

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.checkpoints import Checkpoints, abstract_state

REPOSITORY = Path(__file__).parents[1]


@flax.struct.dataclass
class State:
    step: jax.Array
    seed: int
    params: dict
    optimiser: tuple


def make_state(fill: float = 0.0, shape=(3, 4)) -> State:
    params = {"layer": {"kernel": jnp.full(shape, float(fill))}, "empty": {}}
    return State(jnp.int32(fill), 7, params, optax.adam(1e-3).init(params))


def steps_on_disk(directory: Path) -> list[int]:
    return sorted(int(entry.name) for entry in directory.iterdir())


def assert_same(tree, other):
    jax.tree.map(lambda ours, theirs: None, tree, other)  # raises if the structures differ
    for ours, theirs in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_latest_two_and_the_best_by_map_are_kept(tmp_path):
    accuracy = {0: 0.01, 10: 0.9, 20: None, 30: 0.3, 40: float("nan"), 50: None}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, value in accuracy.items():
            metrics = None if value is None else {"mAP": value, "rank1": 0.5}
            assert checkpoints.save(step, make_state(step), metrics)
        assert checkpoints.latest_step() == 50
        assert checkpoints.best_step() == 10
    assert steps_on_disk(tmp_path) == [10, 40, 50]
    with Checkpoints(tmp_path, keep=2) as reopened:
        assert (reopened.latest_step(), reopened.best_step()) == (50, 10)
        assert reopened.metrics(10) == {"mAP": 0.9, "rank1": 0.5}
        assert_same(reopened.restore(make_state(-1), reopened.best_step()), make_state(10))
        reopened.save(60, make_state(60), {"mAP": 0.95})
        assert reopened.best_step() == 60
    assert steps_on_disk(tmp_path) == [50, 60]


def test_without_evaluations_there_is_no_best_step(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(1, make_state())
        assert checkpoints.best_step() is None


def test_best_is_the_evaluated_checkpoint_of_the_best_map_and_is_logged(tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        for step, value in ((1, 0.3), (2, 0.4), (3, 0.2), (4, None)):
            checkpoints.save(step, make_state(step), None if value is None else {"mAP": value})
    with Checkpoints(tmp_path, read_only=True) as reader, caplog.at_level(logging.INFO, "absl"):
        logging.getLogger("absl").addHandler(caplog.handler)
        try:
            assert (reader.choose_step("best"), reader.choose_step()) == (2, 4)
        finally:
            logging.getLogger("absl").removeHandler(caplog.handler)
        assert_same(reader.restore(make_state(), "best"), make_state(2))
    assert f"{tmp_path}: the best checkpoint is of step 2, mAP 0.4000" in caplog.messages


def test_without_evaluations_best_says_so(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match=r"no checkpoint has an evaluation.*found steps \[\]"):
            checkpoints.choose_step("best")
        checkpoints.save(1, make_state(), {"mAP": float("nan")})
        with pytest.raises(InputError, match=r"found steps \[1\]. Choose one of these steps, or"):
            checkpoints.restore(make_state(), "best")
        with pytest.raises(InputError, match="step: found 'last'. Give a number of steps, or"):
            checkpoints.choose_step("last")


def test_a_second_save_of_a_step_is_left_out(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(1, make_state(1))
        assert not checkpoints.save(1, make_state(2))
        assert_same(checkpoints.restore(make_state()), make_state(1))


def test_the_saved_state_is_that_of_the_call_though_its_buffers_are_donated_and_overwritten(
    tmp_path,
):
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: 3 * x + 1, tree), donate_argnums=0)
    start = jax.random.normal(jax.random.key(0), (1500, 1500))
    expected = np.array(start)
    arrays, on_host = {"a": start, "b": start + 0}, np.array(start)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {**arrays, "host": on_host})
        on_host[:] = 0
        for _ in range(5):
            arrays = advance(arrays)
        jax.block_until_ready(arrays)
        restored = checkpoints.restore({**arrays, "host": on_host})
        for value in restored.values():
            np.testing.assert_array_equal(value, expected)
        del restored["host"]
        np.testing.assert_array_equal(
            advance(restored)["a"], jax.jit(lambda x: 3 * x + 1)(expected)
        )


def test_restoring_follows_the_shardings_of_the_given_state(tmp_path):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state(5))
        wanted = replace(make_state(), params=jax.device_put(make_state().params, sharding))
        restored = checkpoints.restore(abstract_state(wanted))
    assert restored.params["layer"]["kernel"].sharding == sharding
    assert isinstance(restored.optimiser[0], optax.ScaleByAdamState)
    assert type(restored.seed) is int
    assert_same(restored, make_state(5))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            make_state(shape=(3, 5)),
            r"params.layer.kernel is float32\[3, 4\] in it, float32\[3, 5\]",
        ),
        (replace(make_state(), params={"other": jnp.zeros(1)}), "params.other is missing in it"),
        (
            replace(make_state(), params={"layer": {"kernel": jnp.zeros((3, 4), jnp.bfloat16)}}),
            r"params.layer.kernel is float32\[3, 4\] in it, bfloat16\[3, 4\] here",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_with_what_differs(tmp_path, other, message):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state())
        with pytest.raises(InputError, match=message) as caught:
            checkpoints.restore(other)
    assert str(tmp_path / "5") in str(caught.value)


def largest_array_file(folder: Path) -> Path:
    return max((folder / "state").rglob("d/*"), key=lambda file: file.stat().st_size)


def noise(step: int) -> dict:
    """Arrays that do not compress, so that each byte of their file is a number's."""
    keys = jax.random.split(jax.random.key(step), 3)
    return {
        "a": jax.random.normal(keys[0], (200, 300)),
        "b": {"c": jax.random.bits(keys[1], (999,))},
        "bf16": jax.random.normal(keys[2], (64, 64), jnp.bfloat16),
        "steps": step,
    }


def flip_a_bit(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_byte_that_changed_in_an_array_is_found_and_the_array_named(tmp_path, place):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, noise(step))
    flip_a_bit(largest_array_file(tmp_path / "2"), place)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError) as caught:
            checkpoints.restore(noise(0))
        assert str(caught.value) == (
            f"{tmp_path / '2'}: the checkpoint is damaged (not the numbers that were saved: a). "
            "Delete this folder to continue from step 1."
        )
        with pytest.raises(InputError, match="not the numbers that were saved: a"):
            checkpoints.restore_part({"a": noise(0)["a"]})
        # The others are what they were.
        assert_same(checkpoints.restore_part({"b": noise(0)["b"]}), {"b": noise(2)["b"]})
        assert_same(checkpoints.restore(noise(0), 1), noise(1))


def test_the_checksums_are_those_of_zlib_by_the_names_of_the_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, noise(3))
    recorded = json.loads((tmp_path / "3" / "checksums" / "metadata").read_text())
    arrays = {"a": noise(3)["a"], "b.c": noise(3)["b"]["c"], "bf16": noise(3)["bf16"], "steps": 3}
    assert recorded == {
        name: f"{zlib.crc32(np.asarray(array).tobytes()):08x}" for name, array in arrays.items()
    }


def test_of_two_processes_the_first_writes_the_checksums_and_both_compare_them(tmp_path):
    program = textwrap.dedent(
        """
        import json, sys
        import jax
        rank, port = map(int, sys.argv[1:3])
        jax.distributed.initialize(f"localhost:{port}", 2, rank)
        import numpy as np
        from jax.experimental import multihost_utils
        from dgnet_jax.errors import InputError
        from dgnet_jax.runtime.checkpoints import Checkpoints
        from dgnet_jax.runtime.devices import place
        folder = sys.argv[3]
        numbers = {name: np.random.default_rng(seed).normal(size=(200, 300)).astype(np.float32)
                   for seed, name in enumerate("ab")}
        state = place().put_state(numbers)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, state)
            restored = checkpoints.restore(state)
            same = all(np.array_equal(restored[n].addressable_data(0), numbers[n]) for n in numbers)
            checkpoints.add_metrics(1, {"mAP": 0.5})
            best = checkpoints.best_step()
        if rank == 0:
            note = f"{folder}/1/checksums/metadata"
            recorded = json.load(open(note))
            json.dump({**recorded, "b": "00000000"}, open(note, "w"))
        multihost_utils.sync_global_devices("damaged")
        try:
            with Checkpoints(folder, read_only=True) as checkpoints:
                checkpoints.restore(state)
        except InputError as error:
            print(same, best, "not the numbers that were saved: b)" in str(error))
        """
    )
    said = run_two(["-c", program], str(tmp_path / "checkpoints"))
    assert [text.split()[-3:] for text in said] == [["True", "1", "True"]] * 2


def test_a_checkpoint_that_is_older_than_checksums_is_read(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    shutil.rmtree(tmp_path / "1" / "checksums")
    note = tmp_path / "1" / "_CHECKPOINT_METADATA"
    content = json.loads(note.read_text())
    del content["item_handlers"]["checksums"]
    note.write_text(json.dumps(content))
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(make_state()), make_state(1))


@pytest.mark.parametrize("damage", ["no folder", "no file", "no JSON", "another shape"])
def test_checksums_that_were_lost_are_not_taken_for_an_older_checkpoint(tmp_path, damage):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    file = tmp_path / "1" / "checksums" / "metadata"
    if damage == "no folder":
        shutil.rmtree(file.parent)
    elif damage == "no file":
        file.unlink()
    else:
        file.write_text("{" if damage == "no JSON" else '{"step": 5}')
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError) as caught:
        checkpoints.restore(make_state())
    assert "is damaged (" in str(caught.value) and "checksums/metadata" in str(caught.value)


def fail_with(monkeypatch, error: Exception) -> None:
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)


def test_what_is_no_damage_is_raised_as_it_is_and_nothing_is_to_be_deleted(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
        for error in (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"),
            MemoryError(),
            ValueError("RESOURCE_EXHAUSTED: Error opening file: Too many open files"),
        ):
            fail_with(monkeypatch, error)
            with pytest.raises(type(error)) as caught:
                checkpoints.restore(make_state())
            assert caught.value is error
            assert str(tmp_path / "1") in error.__notes__[0]
        for error, said in (
            (PermissionError(13, "Permission denied"), "Look at its permissions and at the disk"),
            (OSError(5, "Input/output error"), "Input/output error"),
            (ValueError("PERMISSION_DENIED: Error reading"), "PERMISSION_DENIED"),
            (KeyError("key_type"), "another release of orbax-checkpoint"),
        ):
            fail_with(monkeypatch, error)
            with pytest.raises(InputError, match=said) as caught:
                checkpoints.restore(make_state())
            assert "Delete" not in str(caught.value)
            assert "the checkpoint cannot be read (" in str(caught.value)


def test_a_checkpoint_that_a_training_removed_meanwhile_is_not_called_damaged(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step))
    with Checkpoints(tmp_path, read_only=True) as reader:
        shutil.rmtree(tmp_path / "2")
        for read in (reader.restore, reader.restore_part):
            with pytest.raises(
                InputError, match="2: the checkpoint was removed while it"
            ) as caught:
                read(make_state(), 2)
            assert "Delete" not in str(caught.value)
        with pytest.raises(InputError, match="2: the checkpoint was removed while it was read"):
            reader.shapes(2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_removal_that_is_under_way_is_waited_for(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    with Checkpoints(tmp_path, read_only=True) as reader:
        shutil.rmtree(tmp_path / "1" / "state" / "d")
        removal = threading.Timer(0.3, shutil.rmtree, [tmp_path / "1"])
        removal.start()
        with pytest.raises(InputError, match="1: the checkpoint was removed while it was read"):
            reader.restore(make_state())
        removal.join()


@pytest.mark.parametrize("content", [b"", b'{"mAP": 0.', b'{"mAP": "high"}'])
def test_a_damaged_evaluation_of_a_checkpoint_costs_no_state(tmp_path, content):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {"mAP": 0.5})
    folder = tmp_path / "1" / "metrics"
    (folder / "metrics").write_bytes(content)
    with pytest.raises(InputError, match=f"{folder}/metrics: .*Delete {folder}: the evaluation"):
        Checkpoints(tmp_path)
    shutil.rmtree(folder)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(make_state()), make_state(1))


def test_an_evaluation_can_be_added_to_a_checkpoint_once(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, make_state(1), {"mAP": 0.4})
        checkpoints.save(2, make_state(2))
        assert checkpoints.best_step() == 1
        checkpoints.add_metrics(2, {"rank1": 0.9})  # which ranks nothing
        assert checkpoints.metrics(2) is None
        checkpoints.add_metrics(2, {"mAP": 0.7, "rank1": 0.9, "mINP": float("nan")})
        checkpoints.add_metrics(2, {"mAP": 0.1})
        checkpoints.add_metrics(9, {"mAP": 0.1})
        assert checkpoints.best_step() == 2
        checkpoints.save(3, make_state(3))
    with Checkpoints(tmp_path, keep=1) as reopened:
        assert (reopened.best_step(), reopened.latest_step()) == (2, 3)
        assert reopened.metrics(2) == {"mAP": 0.7, "rank1": 0.9}
    assert steps_on_disk(tmp_path) == [2, 3]


# The reads that orbax abandons after the first failed one report to a closed event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["d", "_METADATA"])
def test_a_damaged_checkpoint_says_which_folder_to_delete(tmp_path, damage):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (5, 6):
            checkpoints.save(step, make_state(step))
    target = tmp_path / "6" / "state" / damage
    for file in target.iterdir() if target.is_dir() else [target]:
        file.write_bytes(b"damaged")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            InputError, match="Delete this folder to continue from step 5"
        ) as caught:
            checkpoints.restore(make_state())
        assert str(tmp_path / "6") in str(caught.value)
        assert_same(checkpoints.restore(make_state(), 5), make_state(5))


def test_restoring_without_a_checkpoint_names_the_folder(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match=f"{tmp_path}: no checkpoint"):
            checkpoints.restore(make_state())
        with pytest.raises(InputError, match="no checkpoint of step 3"):
            checkpoints.restore(make_state(), 3)


def test_a_reader_leaves_the_save_of_a_running_training_alone(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path, read_only=True) as reader:
        assert_same(reader.restore(make_state()), make_state(1))
    assert (tmp_path / "2.orbax-checkpoint-tmp").is_dir()


def test_orbax_is_silent_and_others_are_not(tmp_path, caplog):
    level = absl_logging.get_verbosity()
    try:
        absl_logging.set_verbosity(absl_logging.INFO)
        logging.getLogger("absl").addHandler(caplog.handler)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, make_state(1))
        absl_logging.info("ours")
    finally:
        logging.getLogger("absl").removeHandler(caplog.handler)
        absl_logging.set_verbosity(level)
    assert {record.getMessage() for record in caplog.records} == {"ours"}


def test_kill_9_during_a_save_leaves_the_step_before_and_the_same_step_can_be_saved_again(tmp_path):
    program = textwrap.dedent(
        f"""
        import jax.numpy as jnp, os, signal
        from dgnet_jax.runtime.checkpoints import Checkpoints
        state = lambda fill: {{"w": jnp.full((4000, 4000), fill)}}
        checkpoints = Checkpoints({str(tmp_path)!r})
        checkpoints.save(1, state(1.0))
        checkpoints.wait()
        checkpoints.save(2, state(2.0))
        while not os.path.exists({str(tmp_path / "2.orbax-checkpoint-tmp")!r}):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert killed.returncode == -signal.SIGKILL
    assert {entry.name for entry in tmp_path.iterdir()} == {"1", "2.orbax-checkpoint-tmp"}
    like = {"w": jnp.zeros((4000, 4000))}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert float(checkpoints.restore(like)["w"].min()) == 1.0
        assert checkpoints.save(2, {"w": jnp.full((4000, 4000), 5.0)})
        assert float(checkpoints.restore(like)["w"].max()) == 5.0
    assert steps_on_disk(tmp_path) == [1, 2]


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_file_in_a_checkpoint_is_refused_and_not_read_without_end(tmp_path, kind):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state())
    for file in (tmp_path / "5" / "state" / "_METADATA", tmp_path / "5" / "_CHECKPOINT_METADATA"):
        content = file.read_bytes()
        file.unlink()
        if kind == "fifo":
            os.mkfifo(file)
        else:
            file.symlink_to("/dev/zero")
        with pytest.raises(InputError, match=f"{file.name}: a .*, not a file"):
            Checkpoints(tmp_path, read_only=True)
        file.unlink()
        file.write_bytes(content)


def test_a_step_that_a_training_removes_while_a_reader_opens_is_passed_over(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state())
    looked_into = os.scandir

    def scandir(path="."):
        if not isinstance(path, int) and os.fspath(path) == str(tmp_path / "1"):
            shutil.rmtree(path)
        return looked_into(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        monkeypatch.undo()
        assert not (tmp_path / "1").exists()
        assert checkpoints.latest_step() == 2
