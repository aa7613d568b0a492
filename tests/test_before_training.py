"""What a run finds out before its teacher, hours of work, is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import tiny_config

from dgnet_jax.ablation import Study, runner
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.checkpoints import last_saved
from dgnet_jax.training import session, trainer


class TeacherBegunError(Exception):
    """The training of the teacher was asked for."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    draw_dataset(
        folder,
        train_identities=5,
        test_identities=3,
        images_per_identity_camera=2,
        distractors=0,
        junk=0,
        height=32,
        width=16,
    )
    return folder


@pytest.fixture(autouse=True)
def no_teacher(monkeypatch) -> None:
    def begun(*_: Any) -> None:
        raise TeacherBegunError

    monkeypatch.setattr(trainer, "get_teacher", begun)
    monkeypatch.setattr(runner, "study_teacher", begun)


def train(root: Path, workdir: Path, fields: dict[str, Any]) -> None:
    config = tiny_config({"data.name": "folder", "data.root": str(root), **fields})
    trainer.train(config, workdir)


STEPS = {"total_steps": 8, "ramp.start": 4}


def break_steps(monkeypatch: pytest.MonkeyPatch, broken: set[int]) -> None:
    """Steps with the terms that these have cannot be traced."""
    config = tiny_config(STEPS)
    terms = [session.active_terms(config, step) for step in sorted(broken)]
    assert session.active_terms(config, 0) != session.active_terms(config, 7)
    original = session.make_train_step

    def make(
        config: Any, networks: Any, optimizers: Any, active: Any, *rest: Any, **options: Any
    ) -> Any:
        if active in terms:

            def step(*_: Any) -> None:
                raise ValueError("shapes do not fit")

            return step
        return original(config, networks, optimizers, active, *rest, **options)

    monkeypatch.setattr(session, "make_train_step", make)


@pytest.mark.parametrize("broken", [{0}, {7}, set()])
def test_the_first_and_the_last_step_are_traced(monkeypatch, root, tmp_path, broken):
    break_steps(monkeypatch, broken)
    expected = pytest.raises(ValueError, match="shapes do not fit")
    with expected if broken else pytest.raises(TeacherBegunError):
        train(root, tmp_path / "run", STEPS)


def test_the_last_checkpoint_is_found_without_opening_the_folder(tmp_path):
    assert last_saved(tmp_path / "checkpoints") is None
    for name in ("2", "10", "11.orbax-checkpoint-tmp-0"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert last_saved(tmp_path / "checkpoints") == 10


@pytest.mark.parametrize(("saved", "broken"), [(7, {0}), (7, {7}), (8, {0, 7})])
def test_a_run_that_goes_on_traces_what_it_has_left(monkeypatch, root, saved, broken):
    """The steps after the ramps, or none where the last step is done."""
    break_steps(monkeypatch, broken)
    config = tiny_config({"data.name": "folder", "data.root": str(root), **STEPS})
    config = trainer.checked(config)
    if (saved, broken) == (7, {7}):
        with pytest.raises(ValueError, match="shapes do not fit"):
            trainer.check_run(config, session.Session(config), saved=saved)
    else:
        assert trainer.check_run(config, session.Session(config), saved=saved).step.shape == ()


def backbone(path: Path) -> str:
    save_file({"conv1.weight": np.zeros((1, 3, 7, 7), np.float32)}, path)
    return str(path)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"pretrained": "missing"}, r"--config\.pretrained: no file .*missing"),
        ({"pretrained": "other"}, r"--config\.pretrained: .*conv1"),
        ({"batch_size": 1}, r"--config\.batch_size: found 1"),
        ({"appearance.init": "techer"}, r"--config\.appearance\.init: found 'techer'"),
    ],
)
def test_what_a_run_begins_with_is_looked_at_first(root, tmp_path, fields, complaint):
    places = {"missing": str(tmp_path / "missing"), "other": backbone(tmp_path / "other")}
    init = {"appearance.init": "imagenet"} if "pretrained" in fields else {}
    given = {name: places.get(str(value), value) for name, value in fields.items()}
    with pytest.raises(InputError, match=complaint):
        train(root, tmp_path / "run", init | given)
    assert not (tmp_path / "run" / "dgnet").exists()


def test_a_study_traces_every_loss_before_its_teacher_is_trained(root, tmp_path):
    def fits(prediction: Any, target: Any) -> Any:
        return abs(prediction - target).mean()

    def does_not(prediction: Any, target: Any) -> Any:
        raise ValueError("shapes do not fit")

    config = tiny_config({"data.name": "folder", "data.root": str(root), "ramp.start": 100})
    with pytest.raises(TeacherBegunError):
        Study(config, {"fits": fits}, seeds=[0], workdir=tmp_path / "good").run()
    losses = {"fits": fits, "bad": does_not}
    with pytest.raises(ValueError, match="shapes do not fit"):
        Study(config, losses, [0], workdir=tmp_path / "bad").run()
    assert not (tmp_path / "bad" / "study.json").exists()


def test_a_study_reads_what_its_runs_start_from_before_its_teacher_is_trained(root, tmp_path):
    fields = {"appearance.init": "imagenet", "pretrained": str(tmp_path / "missing")}
    config = tiny_config({"data.name": "folder", "data.root": str(root), **fields})
    with pytest.raises(InputError, match=r"--config\.pretrained: no file .*missing"):
        Study(config, ["l1"], [0], workdir=tmp_path / "study").run()
