"""Any number of devices and processes trains as one device does."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import end_together, refusals, rows
from tiny import IDENTITIES, tiny_config, tiny_state

from dgnet_jax.errors import InputError
from dgnet_jax.models import build_networks
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.state import TrainState, make_optimizers

STEPS = 5
# Every loss from the first step on: one program of DG-Net's step is enough, on each kind of mesh.
FLAGS = (
    f"--config.total_steps={STEPS}",
    "--config.teacher.total_steps=3",
    "--config.ramp.start=-2",
)


@pytest.fixture(scope="module")
def one_device(launcher, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("one")
    launcher.finish(workdir, *FLAGS)
    return workdir


def last_state(workdir: Path) -> TrainState:
    config = tiny_config()
    networks = build_networks(config, IDENTITIES)
    like = tiny_state(networks, make_optimizers(config), 0)
    with Checkpoints(workdir / "dgnet" / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(like, STEPS)


def assert_same_training(one: Path, several: Path, ends: tuple[int, ...] = ()) -> None:
    """Losses to 1e-4, metrics of the ranking, and every tensor to a thousandth of its norm.

    `ends`: steps that `several` was evaluated at as well, where earlier parts of it ended.
    """
    expected, found = rows(one), rows(several)
    for step in ends:
        del found["evaluation", "dgnet", step]
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


@pytest.mark.slow
def test_eight_devices_of_one_process_train_as_one_does(launcher, one_device, tmp_path):
    launcher.finish(tmp_path / "eight", *FLAGS, devices=8)
    assert_same_training(one_device, tmp_path / "eight")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(launcher, one_device, tmp_path):
    workdir = tmp_path / "changing"
    for devices, start, steps in [(8, None, 2), (1, 2, 4), (4, 4, STEPS)]:
        run = launcher.finish(workdir, *FLAGS, f"--config.total_steps={steps}", devices=devices)
        (used,) = re.findall(r"devices: (.*)", run.said())
        assert len(used.split(", ")) == devices
        restored = re.findall(r"dgnet: continuing from step (\d+)", run.said())
        assert restored == ([] if start is None else [str(start)])
    assert_same_training(one_device, workdir, ends=(2, 4))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_two_processes_train_as_one_does(launcher, one_device, tmp_path, devices):
    runs = launcher.start_two(tmp_path / "two", *FLAGS, devices=devices)
    assert end_together(runs) == [0, 0], runs[0].said() + runs[1].said()
    assert_same_training(one_device, tmp_path / "two")
    # The table is the first process's to print.
    assert ["Rank@1" in run.said() for run in runs] == [True, False]


@pytest.mark.parametrize("size", [0, -8])
def test_a_batch_has_to_divide_over_the_devices(size):
    with pytest.raises(InputError, match="--config.batch_size: a batch of"):
        place().check_batch("batch_size", size)


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused_before_anything_starts(launcher, tmp_path):
    line = launcher.arguments(tmp_path / "new", "--config.batch_size=6")
    (said,) = refusals([line], devices=8)
    assert said.splitlines()[-1] == (
        "error: --config.batch_size: a batch of 6 does not divide over 8 devices; "
        "use a multiple of 8"
    )
    assert not (tmp_path / "new").exists()
