"""The baseline learns what it is told to of real and generated images."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import FAST_COMPILATION
from processes import tiny_data
from tiny import tiny_config, tiny_teacher
from trained import save_run

from configs import trained
from dgnet_jax import evaluate, train
from dgnet_jax.data import cache
from dgnet_jax.data.generated import MixedData
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.evaluator import evaluate_fully
from dgnet_jax.evaluation.tables import evaluation_table
from dgnet_jax.generate.dataset import DatasetSettings, generate_dataset
from dgnet_jax.inference import load_model, load_teacher_model
from dgnet_jax.models import build_networks
from dgnet_jax.training.teacher import TeacherState, make_optimizer, make_step

IDENTITIES = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tiny_data(tmp_path_factory)


@pytest.fixture(scope="module")
def generated(root, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained")
    config, _, _ = save_run(workdir)
    folder = tmp_path_factory.mktemp("generated") / "set"
    generate_dataset(
        load_model(config, workdir),
        ReidData(load_dataset("folder", root), 32, 16),
        folder,
        DatasetSettings(count=7),
        load_teacher_model(config, workdir),
    )
    return folder


def mixed(root: Path, folder: Path, **options) -> MixedData:
    return MixedData(load_dataset("folder", root), 32, 16, folder, **options)


@pytest.mark.parametrize("labels", ["soft", "lsro", "identity"])
def test_real_images_come_first_and_keep_their_labels(root, generated, labels):
    data = mixed(root, generated, labels=labels)
    real = ReidData(load_dataset("folder", root), 32, 16)
    count = len(real.train_images)
    assert len(data.train_images) == len(data.train_labels) == count + 7
    np.testing.assert_array_equal(data.train_images[:count], real.train_images)
    rows = np.array([count + 3, 0, count, count + 6, count - 1])
    targets = data.train_targets(rows)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-5)
    one_hot = np.eye(IDENTITIES)[data.train_labels[rows]]
    np.testing.assert_array_equal(targets[[1, 4]], one_hot[[1, 4]])
    expected = {
        "identity": one_hot[[0, 2, 3]],
        "lsro": np.full((3, IDENTITIES), 0.2, np.float32),
        "soft": np.load(generated / "soft_labels.npy")[[3, 0, 6]],
    }[labels]
    np.testing.assert_allclose(targets[[0, 2, 3]], expected, rtol=1e-6)


def test_the_training_images_are_in_memory_once(root, generated):
    data = mixed(root, generated)
    tracemalloc.start()
    try:
        images = data.train_images
        numpy_only = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
        held = tracemalloc.take_snapshot().filter_traces([numpy_only]).statistics("filename")
    finally:
        tracemalloc.stop()
    assert images.nbytes <= sum(statistic.size for statistic in held) < 1.1 * images.nbytes
    assert np.shares_memory(images[: data.num_real], data.train.images)
    assert np.shares_memory(images, data.train_images)


def test_a_broken_real_image_leaves_no_gap(root, generated, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BROKEN_FRACTION", 0.5)
    broken = tmp_path / "data"
    shutil.copytree(root, broken)
    Path(load_dataset("folder", broken).train.paths[3]).write_bytes(b"no image")
    data = mixed(broken, generated)
    parts = ReidData(load_dataset("folder", broken), 32, 16), mixed(root, generated, real=False)
    assert (
        data.num_real == len(parts[0].train_images) == len(load_dataset("folder", root).train) - 1
    )
    for name in ("train_images", "train_labels"):
        expected = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(data, name), expected)


def test_generated_images_alone(root, generated):
    data = mixed(root, generated, labels="lsro", real=False)
    assert len(data.train_images) == len(data.train_labels) == 7
    np.testing.assert_allclose(data.train_targets(np.arange(7)), 1 / IDENTITIES)
    real = ReidData(load_dataset("folder", root), 32, 16)
    np.testing.assert_array_equal(data.query.images, real.query.images)


def test_a_broken_generated_image_moves_no_label(root, generated, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(generated, folder)
    whole = mixed(root, folder, real=False)
    # One in a hundred may be broken: each image is listed 200 times, and the first is not there.
    header, *lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    name = lines[0].split(",")[0]
    listed = [lines[0].replace(name, "bounding_box_train/lost.jpg"), *(lines[:7] * 200)[1:]]
    (folder / "manifest.csv").write_text("".join([header, *listed]))
    labels = np.load(folder / "soft_labels.npy")
    np.save(folder / "soft_labels.npy", np.tile(labels, (200, 1)))
    data = mixed(root, folder, real=False)
    assert len(data.train_images) == 7 * 200 - 1
    np.testing.assert_array_equal(data.train_images[0], whole.train_images[1])
    np.testing.assert_array_equal(data.train_targets(np.arange(6)), labels[1:])


def test_what_does_not_fit_is_refused(root, generated, tmp_path):
    with pytest.raises(InputError, match="'hard' is none of soft, lsro, identity"):
        mixed(root, generated, labels="hard")
    with pytest.raises(InputError, match=r"--config\.data\.generated=.*: no generated data set"):
        mixed(root, tmp_path)
    folder = tmp_path / "set"
    shutil.copytree(generated, folder)
    np.save(folder / "soft_labels.npy", np.zeros((7, IDENTITIES + 1), np.float32))
    with pytest.raises(InputError, match=r"soft labels of shape \(7, 6\) for 7 images of 5"):
        mixed(root, folder)
    (folder / "soft_labels.npy").unlink()
    with pytest.raises(InputError, match="no soft labels"):
        mixed(root, folder)
    others = shutil.copytree(root, tmp_path / "others")
    first = load_dataset("folder", others).train_identities[0]
    for path in (others / "bounding_box_train").glob(f"{first:04d}_*"):
        path.rename(path.with_name(path.name.replace(f"{first:04d}_", "0077_")))
    with pytest.raises(InputError, match="made from 5 people that are not the 5 of the training"):
        mixed(others, folder, labels="lsro")
    assert mixed(others, folder, labels="lsro", real=False).num_identities == IDENTITIES


@pytest.fixture
def damaged(generated, tmp_path) -> Path:
    """A copy of the set to damage."""
    return shutil.copytree(generated, tmp_path / "damaged")


def _line(text: str, number: int, change: Callable[[list[str]], list[str]]) -> str:
    """The manifest with line `number`, from 1, changed as fields."""
    lines = text.splitlines()
    lines[number - 1] = ",".join(change(lines[number - 1].split(",")))
    return "".join(f"{line}\n" for line in lines)


# Columns: file, identity, camera, label, ...
MANIFESTS: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[:300], r"manifest\.csv:\d+: \d fields, but the header has 7"),
    "empty": (lambda text: "", r"manifest\.csv:1: no column for each of file, label"),
    "no header": (
        lambda text: text.partition("\n")[2],
        r"manifest\.csv:1: no column for each of file, label",
    ),
    "a quote": (lambda text: _line(text, 3, lambda row: ['"', *row[1:]]), r"manifest\.csv:\d+: "),
    "a label of nobody": (
        lambda text: _line(text, 4, lambda row: [*row[:3], "5", *row[4:]]),
        r"manifest\.csv:4: label 5 and identity \d+ do not belong together",
    ),
    "another person's label": (
        lambda text: _line(text, 2, lambda row: [*row[:3], str((int(row[3]) + 1) % 5), *row[4:]]),
        r"manifest\.csv:2: label \d and identity \d+ do not belong together in dataset\.json",
    ),
    "a label below 0": (
        lambda text: _line(text, 2, lambda row: [*row[:3], "-1", *row[4:]]),
        r"manifest\.csv:2: found '-1' for a whole number",
    ),
    "a label in words": (
        lambda text: _line(text, 2, lambda row: [*row[:3], "one", *row[4:]]),
        r"manifest\.csv:2: found 'one' for a whole number",
    ),
    "a camera beyond int32": (
        lambda text: _line(text, 2, lambda row: [*row[:2], str(2**31), *row[3:]]),
        r"manifest\.csv:2: found '2147483648' for a whole number",
    ),
    "a number of 5,000 digits": (
        lambda text: _line(text, 2, lambda row: [*row[:2], "9" * 5000, *row[3:]]),
        r"manifest\.csv:2: found '9+' for a whole number",
    ),
}


@pytest.mark.parametrize("damage", MANIFESTS)
def test_a_damaged_manifest_is_refused_with_its_line(root, damaged, damage):
    change, cause = MANIFESTS[damage]
    path = damaged / "manifest.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=cause):
        mixed(root, damaged, labels="lsro")


def test_a_manifest_that_is_no_text_is_refused(root, damaged):
    (damaged / "manifest.csv").write_bytes(b"\x93\xff\x00" * 40)
    with pytest.raises(InputError, match=r"manifest\.csv: not UTF-8"):
        mixed(root, damaged)


@pytest.mark.parametrize(
    "content",
    [
        *("", "null", "[]", "3", "{}", '{"identities": 5}', '{"identities": []}', '{"identities"'),
        *('{"identities": [1.5]}', '{"identities": ["1"]}', '{"identities": [2, 1]}'),
        *('{"identities": [1, 1]}', '{"identities": [-1]}', '{"identities": [99999999999]}'),
        *('{"identities": [true]}', '{"identities": [NaN]}'),
    ],
)
def test_damaged_settings_are_refused(root, damaged, content):
    (damaged / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json: .*Restore the file, or make the set"):
        mixed(root, damaged, labels="lsro")


def _npz(path: Path, labels: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, labels=labels)


SOFT_LABELS: dict[str, tuple[Callable[[Path, np.ndarray], object], str]] = {
    "empty": (lambda path, labels: path.write_bytes(b""), "no soft labels"),
    "cut off": (lambda path, labels: path.write_bytes(path.read_bytes()[:-8]), "no soft labels"),
    "half a header": (lambda path, labels: path.write_bytes(path.read_bytes()[:40]), "no soft lab"),
    "text": (lambda path, labels: path.write_text("0.2 0.2"), "no soft labels"),
    "an archive": (_npz, "no soft labels, but NpzFile"),
    "words": (lambda path, labels: np.save(path, labels.astype(str)), "no soft labels, but <U"),
    "whole numbers": (
        lambda path, labels: np.save(path, labels.astype(np.int32)),
        "no soft labels, but int32",
    ),
    "pickled": (
        lambda path, labels: np.save(path, labels.astype(object)),
        "no soft labels",
    ),
    "too few": (lambda path, labels: np.save(path, labels[:-1]), r"of shape \(6, 5\) for 7 images"),
    "flat": (lambda path, labels: np.save(path, labels.ravel()), r"of shape \(35,\) for 7"),
    "never written": (
        lambda path, labels: np.save(path, labels * (np.arange(7) < 5)[:, None]),
        "2 of 7 rows are no distributions .*the first is row 5",
    ),
    "NaN": (
        lambda path, labels: np.save(path, np.where(np.arange(7)[:, None] == 3, np.nan, labels)),
        "1 of 7 rows are no distributions .*the first is row 3",
    ),
    "below 0": (
        lambda path, labels: np.save(path, labels * [[2, 2, 2, 2, 2]] - [[0.2] * 5]),
        "rows are no distributions",
    ),
}


@pytest.mark.parametrize("damage", SOFT_LABELS)
def test_damaged_soft_labels_are_refused(root, damaged, damage):
    change, cause = SOFT_LABELS[damage]
    path = damaged / "soft_labels.npy"
    # Far from even, so that twice a row less 0.2 has values below 0.
    labels = np.full((7, IDENTITIES), 0.05, np.float32) + 0.75 * np.eye(IDENTITIES)[0]
    np.save(path, labels.astype(np.float32))
    mixed(root, damaged)
    change(path, labels.astype(np.float32))
    with pytest.raises(InputError, match=f"soft_labels.npy: .*{cause}|soft_labels.npy: {cause}"):
        mixed(root, damaged)


@pytest.mark.parametrize("name", ["manifest.csv", "dataset.json", "soft_labels.npy"])
def test_a_part_of_a_set_that_is_no_file_is_not_waited_for(root, damaged, name):
    (damaged / name).unlink()
    os.mkfifo(damaged / name)
    with pytest.raises(InputError, match="a FIFO, not a file"):
        mixed(root, damaged)


def test_the_loss_of_targets_is_their_cross_entropy():
    config = tiny_config({"teacher.dropout": 0.0, "augment.mirror_probability": 0.0})
    config.teacher.erasing_probability = 0.0
    network = build_networks(config, IDENTITIES).teacher
    optimizer = make_optimizer(config)
    variables = tiny_teacher(build_networks(config, IDENTITIES))
    state = TeacherState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        optimizer=optimizer.init(variables["params"]),
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 16, 3), np.uint8)
    labels = rng.integers(0, IDENTITIES, 8).astype(np.int32)
    step = jax.jit(make_step(config, network, optimizer), compiler_options=FAST_COMPILATION)

    def loss(targets: np.ndarray | None) -> float:
        batch = {"images": images, "labels": labels}
        if targets is not None:
            batch["targets"] = targets.astype(np.float32)
        return float(step(state, batch)[1]["cross_entropy"])

    one_hot = np.eye(IDENTITIES)[labels]
    by_class = [loss(np.tile(np.eye(IDENTITIES)[k], (8, 1))) for k in range(IDENTITIES)]
    assert loss(one_hot) == pytest.approx(loss(None), rel=1e-6)
    # Cross-entropy is linear in the targets.
    assert loss(np.full((8, IDENTITIES), 0.2)) == pytest.approx(np.mean(by_class), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("real", [True, False])
def test_a_baseline_trains_on_generated_images_and_serves_as_a_teacher(
    root, generated, tmp_path, real
):
    config = tiny_config(
        {
            "baseline": True,
            "data.root": str(root),
            "data.name": "folder",
            "data.generated": str(generated),
            "data.real": real,
        }
    )
    metrics = train(config, tmp_path)
    assert 0 < metrics["mAP"] <= 1
    assert load_teacher_model(config, tmp_path).num_identities == IDENTITIES
    assert not (tmp_path / "dgnet").exists()

    found = evaluate_fully(trained.get_config(str(tmp_path)), tmp_path)
    main, reranked = found["ranking"]
    assert main["metrics"] == pytest.approx(metrics)
    assert reranked["reranking"] is not None and reranked["alpha"] == 0
    assert found["generated_images"] == {}
    assert f"step {config.teacher.total_steps}, baseline)" in evaluation_table(found)


def test_a_baseline_is_evaluated_on_people_it_was_not_trained_with(root, tmp_path):
    save_run(tmp_path, {"baseline": True, "data.name": "market1501"})
    other = trained.get_config(str(tmp_path))
    other.data.name, other.data.root = "folder", str(root)
    found = evaluate_fully(other, tmp_path)
    assert (found["trained_on"], found["evaluated_on"]) == ("market1501", f"folder {root.name}")
    assert (tmp_path / f"evaluation_on_folder_{root.name}.json").is_file()
    assert 0 < found["ranking"][0]["metrics"]["mAP"] <= 1


def test_two_data_sets_of_ones_own_have_reports_of_their_own(root, tmp_path):
    save_run(tmp_path, {"baseline": True, "data.name": "folder", "data.root": str(root)})
    config = trained.get_config(str(tmp_path))
    evaluate_fully(config, tmp_path)
    own = (tmp_path / "evaluation.json").read_bytes()
    shutil.copytree(root, tmp_path / "others")
    config.data.root = str(tmp_path / "others")
    found = evaluate_fully(config, tmp_path)
    assert (found["trained_on"], found["evaluated_on"]) == (f"folder {root.name}", "folder others")
    assert (tmp_path / "evaluation_on_folder_others.json").is_file()
    assert (tmp_path / "evaluation.json").read_bytes() == own


def test_released_weights_are_no_baseline(root, tmp_path):
    fields = {"baseline": True, "released": "dgnet.safetensors", "data.name": "folder"}
    config = tiny_config({**fields, "data.root": str(root)})
    with pytest.raises(InputError, match="the configuration is the baseline's"):
        evaluate(config, tmp_path)


def test_dgnet_itself_refuses_generated_images(generated, tmp_path):
    with pytest.raises(InputError, match="is for the baseline"):
        train(tiny_config({"data.generated": str(generated)}), tmp_path)
