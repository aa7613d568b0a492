"""Queries without a match are explained, and `data.cameras=False` gives each image its camera."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from processes import tiny_data
from tiny import tiny_config
from trained import save_run

from dgnet_jax.data.generated import MixedData, open_mixed_data
from dgnet_jax.data.pipeline import CachedSplit, ReidData
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.evaluation import ranked_lists
from dgnet_jax.evaluation.ranked_lists import ranked_lists_picture
from dgnet_jax.evaluation.retrieval import embed_split, evaluate_retrieval
from dgnet_jax.evaluation.tables import table
from dgnet_jax.evaluation.variants import Variant, rank
from dgnet_jax.generate.dataset import DatasetSettings, generate_dataset
from dgnet_jax.inference import load_model
from dgnet_jax.runtime.dataset import list_data, open_data
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.teacher import BASELINE_RESUMABLE
from dgnet_jax.training.trainer import RESUMABLE
from tests.drawn_datasets import draw_folders

# Person 8 is in the gallery by its query's camera alone, 9 by another one too, 10 not at all.
FOLDERS = {
    "bounding_box_train": ["1_c1_a.png", "2_c1_b.png"],
    "query": ["8_c1_q.png", "9_c1_q.png", "10_c1_q.png"],
    "bounding_box_test": ["8_c1_g.png", "8_c1_h.png", "9_c1_g.png", "9_c2_h.png", "0_c1_g.png"],
}


@pytest.fixture
def config(tmp_path: Path):
    root = draw_folders(tmp_path / "own", FOLDERS)
    # The query's own image in the gallery, under another name.
    shutil.copy(root / "query" / "8_c1_q.png", root / "bounding_box_test" / "8_c1_i.png")
    return tiny_config({"data.name": "folder", "data.root": str(root)})


def test_a_data_set_says_at_once_which_queries_have_no_match(config, caplog):
    list_data(config)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning == (
        f"{config.data.root}: 2 of the 3 queries have no match, so Rank@k and mAP count them as "
        "0: of 1 the gallery has no image of the person; of 1 it has images by the query's own "
        "camera alone, which ranking removes (the field's protocol). If the cameras are unknown, "
        "--config.data.cameras=False takes each image as one by a camera of its own; say so beside "
        "the result"
    )
    caplog.clear()
    config.data.cameras = False
    list_data(config)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.endswith(
        "1 of the 3 queries have no match, so Rank@k and mAP count them as 0: of 1 the gallery has "
        "no image of the person"
    )


def test_each_image_has_a_camera_and_equal_ones_the_same(config):
    config.data.cameras = False
    data = open_data(config)
    query, gallery = data.query, data.gallery
    own = [Path(path).name for path in gallery.paths].index("8_c1_i.png")
    queries = [Path(path).name for path in query.paths]
    assert gallery.cameras[own] == query.cameras[queries.index("8_c1_q.png")]
    others = np.delete(gallery.cameras, own)
    cameras = [*query.cameras.tolist(), *others.tolist(), *data.train.cameras.tolist()]
    assert len(set(cameras)) == 3 + 5 + 2
    assert query.cameras.dtype == gallery.cameras.dtype == np.int32
    np.testing.assert_array_equal(
        query.identities, ReidData(list_data(config), 32, 16).query.identities
    )


def _embedder(images: np.ndarray) -> np.ndarray:
    """Mean colours of the image's rows, twice, of unit norm."""
    features = np.asarray(images).astype(np.float32).mean(2).reshape(len(images), -1)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    return np.stack([features, features], axis=1)


def test_a_training_evaluates_with_it_too(config):
    """`evaluate_retrieval` is what a training calls."""

    def features(images):
        return tuple(jnp.asarray(part) for part in _embedder(images).swapaxes(0, 1))

    found = {}
    for cameras in (True, False):
        config.data.cameras = cameras
        data = open_data(config)
        found[cameras] = evaluate_retrieval(features, data, config, place(), alpha=0.5)
        splits = (embed_split(_embedder, split) for split in (data.query, data.gallery))
        hits = rank(Variant(0.5), *splits).hits
        # Of 10, 8 and 9: 8's query finds both others, but not itself; 9's finds both.
        assert [len(ranks) for ranks in hits] == ([0, 0, 1] if cameras else [0, 2, 2])
    assert found[True]["queries_without_match"] == 2
    assert found[False]["queries_without_match"] == 1
    assert found[False]["mAP"] > found[True]["mAP"]


def test_the_table_of_a_training_says_it():
    config = tiny_config()
    counts = {"rank1": 0.0, "mAP": 0.0, "queries": 8, "queries_without_match": 8}
    shown = table(counts, config)
    assert "8 of 8 queries have no match, an image of their person by another camera" in shown
    assert "--config.data.cameras=False" in shown
    assert "no match" not in table(counts | {"queries_without_match": 0}, config)
    config.data.cameras = False
    shown = table(counts, config)
    assert "8 of 8 queries have no match, an image of their person in the gallery" in shown
    assert "--config.data.cameras=False" not in shown
    assert "config.data.cameras is off" in shown


def test_a_run_may_go_on_with_it():
    """It changes how a run is measured, not how it learns."""
    assert "data.cameras" in RESUMABLE
    assert "data.cameras" in BASELINE_RESUMABLE


def test_ranked_lists_do_not_show_cameras_that_are_not_known(config, monkeypatch):
    texts: list[str] = []

    def grid(rows, caption, separate_originals, labels):
        texts[:] = [caption, *(label for row in labels for label in row)]
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(ranked_lists, "image_grid", grid)
    for cameras in (True, False):
        config.data.cameras = cameras
        data = open_data(config)
        features = [_embedder(split.images)[:, 0] for split in (data.query, data.gallery)]
        ranked_lists_picture([0], features[0], data.query, features[1], data.gallery, caption="")
        assert any("camera 1" in text for text in texts) == cameras
        assert ("by another camera" in texts[0]) == cameras
        assert ("the query's own image" in texts[0]) == (not cameras)


def test_the_baseline_on_generated_images_is_evaluated_with_it(tmp_path_factory):
    root = tiny_data(tmp_path_factory)
    workdir = tmp_path_factory.mktemp("trained")
    run, _, _ = save_run(workdir)
    real = ReidData(load_dataset("folder", root), 32, 16)
    folder = tmp_path_factory.mktemp("generated") / "set"
    generate_dataset(load_model(run, workdir), real, folder, DatasetSettings(count=3), None)
    config = tiny_config({"data.name": "folder", "data.root": str(root)})
    config.data.generated, config.data.generated_labels = str(folder), "lsro"
    config.data.cameras = False
    mixed = open_mixed_data(config, open_data(config))
    assert isinstance(mixed, MixedData)
    splits: list[CachedSplit] = [mixed.query, mixed.gallery]
    assert all(not split.cameras_known for split in splits)
    assert len(set(mixed.query.cameras.tolist())) == len(mixed.query.images)
