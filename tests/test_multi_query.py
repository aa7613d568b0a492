"""Multi-query: averaged features, and the folder gt_bbox where a copy of Market-1501 has it."""

import shutil

import numpy as np
import pytest
from drawn_market import QUERY, draw_market, smooth_image, zip_folder

from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.evaluation.multi_query import average_queries

GT_BBOX = ("0001_c1s1_001051_00.jpg", "0001_c1s1_001076_00.jpg", "0001_c2s1_001976_00.jpg")


def test_a_query_is_the_mean_over_its_person_s_images_of_its_camera():
    query = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], np.float32)
    more = np.array([[2.0, 0.0], [0.0, 4.0], [9.0, 9.0], [1.0, 3.0]], np.float32)
    features, found = average_queries(
        query,
        np.array([7, 8, 7]),
        np.array([1, 1, 3]),
        more,
        np.array([7, 7, 7, 8]),
        np.array([1, 1, 2, 1]),
    )
    assert features.tolist() == [[1.0, 2.0], [1.0, 3.0], [5.0, 5.0]]
    assert features.dtype == np.float32
    assert found.tolist() == [2, 1, 0]


@pytest.mark.parametrize("zipped", [False, True])
def test_gt_bbox_is_read_where_it_is_there(tmp_path, zipped):
    root = draw_market(tmp_path)
    assert load_dataset("market1501", root).multi_query is None
    (root / "gt_bbox").mkdir()
    assert load_dataset("market1501", root).multi_query is None
    for seed, name in enumerate(GT_BBOX):
        smooth_image(seed).save(root / "gt_bbox" / name, "JPEG")
    (root / "gt_bbox" / "Thumbs.db").write_bytes(b"no image")
    if zipped:
        archive = zip_folder(root, tmp_path / "Market-1501.zip", top=f"{root.name}/")
        shutil.rmtree(root)
        root = archive
    dataset = load_dataset("market1501", root)
    assert dataset.multi_query is not None
    assert dataset.multi_query.files == tuple(f"gt_bbox/{name}" for name in GT_BBOX)
    assert dataset.multi_query.identities.tolist() == [1, 1, 1]
    assert dataset.multi_query.cameras.tolist() == [1, 1, 2]
    assert len(dataset.query) == len(QUERY)

    split = ReidData(dataset, 128, 64).multi_query
    assert split is not None
    assert split.images.shape == (3, 128, 64, 3)
    error = np.abs(split.images[1].astype(int) - np.asarray(smooth_image(1)))
    assert error.mean() < 4  # JPEG
