"""Runs of this and of earlier releases are read, mean the same, and go on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from make_stored_run import STEPS, compute, describe, read_states
from processes import rows, saved_steps, tiny_data

import dgnet_jax
from configs import trained

RUNS = sorted((Path(__file__).parent / "data").glob("run_*.zip"))
assert RUNS, "tests/make_stored_run.py makes one"

pytestmark = pytest.mark.parametrize("archive", RUNS, ids=[path.stem for path in RUNS])


def unpacked(archive: Path, folder: Path) -> Path:
    shutil.unpack_archive(archive, folder)
    return folder


def test_its_checkpoints_hold_the_numbers_that_were_saved(archive, tmp_path):
    workdir = unpacked(archive, tmp_path)
    states = read_states(workdir, trained.get_config(str(workdir)))
    expected = json.loads(archive.with_suffix(".json").read_text())["states"]
    found = {stage: describe(state) for stage, state in states.items()}
    assert found.keys() == expected.keys()
    for stage, fields in expected.items():
        assert found[stage].keys() == fields.keys()
        for name, numbers in fields.items():
            # Not exactly: NumPy may sum in another order.
            assert found[stage][name] == pytest.approx(numbers, rel=1e-12), (stage, name)


@pytest.mark.slow
def test_its_networks_compute_what_they_computed(archive, tmp_path):
    found = compute(unpacked(archive, tmp_path))
    expected = json.loads(archive.with_suffix(".json").read_text())["computed"]
    picture, painted = expected.pop("picture"), found.pop("picture")
    np.testing.assert_allclose(painted, picture, atol=1)
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name], numbers, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_its_training_goes_on_for_a_step(archive, tmp_path, tmp_path_factory):
    workdir = unpacked(archive, tmp_path)
    config = trained.get_config(str(workdir))
    before = read_states(workdir, config)
    config.data.root = str(tiny_data(tmp_path_factory))
    config.total_steps = STEPS + 1
    metrics = dgnet_jax.train(config, workdir)
    assert 0 < metrics["mAP"] <= 1

    # The teacher, which is finished, is neither trained nor evaluated again.
    logged = rows(workdir)
    assert logged.keys() == {("train", "dgnet", STEPS + 1), ("evaluation", "dgnet", STEPS + 1)}
    assert np.isfinite(list(logged["train", "dgnet", STEPS + 1].values())).all()
    assert saved_steps(workdir, "teacher") == [STEPS]
    assert saved_steps(workdir, "dgnet") == [STEPS, STEPS + 1]
    after = read_states(workdir, config)
    assert describe(after["teacher"]) == describe(before["teacher"])
    assert int(after["dgnet"].step) == STEPS + 1
    for name in ("generator", "appearance", "discriminator"):
        moved = describe(after["dgnet"])[name]["squares"]
        assert moved == pytest.approx(describe(before["dgnet"])[name]["squares"], rel=0.1)
        assert moved != describe(before["dgnet"])[name]["squares"]
