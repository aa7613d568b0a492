"""The drawn data set: Market-1501's folders and names, the same bytes, people to find."""

import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgnet_jax.data import synthetic
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError

# docs/method.md, section 6.1: identity, camera, sequence, frame, box.
MARKET_NAME = re.compile(r"(-1|\d{4})_c([1-6])s([1-6])_(\d{6})_(\d{2})\.jpg")
FEW = {
    "train_identities": 3,
    "test_identities": 3,
    "images_per_identity_camera": 2,
    "distractors": 5,
    "junk": 5,
}


def boxes(root: Path, folder: str) -> list[tuple[str, int]]:
    """(identity, camera) of every image in a folder; fails on a name that is not Market-1501's."""
    matches = [(path.name, MARKET_NAME.fullmatch(path.name)) for path in (root / folder).iterdir()]
    assert [name for name, match in matches if match is None] == []
    return [(match[1], int(match[2])) for _, match in matches if match]


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "pedestrians"
    draw_dataset(root, **FEW)
    return root


def test_folders_and_names_are_those_of_market1501(drawn):
    assert {path.name for path in drawn.iterdir()} == {
        "bounding_box_train",
        "bounding_box_test",
        "query",
        "dataset.json",
    }
    train, gallery, query = (
        boxes(drawn, folder) for folder in ("bounding_box_train", "bounding_box_test", "query")
    )
    assert len(train) == 3 * 4 * 2
    assert len(query) == 3 * 4
    assert len(gallery) == 3 * 4 + 5 + 5
    assert {camera for _, camera in train} == {1, 2, 3, 4}
    with Image.open(next((drawn / "query").iterdir())) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_junk_and_distractors_are_in_the_gallery_alone(drawn):
    gallery = Counter(identity for identity, _ in boxes(drawn, "bounding_box_test"))
    assert gallery["-1"] == 5
    assert gallery["0000"] == 5
    elsewhere = boxes(drawn, "bounding_box_train") + boxes(drawn, "query")
    assert not {"-1", "0000"} & {identity for identity, _ in elsewhere}


def test_nobody_is_in_both_training_and_test(drawn):
    train = {identity for identity, _ in boxes(drawn, "bounding_box_train")}
    query = {identity for identity, _ in boxes(drawn, "query")}
    gallery = {identity for identity, _ in boxes(drawn, "bounding_box_test")} - {"-1", "0000"}
    assert query == gallery
    assert not train & gallery
    assert len(train) == len(gallery) == 3


def test_every_query_has_a_match_under_another_camera(drawn):
    query = boxes(drawn, "query")
    gallery = boxes(drawn, "bounding_box_test")
    assert max(Counter(query).values()) == 1
    assert Counter(query).keys() == {box for box in gallery if box[0] not in ("-1", "0000")}
    for identity, camera in query:
        assert any(other == identity and where != camera for other, where in gallery)


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(drawn, tmp_path):
    draw_dataset(tmp_path / "again", **FEW)
    assert contents(tmp_path / "again") == contents(drawn)
    draw_dataset(tmp_path / "other", seed=1, **FEW)
    assert not set(contents(tmp_path / "other").values()) & set(contents(drawn).values())


def test_an_image_does_not_depend_on_how_many_are_drawn(drawn, tmp_path):
    draw_dataset(tmp_path / "more", **{**FEW, "junk": 9, "images_per_identity_camera": 3})
    more = {Path(name).name: data for name, data in contents(tmp_path / "more").items()}
    fewer = {Path(name).name: data for name, data in contents(drawn).items()}
    del fewer["dataset.json"]
    assert {name: more[name] for name in fewer} == fewer


def test_a_complete_folder_is_reused(drawn, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("drew again")

    monkeypatch.setattr(synthetic, "photograph", refuse)
    draw_dataset(drawn, **FEW)


def test_a_folder_of_other_settings_is_refused_with_the_difference(drawn):
    before = contents(drawn)
    with pytest.raises(InputError, match=r"pedestrians: .*seed is 0, not 7\).*remove it"):
        draw_dataset(drawn, seed=7, **FEW)
    assert contents(drawn) == before


def test_a_folder_with_images_missing_is_refused(tmp_path):
    draw_dataset(tmp_path / "set", **FEW)
    next((tmp_path / "set" / "query").iterdir()).unlink()
    with pytest.raises(InputError, match="'query': 11"):
        draw_dataset(tmp_path / "set", **FEW)


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(InputError, match="not a complete drawn data set"):
        draw_dataset(tmp_path, **FEW)
    assert contents(tmp_path) == {"thesis.txt": b"three years of work"}


def test_an_empty_folder_is_filled(tmp_path):
    draw_dataset(tmp_path / "set", **FEW)
    (tmp_path / "empty").mkdir()
    draw_dataset(tmp_path / "empty", **FEW)
    assert contents(tmp_path / "empty") == contents(tmp_path / "set")


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    taken = iter(range(7))

    def interrupted(*arguments, **sizes):
        if next(taken) == 6:
            raise KeyboardInterrupt
        return photograph(*arguments, **sizes)

    photograph = synthetic.photograph
    monkeypatch.setattr(synthetic, "photograph", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "set", **FEW)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_drawing_leaves_is_not_taken_for_the_data_set(tmp_path):
    command = [sys.executable, "-m", "dgnet_jax.data.synthetic", str(tmp_path / "set")]
    process = subprocess.Popen(command, cwd=Path(synthetic.__file__).parents[2])
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".set.drawing-")
    assert not (leftover / "dataset.json").exists()
    draw_dataset(tmp_path / "set", **FEW)
    assert len(list((tmp_path / "set" / "query").iterdir())) == 12


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"images_per_identity_camera": 1}, {"height": 0}, {"junk": -2}]
)
def test_a_number_out_of_range_is_refused_by_name(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is {wrong[name]}"):
        draw_dataset(tmp_path / "set", **{**FEW, **wrong})


def test_other_sizes_are_drawn_too(tmp_path):
    draw_dataset(tmp_path / "set", height=64, width=32, **FEW)
    with Image.open(next((tmp_path / "set" / "query").iterdir())) as image:
        assert image.size == (32, 64)


Boxes = list[tuple[str, int]]


def rank1(
    query: np.ndarray, query_boxes: Boxes, gallery: np.ndarray, gallery_boxes: Boxes
) -> float:
    """Share of queries whose nearest image under the other cameras shows the same person."""
    hits = []
    for feature, (identity, camera) in zip(query, query_boxes, strict=True):
        allowed = [other != "-1" and where != camera for other, where in gallery_boxes]
        distances = np.where(allowed, np.abs(gallery - feature).sum(axis=1), np.inf)
        hits.append(gallery_boxes[int(distances.argmin())][0] == identity)
    return float(np.mean(hits))


def read(root: Path, folder: str) -> tuple[np.ndarray, Boxes]:
    paths = sorted((root / folder).iterdir())
    images = np.stack([np.asarray(Image.open(path), np.float32) / 255 for path in paths])
    matches = [MARKET_NAME.fullmatch(path.name) for path in paths]
    return images, [(match[1], int(match[2])) for match in matches if match]


def clothes(images: np.ndarray) -> np.ndarray:
    """Histograms of colour in six stripes down the middle of every image."""
    # Dividing by each image's border takes the camera's colour cast out.
    border = np.concatenate([images[:, :, :8], images[:, :, -8:]], axis=2).mean(axis=(1, 2))
    levels = np.clip(images / border[:, None, None] * 2.0, 0, 3.999).astype(int)
    codes = (levels[..., 0] * 4 + levels[..., 1]) * 4 + levels[..., 2]
    stripes = np.split(codes[:, 16:112, 20:44], 6, axis=1)
    return np.concatenate(
        [np.stack([np.bincount(s.ravel(), minlength=64) for s in stripe]) for stripe in stripes],
        axis=1,
    ).astype(np.float32)


def background(images: np.ndarray) -> np.ndarray:
    """Mean colour of the two sides of every image, where the person is not."""
    return np.stack([images[:, :, :8], images[:, :, -8:]], axis=1).mean(axis=(2, 3)).reshape(-1, 6)


def test_people_are_found_by_their_clothes_and_not_by_the_background(tmp_path):
    draw_dataset(
        tmp_path / "set", train_identities=1, test_identities=16, images_per_identity_camera=4
    )
    query, query_boxes = read(tmp_path / "set", "query")
    gallery, gallery_boxes = read(tmp_path / "set", "bounding_box_test")
    by = {
        feature.__name__: rank1(feature(query), query_boxes, feature(gallery), gallery_boxes)
        for feature in (clothes, background)
    }
    # A blind guess finds one of 9 matches among 174 images under the other cameras: 5 %.
    assert by["clothes"] > 0.5
    assert by["background"] < 0.15


def test_several_processes_draw_the_same_bytes(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_LEAST_SHARE", 1)
    monkeypatch.setattr(synthetic, "available_cpus", lambda: 3)

    def refuse(*_, **__):
        raise AssertionError("drew in this process")

    monkeypatch.setattr(synthetic, "photograph", refuse)
    draw_dataset(tmp_path / "shared", **FEW)
    assert contents(tmp_path / "shared") == contents(drawn)


@pytest.mark.parametrize(
    ("worker", "ending"),
    [("raise SystemExit(3)", "status 3"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
)
def test_a_process_that_fails_ends_the_others_and_leaves_nothing_behind(
    tmp_path, monkeypatch, worker, ending
):
    monkeypatch.setattr(synthetic, "_LEAST_SHARE", 1)
    monkeypatch.setattr(synthetic, "available_cpus", lambda: 2)
    # The last process fails; the first would draw for ten minutes.
    patient = "import sys, time; sys.argv[-2] == '0' and time.sleep(600); "
    monkeypatch.setattr(synthetic, "_WORKER", f"{patient}{worker}")
    with pytest.raises(InputError, match=f"a process that drew images there ended with {ending}"):
        draw_dataset(tmp_path / "set", **FEW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_processes_that_draw_end_with_the_one_that_started_them(tmp_path):
    program = (
        "import pathlib, sys; from dgnet_jax.data import synthetic; synthetic._LEAST_SHARE = 1; "
        "synthetic.available_cpus = lambda: 2; "
        "synthetic.draw_dataset(pathlib.Path(sys.argv[1]), train_identities=2000)"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "set")]
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[1]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        started = time.monotonic()
        while len(workers := children.read_text().split()) < 2:
            assert time.monotonic() - started < 60 and parent.poll() is None
            time.sleep(0.02)
        parent.kill()
    started = time.monotonic()
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        states = [
            path.read_text().rsplit(")", 1)[1].split()[0]
            for worker in workers
            if (path := Path(f"/proc/{worker}/stat")).exists()
        ]
        if set(states) <= {"Z"}:  # ended, and nobody has asked how
            break
        assert time.monotonic() - started < 30
        time.sleep(0.05)
