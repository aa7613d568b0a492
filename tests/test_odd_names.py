"""File names that are not valid UTF-8 are read, printed and written; "~" is the home folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_market import draw_market, smooth_image
from PIL import Image
from tiny import tiny_config

from dgnet_jax.ablation import Study
from dgnet_jax.config import trained_config
from dgnet_jax.convert import load_backbone, load_released, load_teacher_weights
from dgnet_jax.convert.released import convert
from dgnet_jax.data.generated import MANIFEST_FILE, read_generated, read_soft_labels
from dgnet_jax.data.images import image_files, read_photographs
from dgnet_jax.data.poses import read_poses
from dgnet_jax.data.prepare import prepare
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.synthetic import drawn_settings
from dgnet_jax.errors import InputError, one_line
from dgnet_jax.evaluation.fid import load_statistics
from dgnet_jax.figures import image_grid, save_animation, save_png
from dgnet_jax.generate.set_folder import SetFolder, csv_line
from dgnet_jax.models import build_networks, build_teacher
from dgnet_jax.models.inception import load_inception
from dgnet_jax.runtime.paths import printable

# As Python holds the name b"caf\xe9", which is Latin-1.
ODD = os.fsdecode(b"caf\xe9")
SHOWN = "caf\\udce9"


def test_a_set_made_from_such_images_is_written_read_and_gone_on_with(tmp_path: Path):
    names = [f"bounding_box_train/0002_c1s1_{i:06d}_00.jpg" for i in range(4)]
    lines = [csv_line(name, 2, 1, 0, f"{ODD}\u2028.jpg", "b.jpg", 5) for name in names]
    description = {"model": "m", "identities": [2]}
    pictures = np.stack([np.asarray(smooth_image(i, 8, 4)) for i in range(4)])
    files = SetFolder(tmp_path / "set", lines, description, None, 90)
    assert files.prepare([0, 2]) == 0
    files.write_block(0, pictures[:2], None)
    assert f"{SHOWN}\u2028.jpg" in (tmp_path / "set" / MANIFEST_FILE).read_text(encoding="utf-8")
    assert SetFolder(tmp_path / "set", lines, description, None, 90).prepare([0, 2]) == 2
    assert read_generated(tmp_path / "set").split.files == tuple(names[:2])
    with Image.open(tmp_path / "set" / names[0]) as image:
        assert b'"appearance_source": "caf' in image.info["comment"]


def test_figures_show_and_carry_such_names(tmp_path: Path):
    picture = np.asarray(smooth_image(0, 8, 4))
    figure = image_grid([[picture]], [ODD], [ODD], ODD, labels=[[ODD]])
    save_png(figure, tmp_path / "a.png", {"source": ODD})
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["source"] == SHOWN
    for name in ("a.gif", "a.webp"):
        save_animation(np.stack([picture] * 2), tmp_path / name, {"source": ODD})
        assert (tmp_path / name).stat().st_size


def test_commands_print_such_names(tmp_path: Path):
    """Standard output refuses them by default where the locale is UTF-8."""
    program = (
        "import sys; from dgnet_jax.errors import one_line\n"
        "with one_line():\n    print(sys.argv[1])"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", program, ODD]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.decode() == f"{SHOWN}\n"


def test_readers_take_such_names_and_records_refuse_them(tmp_path: Path):
    root = draw_market(tmp_path)
    train = root / "bounding_box_train"
    first = sorted(train.glob("*.jpg"))[0]
    first.rename(train / f"0002_c1_{ODD}.jpg")
    data = load_dataset("folder", root)
    index = [ODD in file for file in data.train.files].index(True)
    assert data.train.read_bytes(index)
    assert any(ODD in path.name for path in image_files(train))
    assert any(ODD in path for path in read_photographs([train], 8, 4).paths)
    table = tmp_path / "a.csv"
    table.write_bytes(b"path,identity,camera,split\n\xe9.jpg,1,1,train\n")
    with pytest.raises(InputError, match=r"a\.csv:2: not UTF-8"):
        load_dataset("csv", table)
    with pytest.raises(InputError, match=r"caf\\udce9\.jpg: the name is not valid UTF-8"):
        prepare("folder", root, tmp_path / "tfds")


def test_what_is_printable_stays_what_it_is():
    assert printable("Zoë 0 ~") == "Zoë 0 ~" and printable(ODD) == SHOWN


HOME = "~/absent/a"
ENTRANCES = {
    "statistics": lambda path: load_statistics(f"{path}.npz"),
    "inception": lambda path: load_inception(f"{path}.safetensors", 64),
    "backbone": lambda path: load_backbone(f"{path}.safetensors", {}),
    "released": lambda path: load_released(f"{path}.safetensors", build_networks(tiny_config(), 5)),
    "teacher": lambda path: load_teacher_weights(
        f"{path}.safetensors", build_teacher(tiny_config(), 5)
    ),
    "configuration": lambda path: trained_config(f"{path}.safetensors"),
    "conversion": lambda path: convert([f"{path}.pth"], "out.safetensors"),
    "study": Study.load,
    "generated set": read_generated,
    "soft labels": lambda path: read_soft_labels(path, 1, 1),
    "images": image_files,
    "photographs": lambda path: read_photographs([path], 8, 4),
    "poses": read_poses,
    "table": lambda path: load_dataset("csv", f"{path}.csv"),
    "data set": lambda path: load_dataset("market1501", path),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_knows_the_home_folder(
    entrance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if entrance == "conversion":
        pytest.importorskip("torch")
    with pytest.raises(InputError, match=f"{tmp_path}/absent/a"):
        ENTRANCES[entrance](HOME)
    with pytest.raises(InputError, match="~nobody-here"):
        ENTRANCES[entrance]("~nobody-here/a")


def test_a_drawn_data_set_below_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert drawn_settings("~/absent") is None
    with pytest.raises(SystemExit, match="~nobody-here"), one_line():
        read_poses("~nobody-here/a")
