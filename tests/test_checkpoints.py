"""Checkpoints survive what happens to a run, and say what is wrong with a damaged one."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging as absl_logging

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
