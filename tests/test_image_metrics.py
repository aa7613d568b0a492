"""The measures of generated images as `--mode=evaluate` asks for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn_market import smooth_image
from tiny import tiny_config

from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation import image_metrics, tables
from dgnet_jax.evaluation.fid_protocol import structure_permutation
from dgnet_jax.evaluation.image_metrics import measure_against, measure_images, real_images
from dgnet_jax.evaluation.truth import chosen_swaps, measure_truth
from dgnet_jax.runtime import workdir

# What stands in for the networks is of other classes.
pytestmark = pytest.mark.usefixtures("unchecked")


class Model:
    """Paints the mean of both images."""

    source = "nowhere"
    batch_size = 4
    image_size = 32, 16

    def __init__(self) -> None:
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def swap(self, appearance: np.ndarray, structure: np.ndarray) -> np.ndarray:
        self.pairs += zip(appearance, structure, strict=True)
        return appearance // 2 + structure // 2

    def swap_in_both_ways(
        self, appearance: np.ndarray, structure: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        painted = self.swap(appearance, structure)
        return painted, painted


@pytest.fixture(scope="module")
def data() -> Any:
    images = np.stack([np.asarray(smooth_image(seed)) for seed in range(16)])
    return SimpleNamespace(
        train_images=images[:10],
        train_labels=np.repeat(np.arange(5), 2),
        gallery=SimpleNamespace(images=images[10:], identities=np.array([3, -1, 0, -1, 4, 4])),
    )


def test_one_image_for_every_training_image(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def embed(images: np.ndarray) -> np.ndarray:
        return images.mean((1, 2))

    teacher = SimpleNamespace(embeddings=embed)
    monkeypatch.setattr(image_metrics, "load_teacher_model", lambda config, workdir: teacher)
    model = Model()
    results = measure_images(tiny_config({"seed": 5}), model, data)  # type: ignore[arg-type]
    # Junk is no image of the gallery, a distractor is.
    assert {"generated": 10, "real": 10, "gallery": 4, "teacher_dims": 3}.items() <= results.items()
    assert "teacher_frechet_real" in results and "teacher_missing" not in results
    order = structure_permutation(10, 5)
    for index, (appearance, structure) in enumerate(model.pairs):
        np.testing.assert_array_equal(appearance, data.train_images[index])
        np.testing.assert_array_equal(structure, data.train_images[order[index]])


def test_what_is_missing_is_said(data: Any) -> None:
    config = tiny_config({"evaluation.fid_images": 6})
    results = measure_images(config, Model(), data)  # type: ignore[arg-type]
    assert "nowhere" in str(results["teacher_missing"])
    assert "pt_inception" in str(results["inception_missing"])
    assert {"generated": 6, "real": 6, "gallery": 4}.items() <= results.items()
    with pytest.raises(InputError, match=r"--config\.inception: absent\.safetensors"):
        config = tiny_config({"inception": "absent.safetensors"})
        measure_images(config, Model(), data)  # type: ignore[arg-type]


def test_a_teacher_that_is_asked_for_has_to_be_there(data: Any, tmp_path: Path) -> None:
    """That of the training may have been moved since, and is then only missed."""
    trained = tiny_config({"teacher.checkpoint": str(tmp_path / "moved")})
    model = Model()
    model.source = str(workdir.prepare(tmp_path / "run", trained))
    workdir.unlock(model.source)
    results = measure_images(trained, model, data)  # type: ignore[arg-type]
    assert "moved" in str(results["teacher_missing"])
    mistyped = tiny_config({"teacher.checkpoint": str(tmp_path / "mistypd")})
    with pytest.raises(InputError, match=r"--config\.teacher\.checkpoint: .*mistypd"):
        measure_images(mistyped, model, data)  # type: ignore[arg-type]
    with mistyped.unlocked():
        mistyped.released = "weights.safetensors"
    with pytest.raises(InputError, match=r"--config\.teacher\.checkpoint: .*mistypd"):
        measure_images(mistyped, model, data)  # type: ignore[arg-type]


def test_swaps_of_drawn_people_are_measured_against_their_truth(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"images_per_identity_camera": 2, "distractors": 0, "junk": 0, "train_identities": 1}
    draw_dataset(tmp_path / "drawn", **few, test_identities=3, height=32, width=16)
    draw_dataset(tmp_path / "one", **few, test_identities=1, height=32, width=16)
    config = tiny_config({"data.root": str(tmp_path / "drawn"), "data.name": "quickstart"})
    real = real_images(config, data, None)
    first, second = Model(), Model()
    results = measure_against(real, first)  # type: ignore[arg-type]
    # There are three people, on either side.
    assert results["truth_pairs"] == 9
    truth = chosen_swaps(real.drawn, 16, config.seed, 32, 16)
    pairs = first.pairs[-9:]
    for (i, j), (appearance, structure) in zip(np.ndindex(3, 3), pairs, strict=True):
        np.testing.assert_array_equal(appearance, truth.appearances[i])
        np.testing.assert_array_equal(structure, truth.structures[j])
    painted = np.stack([one // 2 + other // 2 for one, other in pairs]).reshape(truth.truth.shape)
    assert measure_truth(painted, truth).items() <= results.items()

    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("dgnet_jax.evaluation.truth.draw_true_swaps", refuse)
    assert measure_against(real, second) == results  # type: ignore[arg-type]
    monkeypatch.undo()
    config.data.root = str(tmp_path / "one")
    alone = measure_against(real_images(config, data, None), first)  # type: ignore[arg-type]
    assert "appearances: 1, structures: 1" in str(alone["truth_missing"])
    assert "truth_pairs" not in alone
    lines = "\n".join(tables._images_table(alone))
    assert "Swaps were not compared with their truth" in lines and "ΔE" not in lines
    lines = "\n".join(tables._images_table(results))
    assert "| copy of the structure image |                 0.000 |" in lines
    assert "9 swaps of test people" in lines


def test_the_table_of_a_training_has_what_was_measured() -> None:
    truth = {"appearance_transfer": 0.62514, "structure_kept": 0.8, "structure_kept_copy": 0.5}
    ranking = {"rank1": 0.25, "mAP": 0.125, "queries": 8.0}
    config = tiny_config()
    assert tables.table({}, config) == "not ranked: config.evaluation.every_steps is negative"
    assert "appearance" not in tables.table(ranking, config)
    for metrics in (truth, ranking | truth):
        lines = tables.table(metrics, config).splitlines()
        assert ("| l1     |    25.00 | 12.50 |" in lines) == ("mAP" in metrics)
        assert lines[0].startswith("not ranked") == ("mAP" not in metrics)
        (generated,) = (line for line in lines if line.startswith("| generated"))
        assert [cell.strip() for cell in generated.split("|")[2:4]] == ["0.625", "0.800"]
        (copy,) = (line for line in lines if line.startswith("| copy of the structure image"))
        assert [cell.strip() for cell in copy.split("|")[2:4]] == ["0.000", "0.500"]
