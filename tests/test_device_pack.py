"""What goes to a borrowed machine: wheels, images, weights, within a size."""

import json
import zipfile
from pathlib import Path

import drawn_market
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from benchmarks.device import pack, unpack, wheels
from dgnet_jax.convert import load_backbone
from dgnet_jax.data.readers.market1501 import read_market1501
from dgnet_jax.errors import InputError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = drawn_market.draw_market(tmp_path / "drawn")
    return drawn_market.zip_folder(root, tmp_path / "market.zip", top="Market-1501-v15.09.15/")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    rng = np.random.default_rng(0)
    stem = {
        "conv1.weight": rng.standard_normal((64, 3, 7, 7)).astype(np.float32),
        "bn1.running_var": np.full(64, 1e-6, np.float32),
    }
    save_file(stem, folder / "resnet50-drawn.safetensors")
    save_file({"Conv2d_1a_3x3.bn.bias": np.ones(4, np.float32)}, folder / "fid.safetensors")
    return folder


def run(archive: Path, weights: Path, out: Path, *more: str) -> None:
    flags = [f"--market={archive}", f"--weights={weights}", f"--out={out}", "--no_download"]
    pack.main([*flags, f"--wheels={out / 'wheels'}", *more])


def test_a_data_set_arrives_in_two_parts(archive: Path, weights: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "packs", tmp_path / "work"
    run(archive, weights, out)
    counts = unpack.unpack(out / "first", work)
    assert counts["weights"] == 2 and counts["wheels"] == 0

    # Training may begin: the reader finds all training images, and some of the others.
    root = work / "data"
    first = read_market1501(root)
    assert [Path(file).name for file in first.train.files] == list(drawn_market.TRAIN)
    assert -1 not in first.gallery.identities

    unpack.unpack(out / "second", work)
    whole, original = read_market1501(root), read_market1501(archive)
    for name, split in original.splits.items():
        ours = whole.splits[name]
        assert ours.files == split.files
        assert all(ours.read_bytes(i) == split.read_bytes(i) for i in range(len(split)))


def test_kernels_are_stored_in_half_and_widened_by_the_loader(
    archive: Path, weights: Path, tmp_path: Path
) -> None:
    run(archive, weights, tmp_path / "packs")
    file = tmp_path / "packs/first/weights/resnet50.safetensors"
    original, stored = load_file(weights / "resnet50-drawn.safetensors"), load_file(file)
    assert stored["conv1.weight"].dtype == np.float16
    # A variance as small as this would lose digits.
    np.testing.assert_array_equal(stored["bn1.running_var"], original["bn1.running_var"])

    kernel = np.zeros((7, 7, 3, 64), np.float32)
    variables = {"params": {"backbone": {"conv1": {"kernel": kernel}}}, "batch_stats": {}}
    loaded = load_backbone(str(file), variables)
    found = loaded.variables["params"]["backbone"]["conv1"]["kernel"]
    assert found.dtype == np.float32 and not loaded.missing
    np.testing.assert_allclose(found, original["conv1.weight"].transpose(2, 3, 1, 0), rtol=5e-4)


def test_a_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": np.full((2, 2), 1e6, np.float32)}, tmp_path / "large.safetensors")
    with pytest.raises(InputError, match=r"large.safetensors: fc.weight is not finite in float16"):
        pack.pack_weights(tmp_path / "large.safetensors", tmp_path / "out.safetensors")


def test_a_pack_that_is_too_large_says_by_how_much_and_is_not_left(
    archive: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "packs"
    run(archive, weights, out)
    before = sorted(out.iterdir())
    size = sum(pack.sizes(out / "first").values())
    (weights / "resnet50-drawn.safetensors").unlink()
    noise = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    save_file({"fc.weight": noise}, weights / "resnet50-larger.safetensors")
    with pytest.raises(
        SystemExit, match=r"error: .*first\S*: 1.0\d MiB, 0.8\d MiB more than the 0.2"
    ):
        run(archive, weights, out, "--limit_mib=0.2")
    assert size < 0.2
    assert sorted(out.iterdir()) == before
    assert sum(pack.sizes(out / "first").values()) == size


def test_missing_inputs_are_named(archive: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: --market=\S*nowhere cannot be read"):
        run(tmp_path / "nowhere", weights, tmp_path / "packs")
    with pytest.raises(SystemExit, match=r"error: --reference=\S*: no dgnet_step.npz in it"):
        run(archive, weights, tmp_path / "packs", f"--reference={tmp_path}")
    (weights / "fid.safetensors").unlink()
    with pytest.raises(
        SystemExit, match=r"error: --weights=\S*: no fid\*.safetensors, fid\*.pth or"
    ):
        run(archive, weights, tmp_path / "packs")
    assert not (tmp_path / "packs").exists() or not any((tmp_path / "packs").iterdir())


def test_an_unfinished_pack_is_refused_where_it_is_unpacked(
    archive: Path, weights: Path, tmp_path: Path
) -> None:
    run(archive, weights, tmp_path / "packs")
    (tmp_path / "packs/second/pack.json").write_text(json.dumps({"images": 1000}))
    with pytest.raises(SystemExit) as ended:
        unpack.main([str(tmp_path / "packs/second"), str(tmp_path / "work")])
    assert ended.value.code == 1


def test_the_wheels_are_those_that_are_missing_with_what_they_need() -> None:
    needs = {
        "flax": ["jax>=0.6", "msgpack"],
        "msgpack": [],
        "tool": ["Numpy", "colour; extra == 'all'", "winreg; sys_platform == 'win32'", "toml_x"],
        "toml-x": ["tool"],
    }
    asked = ["tool>=1", "jax>=0.6", "old; python_version < '3.11'", "tensorflow-datasets", "flax"]
    found = wheels.missing_packages(
        asked,
        {"jax", "numpy"},
        lambda requirement: needs[wheels.canonicalize_name(requirement.name)],
    )
    assert sorted(found) == ["flax", "msgpack", "toml-x", "tool"]


def test_lists_of_packages_are_read_with_or_without_versions(tmp_path: Path) -> None:
    listed = tmp_path / "present.txt"
    listed.write_text("# there\njax==0.9.1\nTensor_Board\nx @ file:///x\n-r other.txt\n\n")
    assert wheels.read_names(listed) == {"jax", "tensor-board", "x"}


def test_what_a_wheel_needs_is_read_from_it(tmp_path: Path) -> None:
    wheel = tmp_path / "tool-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "tool-1.0.dist-info/METADATA", "Name: tool\nRequires-Dist: numpy>=2\n\nText"
        )
    assert wheels.wheel_requirements(wheel) == ["numpy>=2"]


def test_images_of_an_archive_are_whole(archive: Path, weights: Path, tmp_path: Path) -> None:
    run(archive, weights, tmp_path / "packs")
    unpack.unpack(tmp_path / "packs/first", tmp_path / "work")
    for file in sorted((tmp_path / "work/data").rglob("*.jpg")):
        with Image.open(file) as image:
            assert image.size == (64, 128)
