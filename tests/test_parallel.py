"""Any number of devices and processes trains as one device does."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import Run, end_together, rows, saved_steps
from tiny import IDENTITIES, tiny_config, tiny_state

from dgnet_jax.errors import InputError
from dgnet_jax.models import build_networks
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.state import TrainState, make_optimizers

STEPS = 5
# Every loss from the first step on: one program of DG-Net's step is enough, on each kind of mesh.
FLAGS = (
    "--config.teacher.total_steps=3",
    "--config.ramp.start=-2",
    "--config.evaluation.every_steps=3",
)


def total(steps: int) -> str:
    return f"--config.total_steps={steps}"


@pytest.fixture(scope="module")
def one_device(launcher, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("one")
    launcher.finish(workdir, *FLAGS, total(STEPS))
    return workdir


def last_state(workdir: Path) -> TrainState:
    config = tiny_config()
    networks = build_networks(config, IDENTITIES)
    like = tiny_state(networks, make_optimizers(config), 0)
    with Checkpoints(workdir / "dgnet" / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(like, STEPS)


def assert_same_training(one: Path, several: Path) -> None:
    """Losses to 1e-4, metrics of the ranking, and every tensor to a thousandth of its norm."""
    expected, found = rows(one), rows(several)
    assert found.keys() == expected.keys()
    assert {step for kind, stage, step in found if (kind, stage) == ("train", "dgnet")} == set(
        range(1, STEPS + 1)
    )
    for key, row in expected.items():
        tolerance = 1e-4 if key[0] == "train" else 1e-2
        assert found[key] == pytest.approx(row, rel=tolerance, abs=1e-6), key
    states = last_state(one), last_state(several)
    for name in ("generator", "appearance", "appearance_stats", "discriminator"):
        leaves = zip(*(jax.tree.leaves(getattr(state, name)) for state in states), strict=True)
        for ours, theirs in leaves:
            ours, theirs = np.asarray(ours), np.asarray(theirs)
            # A bias in front of an instance norm has no gradient but rounding, which Adam scales
            # up to its full rate of 1e-4.
            rounding = 1e-4 * STEPS * np.sqrt(ours.size) if np.linalg.norm(ours) < 1e-2 else 0
            difference = np.linalg.norm(ours - theirs)
            assert difference <= 1e-3 * np.linalg.norm(ours) + rounding


def continued(run: Run, devices: int) -> list[int]:
    """The steps of DG-Net that a run of so many devices went on from: none or one."""
    (used,) = re.findall(r"devices: (.*)", run.said())
    assert len(used.split(", ")) == devices
    return [int(step) for step in re.findall(r"dgnet: continuing from step (\d+)", run.said())]


@pytest.mark.slow
def test_other_numbers_of_devices_and_processes_in_turn_train_as_one_device_does(
    launcher, one_device, tmp_path
):
    """Two processes until a SIGTERM, two of two devices each, then eight devices of one process."""
    runs = launcher.start_two(tmp_path, *FLAGS, total(40))
    runs[0].wait_until(lambda: "teacher step 3 evaluated" in runs[0].said())
    runs[1].terminate()
    assert end_together(runs) == [143, 143], runs[0].said() + runs[1].said()
    ends = {run.said().splitlines()[-1] for run in runs}
    assert len(ends) == 1
    assert "SIGTERM: stopped and saved at step" in ends.pop()
    assert continued(runs[0], devices=2) == []
    stopped = saved_steps(tmp_path, "dgnet")[-1]
    # jax looks for the signal once a second, in which a step may begin; with the steps of one stage
    # alone they would stop at the step that the teacher ended with.
    assert stopped < 3

    runs = launcher.start_two(tmp_path, *FLAGS, total(3), devices=2)
    assert end_together(runs) == [0, 0], runs[0].said() + runs[1].said()
    assert continued(runs[0], devices=4) == [stopped]
    # The table is the first process's to print.
    assert ["Rank@1" in run.said() for run in runs] == [True, False]

    run = launcher.finish(tmp_path, *FLAGS, total(STEPS), devices=8)
    assert continued(run, devices=8) == [3]
    assert_same_training(one_device, tmp_path)


@pytest.mark.parametrize("size", [0, -8])
def test_a_batch_has_to_divide_over_the_devices(size):
    with pytest.raises(InputError, match="--config.batch_size: a batch of"):
        place().check_batch("batch_size", size)
