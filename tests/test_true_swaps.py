"""True swaps of a drawn data set: what is drawn, which image is which, and the command line."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgnet_jax.data import synthetic
from dgnet_jax.data.drawing.figure import KEYPOINTS, find_joints
from dgnet_jax.data.drawing.photo import photograph, photograph_in_clothes
from dgnet_jax.data.drawing.pose import take_pose
from dgnet_jax.data.drawing.wardrobe import PARTS, dress
from dgnet_jax.data.poses import read_poses
from dgnet_jax.data.synthetic import (
    Settings,
    Shot,
    choose_shots,
    draw_dataset,
    draw_true_swaps,
    drawn_settings,
    shot_of,
)
from dgnet_jax.errors import InputError

FEW = {
    "seed": 3,
    "train_identities": 2,
    "test_identities": 5,
    "images_per_identity_camera": 2,
    "distractors": 5,
    "junk": 6,
}
SETTINGS = Settings(**FEW, height=128, width=64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "pedestrians"
    draw_dataset(root, **FEW)
    return root


def test_somebody_in_their_own_clothes_is_the_image_itself() -> None:
    for shot in (Shot(1, 1, 0), Shot(4, 2, 1), Shot(7, 3, 0), Shot(5, 4, 1)):
        size = {"height": 128, "width": 64}
        truth = photograph_in_clothes(3, shot.identity, *shot, **size)
        assert truth.image.tobytes() == photograph(3, *shot, **size).tobytes()


def test_a_truth_differs_from_its_structure_where_clothes_or_skin_are_alone() -> None:
    structures, appearance = [Shot(1, 1, 0), Shot(2, 3, 1)], Shot(6, 2, 0)
    found = draw_true_swaps(SETTINGS, [appearance, *structures], structures, 128, 64)
    dressed = np.isin(found.parts, [PARTS.index(p) for p in ("top", "lower", "shoes", "skin")])
    for j, structure in enumerate(structures):
        own = np.asarray(photograph(3, *structure, height=128, width=64))
        np.testing.assert_array_equal(found.structures[j], own)
        np.testing.assert_array_equal(found.truth[1 + j, j], own)
        differs = np.abs(found.truth[0, j].astype(int) - own).max(-1) > 12
        # In the clothes of either; three pixels for outlines and blur.
        worn = dressed[0, j] | dressed[1 + j, j]
        around = np.lib.stride_tricks.sliding_window_view(np.pad(worn, 3), (7, 7)).any((2, 3))
        assert not (differs & ~around).any()
        assert (differs & worn).sum() > 0.5 * worn.sum()


def test_the_same_truths_are_drawn_again_and_at_another_size() -> None:
    shots = choose_shots(SETTINGS, 2, 0)
    first, again = (draw_true_swaps(SETTINGS, *shots, 64, 32) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    whole = draw_true_swaps(SETTINGS, *shots, 128, 64)
    # As the image cache resizes an image of 128 x 64.
    resized = Image.fromarray(whole.truth[1, 0]).resize((32, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(first.truth[1, 0], np.asarray(resized))
    assert first.parts.shape == (2, 2, 64, 32)
    for part in range(len(PARTS)):
        shares = [np.mean(found.parts == part) for found in (first, whole)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)


def joints_of(identity: int, camera: int, index: int, height: int = 128, width: int = 64):
    size = {"height": height, "width": width}
    return photograph_in_clothes(SETTINGS.seed, 1, identity, camera, index, **size).keypoints


def test_joints_have_the_form_of_files_of_poses_at_any_size() -> None:
    for height, width in ((64, 32), (256, 128), (96, 96)):
        np.testing.assert_array_equal(joints_of(2, 1, 0, height, width), joints_of(2, 1, 0))


@pytest.mark.parametrize("side", ["right", "left"])
def test_right_and_left_are_the_persons_own(side: str) -> None:
    """Seen from the front, a person's right is on the left of the image; from behind it is not."""
    other = {"right": "left", "left": "right"}[side]
    person, standing = dress(np.random.default_rng(0)), dict.fromkeys(("nose", f"{side} eye"))
    for yaw, sign in ((0.0, 1 if side == "right" else -1), (np.pi, -1 if side == "right" else 1)):
        pose = dataclasses.replace(take_pose(np.random.default_rng(1), 0), yaw=yaw)
        joints = find_joints(person, pose, 128, 480, 470)
        for joint in ("shoulder", "hip", "ear"):
            own, opposite = (joints[KEYPOINTS.index(f"{one} {joint}")] for one in (side, other))
            assert sign * (opposite[1] - own[1]) > 0, (yaw, joint)
        for joint in standing:
            assert np.isnan(joints[KEYPOINTS.index(joint)]).all() == (yaw > 0), (yaw, joint)
    # In profile the far eye and ear are behind the head.
    for yaw in (np.pi / 2, -np.pi / 2):
        pose = dataclasses.replace(take_pose(np.random.default_rng(1), 0), yaw=yaw)
        joints = find_joints(person, pose, 128, 480, 470)
        hidden = {
            one: np.isnan(joints[[KEYPOINTS.index(f"{one} {name}") for name in ("eye", "ear")]])
            for one in (side, other)
        }
        assert (
            hidden[side].all() != hidden[other].all() and hidden[side].any() != hidden[other].any()
        )


def test_parts_and_joints_lie_on_each_other() -> None:
    shots = [Shot(identity, camera, 0) for identity in range(1, 8) for camera in (1, 3)]
    found = draw_true_swaps(SETTINGS, shots[:4], shots, 128, 64)
    expected = {
        "neck": ("skin", "top", "hair", "bag"),
        "right hip": ("lower", "top", "bag", "skin"),
        "left hip": ("lower", "top", "bag", "skin"),
        "right knee": ("lower", "skin", "bag"),
        "left ankle": ("lower", "skin", "shoes"),
        "nose": ("skin", "hair"),
        "right wrist": ("skin", "top", "bag"),
        "left elbow": ("skin", "top", "bag"),
    }
    for name, parts in expected.items():
        joint, allowed = KEYPOINTS.index(name), [PARTS.index(part) for part in parts]
        hits = []
        for j, shot in enumerate(shots):
            y, x = joints_of(*shot)[joint]
            if y >= 0:
                hits += np.isin(found.parts[:, j, y, x], allowed).tolist()
        assert len(hits) > 10 and np.mean(hits) > 0.95, name


def test_every_file_name_says_which_image_it_is(drawn: Path) -> None:
    settings = drawn_settings(drawn)
    assert settings == SETTINGS
    paths = list(drawn.glob("*/*.jpg"))
    shots = {shot_of(settings, path) for path in paths}
    assert len(shots) == len(paths) == 7 * 4 * 2 + 5 + 6
    for path in paths[::7]:
        # The file is that image, but for JPEG's loss.
        image = photograph(3, *shot_of(settings, path.name), height=128, width=64)
        with Image.open(path) as stored:
            assert np.abs(np.asarray(stored, int) - np.asarray(image)).mean() < 3


def test_other_names_are_refused(drawn: Path) -> None:
    name = next((drawn / "query").iterdir()).name
    identity, camera, frame, box = name[:4], name[6], int(name[10:16]), name[17:19]
    for wrong in (
        "notes.txt",
        f"{identity}_c{camera}s1_{frame + 1:06d}_{box}.jpg",
        f"{identity}_c{camera}{name[7:9]}_{frame + 50:06d}_{box}.jpg",
        f"{identity}_c5{name[7:]}",
        f"0099{name[4:]}",
        name.replace(".jpg", ".png"),
    ):
        with pytest.raises(InputError, match="no image of the data set drawn with seed 3"):
            shot_of(SETTINGS, wrong)


def test_only_a_folder_that_this_version_has_drawn_has_settings(
    drawn: Path, tmp_path: Path
) -> None:
    assert drawn_settings(str(drawn)) == SETTINGS
    (tmp_path / "data.zip").touch()
    for root in ("", "gs://bucket/data", tmp_path, tmp_path / "absent", tmp_path / "data.zip"):
        assert drawn_settings(root) is None
    marker = json.loads((drawn / "dataset.json").read_text())
    for wrong in ({"version": 0}, {"height": "tall"}, {"junk": -1}):
        (tmp_path / "dataset.json").write_text(json.dumps({**marker, **wrong}))
        assert drawn_settings(tmp_path) is None
    del marker["seed"]
    for content in (json.dumps(marker), "[]", "{"):
        (tmp_path / "dataset.json").write_text(content)
        assert drawn_settings(tmp_path) is None


def test_appearances_and_structures_are_of_different_test_people(drawn: Path) -> None:
    tested = {int(path.name[:4]) for path in (drawn / "query").iterdir()}
    appearances, structures = choose_shots(SETTINGS, 2, 0)
    assert len({shot.identity for shot in (*appearances, *structures)}) == 4
    assert {shot.identity for shot in (*appearances, *structures)} < tested
    assert {shot.camera for shot in (*appearances, *structures)} == {1, 2, 3, 4}
    assert choose_shots(SETTINGS, 2, 0) == (appearances, structures)
    assert choose_shots(SETTINGS, 2, 1) != (appearances, structures)
    other = dataclasses.replace(SETTINGS, seed=4)
    assert choose_shots(other, 2, 0) != (appearances, structures)


def test_nobody_has_no_appearance() -> None:
    for shot, name in ((Shot(0, 1, 0), "0000_c1"), (Shot(-1, 2, 0), "-1_c2")):
        with pytest.raises(InputError, match=rf"{name}.*\.jpg: nobody's appearance"):
            draw_true_swaps(SETTINGS, [shot], [Shot(1, 1, 0)], 64, 32)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["synthetic", *map(str, arguments)])
    synthetic.main()


def test_the_command_draws_swaps_with_parts_and_joints(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, second, third = sorted(path.name for path in (drawn / "query").iterdir())[:9:4]
    flags = ["--appearance", first, second, "--structure", drawn / "query" / third]
    command(monkeypatch, drawn, "--swaps", tmp_path / "swaps", *flags)
    assert "2 swaps, 2 appearances on 1 structures" in capsys.readouterr().out
    stems = [f"{name[:-4]}__{third[:-4]}" for name in (first, second)]
    files = {f"{stem}{end}" for stem in stems for end in (".png", "_parts.png")}
    assert {path.name for path in (tmp_path / "swaps").iterdir()} == {*files, "keypoints.csv"}
    shots = [shot_of(SETTINGS, name) for name in (first, second, third)]
    truth = draw_true_swaps(SETTINGS, shots[:2], shots[2:], 128, 64)
    # The format of Market-1501's files of poses.
    header, *lines = (tmp_path / "swaps" / "keypoints.csv").read_text().splitlines()
    assert header == "name:keypoints_y:keypoints_x"
    assert len(lines) == 2
    for i, (stem, line) in enumerate(zip(stems, lines, strict=True)):
        with Image.open(tmp_path / "swaps" / f"{stem}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), truth.truth[i, 0])
        with Image.open(tmp_path / "swaps" / f"{stem}_parts.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), truth.parts[i, 0])
        name, rows, columns = line.split(":")
        assert name == f"{stem}.png"
        assert [json.loads(rows), json.loads(columns)] == joints_of(*shots[2]).T.tolist()
    poses = read_poses(str(tmp_path / "swaps" / "keypoints.csv"))
    assert poses.keys() == {f"{stem}.png" for stem in stems}


def test_the_command_takes_the_numbers_of_the_data_set(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    numbers = [word for name, value in FEW.items() for word in (f"--{name}", value)]
    command(monkeypatch, tmp_path / "again", *numbers)
    assert "2 training and 5 test people, 4 cameras" in capsys.readouterr().out
    assert drawn_settings(tmp_path / "again") == SETTINGS
    command(monkeypatch, tmp_path / "again", "--swaps", tmp_path / "swaps", "--count", 2)
    pictures = {path.stem for path in (tmp_path / "swaps").glob("*.png")}
    chosen = [
        {f"{synthetic._file_name(3, *shot)[:-4]}" for shot in side}
        for side in choose_shots(SETTINGS, 2, SETTINGS.seed)
    ]
    expected = {f"{one}__{other}" for one in chosen[0] for other in chosen[1]}
    assert pictures == expected | {f"{stem}_parts" for stem in expected}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--appearance", "0002_c1s1_0_03.jpg"], "--appearance: 0002_c1s1_0_03.jpg: no image of"),
        (["--structure", "gallery/{junk}"], "{junk}: nobody's appearance or structure is known"),
        (["--count", "0"], "--count: found 0. Give 1 or more."),
        (["--seed", "4"], "drawn otherwise (seed is 3, not 4); remove it or choose another"),
    ],
)
def test_what_cannot_be_swapped_is_named_and_nothing_is_left(
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    flags: list[str],
    message: str,
) -> None:
    junk = next((drawn / "bounding_box_test").glob("-1_*")).name
    flags = [flag.format(junk=junk) for flag in flags]
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, drawn, f"--swaps={tmp_path / 'swaps'}", *flags)
    assert ended.value.code == 2
    assert message.format(junk=junk) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_files_stay_as_they_are(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    for folder, message in (
        (tmp_path, "exists; remove it or choose another folder"),
        (tmp_path / "thesis.txt", "exists; remove it or choose another folder"),
        (tmp_path / "thesis.txt" / "swaps", "choose another folder"),
    ):
        with pytest.raises(SystemExit):
            command(monkeypatch, drawn, "--swaps", folder)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(monkeypatch, drawn, "--count", 3)
    assert "--count: is for swaps; give --swaps=OUT" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_flags_of_swaps_are_checked_before_a_data_set_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(synthetic, "_draw", None)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").touch()
    named = ["--appearance", "a.jpg", "--structure", "b.jpg", "--count", 2]
    for flags, message in (
        (["--swaps", tmp_path / "there"], "there: exists"),
        (["--swaps", tmp_path / "new", "--count", 0], "--count: found 0"),
        (["--swaps", tmp_path / "new", *named], "--count: is for images that are chosen"),
    ):
        with pytest.raises(SystemExit):
            command(monkeypatch, tmp_path / "data", *flags)
        assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_nobody_is_on_both_sides_where_four_people_are() -> None:
    for people, sides in ((5, 2), (4, 2), (3, 3), (1, 1)):
        settings = dataclasses.replace(SETTINGS, test_identities=people)
        appearances, structures = choose_shots(settings, 16, 0)
        assert len(appearances) == len(structures) == sides
        both = {shot.identity for shot in appearances} & {shot.identity for shot in structures}
        assert len(both) == (sides if people < 4 else 0)


def test_there_is_at_least_one_swap() -> None:
    with pytest.raises(InputError, match="found 0 appearances and 1 structures"):
        draw_true_swaps(SETTINGS, [], [Shot(1, 1, 0)], 64, 32)


def test_an_interrupted_drawing_of_swaps_leaves_nothing_behind(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = iter(range(3))

    def interrupted(*arguments, **sizes):
        if next(taken) == 2:
            raise KeyboardInterrupt
        return photograph_in_clothes(*arguments, **sizes)

    monkeypatch.setattr(synthetic, "photograph_in_clothes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(monkeypatch, drawn, "--swaps", tmp_path / "swaps")
    assert list(tmp_path.iterdir()) == []
