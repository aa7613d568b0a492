"""What is no file, or far too large, in the place of any input is refused, never waited for."""

import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn_market import draw_market
from tiny import tiny_config

from dgnet_jax.ablation import Study
from dgnet_jax.ablation.results import read_results
from dgnet_jax.config import trained_config
from dgnet_jax.convert import load_backbone, load_released, load_teacher_weights
from dgnet_jax.convert.pth import read_pth
from dgnet_jax.data.cache import decode
from dgnet_jax.data.generated import read_generated, read_soft_labels
from dgnet_jax.data.images import image_files, read_images, read_photographs
from dgnet_jax.data.poses import read_poses
from dgnet_jax.data.prepare import prepare
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.synthetic import drawn_settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid import load_statistics
from dgnet_jax.models import build_networks, build_teacher
from dgnet_jax.models.inception import load_inception
from dgnet_jax.runtime.workdir import load_config

GIGABYTES = 20 * 1024**3


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Ends a test that waits for a writer of a FIFO, or reads zeros without end."""

    def stop(*_: object) -> None:
        raise AssertionError("not over after 30 s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(GIGABYTES)


SPECIAL = {"fifo": fifo, "device": device, "sparse": sparse}


def read_prepared(folder: Path) -> None:
    load_dataset("market1501", folder)


def one_image(path: Path) -> None:
    """The reader of a folder names what it leaves out; without any image left it refuses."""
    read_photographs([path], 8, 4)


def networks() -> object:
    return build_networks(tiny_config(), 5)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config.json": ("config.json", lambda path: load_config(path.parent)),
    "study.json": ("study.json", lambda path: Study.load(path.parent)),
    "dataset.json": ("dataset.json", lambda path: read_generated(path.parent)),
    "soft labels": ("soft_labels.npy", lambda path: read_soft_labels(path.parent, 3, 5)),
    "statistics": ("a.npz", load_statistics),
    "configuration in weights": ("a.safetensors", trained_config),
    "backbone": ("a.safetensors", lambda path: load_backbone(path, {})),
    "released": ("a.safetensors", lambda path: load_released(path, networks())),
    "teacher": (
        "a.safetensors",
        lambda path: load_teacher_weights(path, build_teacher(tiny_config(), 5)),
    ),
    "inception": ("a.safetensors", lambda path: load_inception(path, 64)),
    "pytorch": ("a.pth", read_pth),
    "table": ("a.csv", lambda path: load_dataset("csv", path)),
    "zip": ("Market-1501.zip", lambda path: load_dataset("market1501", path)),
    "zip in a folder": ("Market-1501.zip", lambda path: load_dataset("market1501", path.parent)),
    "poses": ("a.csv", lambda path: read_poses(str(path))),
    "photograph": ("a.jpg", one_image),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("reader", READERS)
def test_it_is_refused_by_name(reader: str, kind: str, tmp_path: Path):
    name, read = READERS[reader]
    path = tmp_path / name
    SPECIAL[kind](path)
    if reader == "dataset.json":
        (tmp_path / "manifest.csv").write_text("file,identity,camera,label\n")
    with pytest.raises(InputError, match=name):
        read(path)


@pytest.mark.parametrize("kind", SPECIAL)
def test_an_image_of_a_data_set_counts_as_broken(kind: str, tmp_path: Path):
    root = draw_market(tmp_path)
    image = next((root / "bounding_box_train").glob("*.jpg"))
    image.unlink()
    SPECIAL[kind](image)
    with pytest.raises(InputError, match=f"1 of the 5 images.*\n.*{image.name}: "):
        decode(load_dataset("market1501", root).train, 8, 4)


@pytest.mark.parametrize("kind", SPECIAL)
def test_an_image_of_a_folder_is_named_and_left_out(kind: str, tmp_path: Path):
    root = draw_market(tmp_path) / "bounding_box_train"
    SPECIAL[kind](root / "zzz.jpg")
    broken: list[str] = []
    files = image_files(root)
    images = list(read_images(files, 8, 4, 100, lambda path, reason: broken.append(path.name)))
    assert len(np.concatenate(images)) == len(files) - 1 and broken == ["zzz.jpg"]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json", "features.json"])
def test_prepared_records_are_refused(kind: str, name: str, tmp_path: Path):
    folder = Path(prepare("market1501", draw_market(tmp_path), tmp_path / "tfds"))
    (folder / name).unlink()
    SPECIAL[kind](folder / name)
    with pytest.raises(InputError, match="not a data set prepared by"):
        load_dataset("market1501", folder)


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_result_is_left_out_and_named(kind: str, tmp_path: Path):
    folder = tmp_path / "runs" / "l1" / "seed_0"
    folder.mkdir(parents=True)
    SPECIAL[kind](folder / "result.json")
    rows, damaged = read_results(tmp_path)
    assert not rows and "result.json: cannot be read" in damaged[0]


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_marker_makes_no_drawn_data_set(kind: str, tmp_path: Path, caplog):
    SPECIAL[kind](tmp_path / "dataset.json")
    assert drawn_settings(tmp_path) is None
    assert "dataset.json: cannot be read" in caplog.text


def test_a_member_of_a_zip_that_unpacks_to_gigabytes_counts_as_broken(tmp_path: Path):
    root = draw_market(tmp_path / "a")
    names = sorted(path.relative_to(root) for path in root.rglob("*.jpg"))
    archive = tmp_path / "Market-1501.zip"
    victim = next(name for name in names if name.parent.name == "bounding_box_train")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        for name in names:
            if name != victim:
                stream.write(root / name, name)
        with stream.open(str(victim), "w") as member:
            for _ in range(65):
                member.write(bytes(1024**2))
    with pytest.raises(InputError, match=r"1 of the 5 images.*\n.*68,157,440 bytes"):
        decode(load_dataset("market1501", archive).train, 8, 4)
