"""The measures of generated images as `--mode=evaluate` asks for them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn_market import smooth_image
from tiny import tiny_config

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation import image_metrics
from dgnet_jax.evaluation.fid_protocol import structure_permutation
from dgnet_jax.evaluation.image_metrics import measure_images

# What stands in for the networks is of other classes.
pytestmark = pytest.mark.usefixtures("unchecked")


class Model:
    """Paints the mean of both images."""

    source = "nowhere"
    batch_size = 4

    def __init__(self) -> None:
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def swap(self, appearance: np.ndarray, structure: np.ndarray) -> np.ndarray:
        self.pairs += zip(appearance, structure, strict=True)
        return appearance // 2 + structure // 2


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
