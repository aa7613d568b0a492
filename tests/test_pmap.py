"""`--config.parallel=pmap`: batch norms see one device's images, all else is as on the mesh."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import end_together, launches, refusals, rows, run_script
from spread_steps import CASES, TEACHER
from tiny import IDENTITIES, tiny_config, tiny_state

from dgnet_jax.data.randomness import Share
from dgnet_jax.errors import InputError
from dgnet_jax.models import build_networks
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import Placement, place
from dgnet_jax.runtime.workdir import load_config
from dgnet_jax.training.state import TrainState, make_optimizers

PMAP, MESH = "--config.parallel=pmap", "--config.parallel=mesh"
# Every program is compiled for each form and number of devices: on one device all ramped terms are
# there from the first step on, on several they begin after the last.
TEACHER_STEPS = "--config.teacher.total_steps=3"
WITH_ALL_TERMS = (TEACHER_STEPS, "--config.ramp.start=-2")
BEFORE_THE_RAMPS = (TEACHER_STEPS, "--config.ramp.start=10", "--config.evaluation.every_steps=2")
SHARES = 8
# Two programs round alike to the bit by XLA's fusion emitters, not by what it writes without them.
BY_EMITTERS = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=1"
}


def total(steps: int) -> str:
    return f"--config.total_steps={steps}"


@pytest.fixture(scope="module")
def spread(tmp_path_factory) -> dict[str, np.ndarray]:
    """Steps on eight devices and by hand, of `spread_steps`."""
    out = tmp_path_factory.mktemp("spread") / "steps.npz"
    run_script("tests/spread_steps.py", str(out), devices=8, environment={"JAX_ENABLE_X64": "1"})
    with np.load(out) as arrays:
        return dict(arrays)


def last_state(workdir: Path) -> TrainState:
    config = tiny_config()
    networks = build_networks(config, IDENTITIES)
    like = tiny_state(networks, make_optimizers(config), 0)
    with Checkpoints(workdir / "dgnet" / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(like)


def form(spread: dict[str, np.ndarray], case: str, name: str) -> dict[str, np.ndarray]:
    head = f"{case}/{name}/"
    return {key.removeprefix(head): leaf for key, leaf in spread.items() if key.startswith(head)}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """State, optimisers, running statistics and losses, in float64."""
    assert found.keys() == expected.keys()
    assert any("_stats." in path for path in found) and any(path[0] == "1" for path in found)
    for path, leaf in expected.items():
        # A bias in front of a batch norm has no gradient but rounding.
        tolerance = 1e-9 * np.abs(leaf).max() + 1e-12
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=tolerance, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_step_under_pmap_is_that_of_batch_norms_over_shares_of_the_batch(spread, case):
    """The draws are the same too."""
    assert_same(form(spread, case, "pmap"), form(spread, case, "by hand"))


@pytest.mark.slow
def test_on_several_devices_the_teacher_under_mesh_is_that_of_one_device_and_under_pmap_another(
    spread,
):
    mesh, pmap = form(spread, TEACHER, "mesh"), form(spread, TEACHER, "pmap")
    assert_same(mesh, form(spread, TEACHER, "one device"))
    assert abs(mesh["1.cross_entropy"] / pmap["1.cross_entropy"] - 1) > 1e-3


@pytest.mark.slow
def test_on_one_device_a_run_under_pmap_is_one_under_mesh_to_the_bit(launcher, tmp_path):
    # No rankings: they would be those of states that are equal to the bit.
    flags = (*WITH_ALL_TERMS, total(3), "--config.evaluation.every_steps=-1")
    lines = [
        launcher.arguments(tmp_path / form, *flags, f"--config.parallel={form}")
        for form in ("mesh", "pmap")
    ]
    for ended in launches(lines, devices=1, environment=BY_EMITTERS):
        assert ended.code == 0, ended.said
    mesh, pmap = rows(tmp_path / "mesh"), rows(tmp_path / "pmap")
    assert pmap == mesh
    assert mesh["train", "dgnet", 3]["teacher"] > 0
    leaves = zip(
        *(jax.tree.leaves(last_state(tmp_path / name)) for name in ("mesh", "pmap")), strict=True
    )
    assert all(np.array_equal(one, other) for one, other in leaves)


@pytest.mark.slow
def test_two_processes_of_two_devices_train_as_one_of_four_which_goes_on_in_either_form(
    launcher, tmp_path
):
    four, two = tmp_path / "four", tmp_path / "two"
    runs = launcher.start_two(two, *BEFORE_THE_RAMPS, total(2), PMAP, devices=2)
    assert end_together(runs) == [0, 0], runs[0].said() + runs[1].said()
    quick = "--config.evaluation.generated_images=False"
    lines = [
        launcher.arguments(four, *BEFORE_THE_RAMPS, total(3), PMAP),
        # What two processes have saved.
        launcher.arguments(two, *BEFORE_THE_RAMPS, total(3), MESH),
        launcher.arguments(two, *BEFORE_THE_RAMPS, total(4), PMAP),
        launcher.arguments(two, "--mode=evaluate", quick, config=None),
    ]
    ended = launches(lines, devices=4)
    assert [code for code, _ in ended] == [0] * len(lines), ended
    assert "Rank@1" in ended[-1].said
    assert load_config(two).parallel == "pmap"

    expected, found = rows(four), rows(two)
    steps = [step for kind, stage, step in found if (kind, stage) == ("train", "dgnet")]
    assert steps == [1, 2, 3, 4]
    for key, row in expected.items():
        kind, stage, step = key
        if (stage, step) != ("dgnet", 3):
            tolerance = 1e-4 if kind == "train" else 1e-2
            assert found[key] == pytest.approx(row, rel=tolerance, abs=1e-6), key
    # The third step of nearly the same state, by other batch norms.
    step = "train", "dgnet", 3
    pmap, mesh = expected[step]["identity"], found[step]["identity"]
    assert mesh == pytest.approx(pmap, rel=0.5) and mesh != pytest.approx(pmap, rel=1e-4)


def of_devices(count: int, parallel: str) -> Placement:
    """A placement whose mesh only says how many devices it has."""
    mesh = jax.sharding.AbstractMesh((count,), ("data",))
    return place(parallel)._replace(mesh=mesh)  # type: ignore[arg-type]


def test_under_pmap_a_device_needs_two_images():
    with pytest.raises(InputError, match="--config.teacher.batch_size: .*use 16 or more"):
        of_devices(8, "pmap").check_batch("teacher.batch_size", 8)
    of_devices(8, "pmap").check_batch("teacher.batch_size", 16)
    of_devices(8, "mesh").check_batch("teacher.batch_size", 8)


@pytest.mark.parametrize("size, warned", [(16, True), (24, True), (32, False)])
def test_under_pmap_few_images_a_device_are_warned_of(caplog, size, warned):
    of_devices(8, "pmap").check_batch("batch_size", size)
    assert ("Use 32 or more on 8 devices" in caplog.text) == warned
    caplog.clear()
    of_devices(8, "mesh").check_batch("batch_size", size)
    of_devices(1, "pmap").check_batch("batch_size", 2)
    assert not caplog.text


@pytest.mark.parametrize("parallel", ["mesh", "pmap"])
def test_one_image_is_no_batch(parallel):
    with pytest.raises(InputError, match="--config.batch_size: one image has no variance"):
        of_devices(1, parallel).check_batch("batch_size", 1)
    of_devices(1, parallel).check_batch("batch_size", 2)


REFUSED = {
    ("--config.batch_size=6",): (
        "--config.batch_size: a batch of 6 does not divide over 8 devices; use a multiple of 8"
    ),
    ("--config.parallel=xyz",): "--config.parallel: found 'xyz'. Give 'mesh' or 'pmap'",
    (PMAP,): "--config.batch_size: with --config.parallel=pmap a device normalises its own",
    (PMAP, "--config.batch_size=16"): (
        "--config.teacher.batch_size: with --config.parallel=pmap a device normalises its own"
    ),
    (PMAP, "--config.baseline=True"): (
        "--config.teacher.batch_size: with --config.parallel=pmap a device normalises its own"
    ),
    (PMAP, "--config.batch_size=16", "--mode=ablate", "--losses=l1", "--seeds=0"): (
        "--config.teacher.batch_size: with --config.parallel=pmap a device normalises its own"
    ),
}


@pytest.mark.slow
def test_what_cannot_be_is_refused_before_anything_starts(launcher, tmp_path):
    folders = [tmp_path / str(index) for index in range(len(REFUSED))]
    lines = [
        launcher.arguments(folder, *flags) for folder, flags in zip(folders, REFUSED, strict=True)
    ]
    for folder, message, said in zip(
        folders, REFUSED.values(), refusals(lines, devices=8), strict=True
    ):
        assert said.splitlines()[-1].startswith(f"error: {message}")
        assert not folder.exists()


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 4, 100)])
def test_shares_of_a_draw_make_up_the_whole(shape):
    def sampler(shape):
        return jax.random.uniform(jax.random.key(3), shape)

    parts = [Share(index, SHARES).draw(sampler, shape) for index in range(SHARES)]
    whole = sampler((SHARES * shape[0], *shape[1:]))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(np.unique(whole)) > 0.99 * whole.size


def test_shares_of_integers_with_limits_of_their_own_make_up_the_whole():
    key = jax.random.key(5)
    limits = jnp.asarray(np.random.default_rng(0).integers(1, 300, (SHARES * 3, 4)), jnp.int32)
    parts = [
        Share(index, SHARES).randint(key, limits[3 * index : 3 * index + 3])
        for index in range(SHARES)
    ]
    whole = Share().randint(key, limits)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole >= 0).all() and (whole < limits).all() and len(np.unique(whole)) > 30
