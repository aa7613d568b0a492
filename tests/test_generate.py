"""Swaps, interpolations, the FID protocol's set, and synthetic data sets with their files."""

import csv
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import files_of, tiny_data
from trained import save_run

from dgnet_jax.data.pipeline import CachedSplit, ReidData
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.readers.market1501 import read_market1501
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid_protocol import structure_permutation, swapped_training_images
from dgnet_jax.figures import save_animation
from dgnet_jax.generate import GenerateOptions, dataset, set_folder, tasks
from dgnet_jax.generate.dataset import DatasetSettings, generate_dataset, paint_rows
from dgnet_jax.generate.interpolate import interpolate_appearance, interpolate_structure
from dgnet_jax.generate.plan import plan_test_set, plan_training_set
from dgnet_jax.generate.swap import swap_grid
from dgnet_jax.inference import TeacherModel, load_model, load_teacher_model
from dgnet_jax.models import build_teacher
from dgnet_jax.runtime import atomic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, save_run(workdir)[0]


@pytest.fixture(scope="module")
def model(run):
    return load_model(run[1], run[0])


@pytest.fixture(scope="module")
def teacher(run):
    return load_teacher_model(run[1], run[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ReidData:
    return ReidData(load_dataset("folder", tiny_data(tmp_path_factory)), 32, 16)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 16, 3), np.uint8)


def source(identities: list[int], cameras: list[int] | None = None) -> CachedSplit:
    count = len(identities)
    files = tuple(f"{i}.jpg" for i in range(count))
    chosen = np.array(cameras or [1 + i % 6 for i in range(count)])
    return CachedSplit(pictures(count), np.array(identities), chosen, files, files)


def test_the_grid_holds_each_appearance_on_each_structure(model):
    first, second = pictures(3, 1), pictures(7, 2)
    grid = swap_grid(model, first, second)
    assert grid.shape == (3, 7, 32, 16, 3)
    for i in range(3):
        np.testing.assert_allclose(
            grid[i], model.swap(np.repeat(first[i : i + 1], 7, axis=0), second), atol=1
        )


def test_an_interpolation_ends_at_the_two_swaps_and_goes_straight_between(model):
    first, last, still = pictures(3)
    ends = model.swap(np.stack([first, last]), np.stack([still, still]))
    strip = interpolate_appearance(model, first, last, still, 5)
    np.testing.assert_allclose(strip[[0, 4]], ends, atol=1)
    codes = model.appearance_codes(np.stack([first, last]))
    middle = model.decode(model.structure_codes(still[None]), codes.mean(0, keepdims=True))
    np.testing.assert_allclose(strip[2], middle[0], atol=1)
    ends = model.swap(np.stack([still, still]), np.stack([first, last]))
    strip = interpolate_structure(model, first, last, still, 3)
    np.testing.assert_allclose(strip[[0, 2]], ends, atol=1)


def test_the_protocol_makes_one_picture_of_each_appearance_with_each_structure_once(model):
    images = pictures(37)
    found = list(swapped_training_images(model, images, seed=4))
    np.testing.assert_array_equal(np.concatenate([one.indices for one in found]), np.arange(37))
    order = structure_permutation(37, 4)
    assert sorted(order) == list(range(37))
    assert (order != structure_permutation(37, 5)).any()
    expected = model.swap_in_both_ways(images, images[order])
    for name, small_ones in zip(("rounded", "truncated"), expected, strict=True):
        batches = np.concatenate([getattr(one, name) for one in found])
        assert (batches.shape, batches.dtype) == ((37, 256, 128, 3), np.uint8)
        for picture, small in zip(batches, small_ones, strict=True):
            large = Image.fromarray(small).resize((128, 256), Image.Resampling.BICUBIC)
            np.testing.assert_array_equal(picture, np.asarray(large))


def test_one_image_for_each_real_one_is_the_protocols_set(model):
    train = source([2, 2, 7, 7, 7, 9])
    plan = plan_training_set(train, seed=4)
    np.testing.assert_array_equal(plan.appearance, np.arange(6))
    np.testing.assert_array_equal(plan.structure, structure_permutation(6, 4))
    np.testing.assert_array_equal(plan.identities, train.identities)
    np.testing.assert_array_equal(plan.cameras, train.cameras[plan.structure])
    painted = paint_rows(model, train.images, plan, slice(0, 6))
    expected = model.swap(train.images, train.images[plan.structure])
    np.testing.assert_allclose(painted, expected, atol=1)


@pytest.mark.parametrize("count", [1, 5, 6, 20])
def test_a_total_uses_all_images_equally(count):
    plan = plan_training_set(source([2, 2, 7, 7, 7, 9]), seed=0, count=count)
    assert len(plan) == len(set(plan.files)) == count
    for indices in (plan.appearance, plan.structure):
        times = np.bincount(indices, minlength=6)
        assert times.max() - times.min() <= 1
    assert (np.diff(plan.appearance) >= 0).all()


def test_so_many_images_of_each_identity():
    identities = [2, 2, 7, 7, 7, 9]
    plan = plan_training_set(source(identities), seed=0, per_identity=4)
    values, times = np.unique(plan.identities, return_counts=True)
    assert (values.tolist(), times.tolist()) == ([2, 7, 9], [4, 4, 4])
    # Two of each image of person 2, no image of 7 more than twice.
    assert np.bincount(plan.appearance).tolist() in [[2, 2, *rest, 4] for rest in _shares(4, 3)]
    assert (plan.structure != plan.appearance).all()
    other = plan_training_set(source(identities), seed=1, per_identity=4)
    assert (other.structure != plan.structure).any()


def _shares(total: int, parts: int) -> list[list[int]]:
    return [[1 + (i == extra) for i in range(parts)] for extra in range(parts)]


def test_every_query_has_a_match_from_another_camera():
    queries, gallery = plan_test_set(source([1, 1, 1, 4, 4, 8, 8], [1, 2, 3, 1, 2, 5, 6]), 0, 3)
    assert queries.identities.tolist() == [1, 4, 8]
    assert gallery.identities.tolist() == [1, 1, 4, 4, 8, 8]
    for identity, camera in zip(queries.identities, queries.cameras, strict=True):
        assert (gallery.cameras[gallery.identities == identity] != camera).any()


@pytest.mark.parametrize(
    "numbers", [{"count": 0}, {"per_identity": -1}, {"count": 3, "per_identity": 3}]
)
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(InputError, match="--count|--per_identity"):
        plan_training_set(source([1, 2]), 0, **numbers)


def test_people_counted_from_0_are_somebody(tmp_path):
    plan = plan_training_set(source([0, 0, 12]), 0)
    assert {Path(file).name[:4] for file in plan.files} == {"0001", "0013"}
    assert plan.identities.tolist() == [0, 0, 12]


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open() as stream:
        return list(csv.DictReader(stream))


def check_valid(folder: Path, images: int) -> None:
    """The set is what a complete or an interrupted one may be."""
    rows = manifest(folder)
    assert len(rows) == images
    present = {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    assert present == {row["file"] for row in rows}
    for row in rows:
        with Image.open(folder / row["file"]) as image:
            image.load()
            assert image.size == (16, 32)
    assert not list(folder.rglob("*.tmp"))


SETTINGS = DatasetSettings(seed=1, count=50)
BLOCK = 16


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK", BLOCK)


@pytest.fixture(scope="module")
def complete(model, data, teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("complete") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK", BLOCK)
        generate_dataset(model, data, folder, SETTINGS, teacher)
    return folder


def test_a_set_is_read_back_by_the_market_reader(complete, data):
    check_valid(complete, 50 + 2 * 3)
    rows = manifest(complete)
    found = read_market1501(complete)
    assert (len(found.train), len(found.query), len(found.gallery)) == (50, 3, 3)
    by_file = {row["file"]: row for row in rows}
    for split in (found.train, found.query, found.gallery):
        for file, identity, camera in zip(
            split.files, split.identities, split.cameras, strict=True
        ):
            assert (int(by_file[file]["identity"]), int(by_file[file]["camera"])) == (
                identity,
                camera,
            )
    # The sources are files of the real set, and the identity is the appearance's.
    train = dict(zip(data.train.files, data.train.identities, strict=True))
    for row in rows[:50]:
        assert train[row["appearance_source"]] == int(row["identity"])
        assert row["structure_source"] in train
        assert row["seed"] == "1"
        assert data.dataset.train_identities[int(row["label"])] == int(row["identity"])


def test_the_files_say_what_they_were_made_from(complete, model):
    row = manifest(complete)[0]
    with Image.open(complete / row["file"]) as image:
        comment = json.loads(image.info["comment"])
    assert comment == {
        "generator": model.name,
        **{name: row[name] for name in ("appearance_source", "structure_source", "seed")},
    }


def test_soft_labels_are_the_teachers_of_the_pictures_in_the_manifests_order(
    complete, model, data, teacher
):
    labels = np.load(complete / "soft_labels.npy")
    assert (labels.shape, labels.dtype) == ((50, 5), np.float32)
    index = {file: i for i, file in enumerate(data.train.files)}
    rows = manifest(complete)[:50]
    first, second = (
        data.train.images[[index[row[f"{kind}_source"]] for row in rows]]
        for kind in ("appearance", "structure")
    )
    # One level of one picture moves a label a little.
    np.testing.assert_allclose(labels, teacher.soft_labels(model.swap(first, second)), atol=0.02)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("listed", [0, 16, 20, 48, 50, 53])
def test_a_set_that_stopped_anywhere_ends_up_the_same(
    complete, model, data, teacher, tmp_path, small_blocks, listed
):
    folder = tmp_path / "set"
    shutil.copytree(complete, folder)
    lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    (folder / "manifest.csv").write_text("".join(lines[: listed + 1]))
    for row in lines[listed + 8 :]:
        (folder / row.split(",")[0]).unlink()
    (folder / "query" / ".0001.jpg.77.tmp").write_bytes(b"half")
    generate_dataset(model, data, folder, SETTINGS, teacher)
    assert files_of(folder) == files_of(complete)


def test_lost_files_are_made_again(complete, model, data, teacher, tmp_path, small_blocks):
    for lost in (manifest(complete)[30]["file"], "soft_labels.npy", "manifest.csv"):
        folder = tmp_path / Path(lost).stem
        shutil.copytree(complete, folder)
        (folder / lost).unlink()
        generate_dataset(model, data, folder, SETTINGS, teacher)
        assert files_of(folder) == files_of(complete)


@pytest.mark.parametrize("full_at", ["image", "labels", "manifest"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_leaves_a_valid_set_that_can_be_finished(
    complete, model, data, teacher, tmp_path, small_blocks, monkeypatch, full_at, code
):
    folder = tmp_path / "set"
    calls = []

    def fail_late(function, limit):
        def call(*arguments, **options):
            calls.append(0)
            if len(calls) > limit:
                raise OSError(code, "the disk is full or broken")
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        if full_at == "image":
            patch.setattr(Image.Image, "save", fail_late(Image.Image.save, 37))
        elif full_at == "labels":
            file = set_folder.LabelFile
            patch.setattr(file, "write", fail_late(file.write, 2))
        else:
            # Images and the manifest are renamed into place: settings, manifest, 16 images, ...
            patch.setattr(atomic.os, "replace", fail_late(atomic.os.replace, 2 + 17 + 17 + 16))
        with pytest.raises(InputError, match="full or broken after 32 of 56 images"):
            generate_dataset(model, data, folder, SETTINGS, teacher)
    check_valid(folder, 32)
    assert np.load(folder / "soft_labels.npy").shape == (50, 5)
    generate_dataset(model, data, folder, SETTINGS, teacher)
    assert files_of(folder) == files_of(complete)


def test_a_set_of_other_settings_or_another_folder_is_not_touched(
    complete, model, data, teacher, tmp_path
):
    before = files_of(complete)
    for settings, message in (
        (DatasetSettings(seed=2, count=50), "seed: 1 there, 2 now"),
        (DatasetSettings(seed=1, per_identity=3), "per_identity: null there, 3 now"),
    ):
        with pytest.raises(InputError, match=message):
            generate_dataset(model, data, complete, settings, teacher)
    with pytest.raises(InputError, match='teacher: "trained.*" there, null now'):
        generate_dataset(model, data, complete, SETTINGS)
    assert files_of(complete) == before
    (tmp_path / "mine.txt").write_text("not a data set")
    with pytest.raises(InputError, match=r"not empty, and no dataset\.json in it"):
        generate_dataset(model, data, tmp_path, SETTINGS)
    assert list(files_of(tmp_path)) == ["mine.txt"]


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"\x93\xff", b'{"seed": ', b"3"])
def test_a_set_of_damaged_settings_is_not_touched(
    complete, model, data, teacher, tmp_path, content
):
    folder = shutil.copytree(complete, tmp_path / "set")
    (folder / "dataset.json").write_bytes(content)
    before = files_of(folder)
    with pytest.raises(InputError, match=r"dataset\.json: .*Choose another --output"):
        generate_dataset(model, data, folder, SETTINGS, teacher)
    assert files_of(folder) == before


def test_a_damaged_manifest_is_made_again(complete, model, data, teacher, tmp_path, small_blocks):
    folder = shutil.copytree(complete, tmp_path / "set")
    content = (folder / "manifest.csv").read_bytes()
    (folder / "manifest.csv").write_bytes(content[:900] + b"\xff\xfe" + content[902:])
    generate_dataset(model, data, folder, SETTINGS, teacher)
    assert files_of(folder) == files_of(complete)


def test_soft_labels_of_other_people_are_refused(model, data, teacher, tmp_path):
    network = build_teacher(model.config, 7)
    stranger = TeacherModel(teacher.config, network, teacher.variables, "another")
    with pytest.raises(InputError, match="the teacher in another knows 7 people, .* data has 5"):
        generate_dataset(model, data, tmp_path / "set", SETTINGS, stranger)
    assert not (tmp_path / "set").exists()


def test_a_set_without_teacher_and_without_test_people(model, data, tmp_path):
    settings = DatasetSettings(per_identity=2, test_per_identity=0)
    generate_dataset(model, data, tmp_path / "set", settings)
    check_valid(tmp_path / "set", 2 * 5)
    assert sorted(entry.name for entry in (tmp_path / "set").iterdir()) == [
        "bounding_box_train",
        "dataset.json",
        "manifest.csv",
    ]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_goes_forth_and_back_and_says_what_it_is(tmp_path, suffix):
    frames = np.stack([np.full((8, 4, 3), level, np.uint8) for level in (0, 80, 160, 240)])
    path = tmp_path / f"a.{suffix}"
    save_animation(frames, path, {"generator": "x step 3", "seed": "1"}, scale=2)
    with Image.open(path) as image:
        assert (image.n_frames, image.size) == (6, (8, 16))
        levels = []
        for index in range(image.n_frames):
            image.seek(index)
            levels.append(image.convert("RGB").getpixel((0, 0))[0])
        assert levels == [0, 80, 160, 240, 160, 80]
        said = image.info["comment"].decode() if suffix == "gif" else image.getexif()[0x010E]
    assert said == "generator: x step 3\nseed: 1"


@pytest.mark.parametrize(
    ("task", "options", "files"),
    [
        ("swap", {"count": 2, "seed": 3}, {"swap.png"}),
        (
            "interpolate",
            {"frames": 3, "animation": "webp"},
            {
                f"interpolate_{kind}.{form}"
                for kind in ("appearance", "structure")
                for form in ("png", "webp")
            },
        ),
        ("pairs", {}, {f"appearance-{i}_structure-{j}.png" for i in "ab" for j in "ab"}),
        (
            "dataset",
            {"count": 6, "test_per_identity": 0},
            {"dataset.json", "manifest.csv", "soft_labels.npy", "bounding_box_train"},
        ),
    ],
)
def test_each_task_is_a_function(run, tmp_path, tmp_path_factory, task, options, files):
    """From Python, without a command line."""
    workdir, config = run
    config = config.copy_and_resolve_references()
    config.data.root = str(tiny_data(tmp_path_factory))
    if task == "pairs":
        for name in "ab":
            shade = np.full((32, 16, 3), 40 if name == "a" else 200, np.uint8)
            Image.fromarray(shade).save(tmp_path / f"{name}.png")
        images = [str(tmp_path / f"{name}.png") for name in "ab"]
        options = {"appearance": images, "structure": images}
    tasks.generate(config, workdir, task, GenerateOptions(**options), output=tmp_path / "output")
    assert {path.name for path in (tmp_path / "output").iterdir()} == files


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 200}, "--quality: found 200. Give 1 to 95"),
        ({"frames": 1}, "--frames: found 1. Give 2 or more"),
        ({"seed": -1}, "--seed: found -1"),
        ({"count": 0}, "--count: found 0"),
        ({"animation": "avi"}, "--animation: found 'avi'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        GenerateOptions(**options)
