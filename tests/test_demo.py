"""The stored model: people whom it has not seen change their clothes."""

import re

import numpy as np
import pytest
from PIL import Image

from dgnet_jax import demo
from dgnet_jax.config import trained_config
from dgnet_jax.data.drawing.photo import photograph


def test_the_stored_weights_are_small_and_know_where_they_come_from():
    assert demo.WEIGHTS.stat().st_size <= 8 * 2**20
    config = trained_config(demo.WEIGHTS)
    assert config.data.drawing.train_identities == 1500
    assert (config.data.height, config.data.width) == (128, 64)


@pytest.mark.slow
def test_clothes_of_unseen_people_change_and_everybody_is_found(tmp_path, capsys):
    demo.main(["--output", str(tmp_path / "out"), "--seed=3"])
    said = capsys.readouterr().out
    moved = int(re.search(r"(\d+) % of the garments' colours moved", said)[1])
    kept = float(re.search(r"SSIM of lightness (0\.\d+)", said)[1])
    assert moved >= 60
    assert kept >= 0.6
    sizes = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as picture:
            sizes[path.name] = picture.size, getattr(picture, "n_frames", 1)
    assert sorted(sizes) == ["interpolation.gif", "ranked_lists.png", "swaps.png"]
    assert sizes["interpolation.gif"] == ((128, 256), 16)


@pytest.mark.slow
def test_images_of_ones_own_are_swapped(tmp_path, capsys):
    for name, people in (("worn", (1, 2)), ("wanted", (3, 4, 5))):
        (tmp_path / name).mkdir()
        for person in people:
            picture = photograph(9, person, 1, 0, height=150, width=70)
            picture.save(tmp_path / name / f"{person}.png")
    folders = ["--appearance", str(tmp_path / "worn"), "--structure", str(tmp_path / "wanted")]
    demo.main([*folders, "--output", str(tmp_path / "out")])
    assert "swaps.png" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "out" / "swaps.png")).std() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--appearance", "x"], "give both, or none"),
        (["--seed=-1"], "--seed: found -1"),
        (["--weights", "no.safetensors"], r"no\.safetensors: no such file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        demo.main([*arguments, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
