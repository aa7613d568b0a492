"""`python -m dgnet_jax.fid` on small folders, with the first layers of the network."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn_market import smooth_image
from PIL import Image
from safetensors.numpy import save_file

from dgnet_jax.data.images import image_files, read_images
from dgnet_jax.evaluation.extraction import load_extractor
from dgnet_jax.evaluation.fid import FeatureStatistics
from dgnet_jax.fid import main
from dgnet_jax.models.inception import parameter_shapes


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights up to the 64-d features, in pytorch-fid's names."""
    rng = np.random.default_rng(0)
    tensors = {}
    for (layer, leaf), shape in parameter_shapes(64).items():
        if leaf == "kernel":
            values = rng.standard_normal((*shape[:1:-1], *shape[:2])) / np.sqrt(shape[2] * 9)
            tensors[f"{layer}.conv.weight"] = values.astype(np.float32)
        else:
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{layer}.bn.{name}"] = rng.random(shape, np.float32)
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(tensors, path)
    return str(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """9 and 7 images of varying size, depth, format and mode, and what is no image."""
    root = tmp_path_factory.mktemp("images")
    for side, count, first in (("real", 9, 0), ("generated", 7, 100)):
        folder = root / side
        (folder / "deep" / "deeper").mkdir(parents=True)
        for index in range(count):
            image = smooth_image(first + index, 40 + 8 * (index % 3), 24)
            target = folder / ("deep/deeper" if index % 2 else "") / f"{index}"
            suffix, mode = [(".png", "L"), (".JPG", "CMYK"), (".jpeg", "RGB"), (".bmp", "RGB")][
                index % 4
            ]
            image.convert(mode).save(target.with_suffix(suffix))
        (folder / "Thumbs.db").write_bytes(b"no image")
        (folder / "._0.png").write_bytes(b"of another system")
    (root / "generated" / "broken.jpg").write_bytes(b"\xff\xd8\xff but no image")
    return str(root / "real"), str(root / "generated")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[str, str]:
    main([*argv, "--dims", "64", "--size", "48x24", "--batch-size", "4"])
    output = capsys.readouterr()
    return output.out, output.err


def test_fid_and_kid_of_two_folders(
    capsys: pytest.CaptureFixture[str], weights: str, folders: tuple[str, str]
) -> None:
    out, err = run(capsys, *folders, "--weights", weights)
    assert "FID (64-d): " in out and "9 real and 7 generated images" in out
    assert "KID (64-d): mean " in out and "100 subsets of 3 images, seed 0" in out
    assert "broken.jpg: skipped" in err
    assert f"{folders[1]}: the covariance of 7 images in 64 dims is singular" in err

    out, _ = run(capsys, *folders, "--weights", weights, "--json")
    result = json.loads(out)
    assert (result["real"], result["generated"], result["broken"]) == (9, 7, 1)
    assert result["dims"] == 64 and result["singular"]

    # The same by hand: each image once, resized by Pillow.
    extractor = load_extractor(weights, 64, 3)
    statistics = []
    for folder in folders:
        files = [path for path in sorted(Path(folder).rglob("[0-9]*.*")) if path.suffix != ".db"]
        images = [Image.open(path).convert("RGB") for path in files]
        pixels = np.stack([np.asarray(x.resize((24, 48), Image.BICUBIC)) for x in images])
        statistics.append(FeatureStatistics.of(extractor(pixels)))
    assert [found.count for found in statistics] == [9, 7]
    assert result["fid"] == pytest.approx(statistics[0].distance(statistics[1]), rel=1e-5)


def test_a_set_has_no_distance_to_itself(
    capsys: pytest.CaptureFixture[str], weights: str, folders: tuple[str, str]
) -> None:
    result = json.loads(run(capsys, folders[0], folders[0], "--weights", weights, "--json")[0])
    assert 0 <= result["fid"] < 1e-9


def test_saved_statistics_stand_for_a_folder(
    capsys: pytest.CaptureFixture[str], weights: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    plain, full = str(tmp_path / "plain.npz"), str(tmp_path / "full.npz")
    direct = json.loads(run(capsys, *folders, "--weights", weights, "--json")[0])

    out, err = run(capsys, folders[0], "--weights", weights, "--save-stats", plain)
    assert out == "" and "statistics of 9 images" in err
    out, err = run(capsys, plain, folders[1], "--weights", weights, "--json")
    assert json.loads(out)["fid"] == pytest.approx(direct["fid"], rel=1e-9)
    assert "kid_mean" not in out and "KID is not available" in err

    extra = ("--save-stats", full, "--with-features")
    again = json.loads(run(capsys, *folders, "--weights", weights, *extra, "--json")[0])
    assert again["fid"] == direct["fid"]
    saved = json.loads(run(capsys, full, folders[1], "--weights", weights, "--json")[0])
    assert saved["kid_mean"] == pytest.approx(direct["kid_mean"], rel=1e-9)
    # Two files need no network; pytorch-fid's do not tell their count.
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(64), sigma=np.eye(64))
    out, _ = run(capsys, plain, str(tmp_path / "theirs.npz"))
    assert "9 real and an unknown number of generated images" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("REAL", "absent"), "absent: no such folder or file"),
        (("REAL", "GENERATED"), "--weights is missing.*pt_inception-2015-12-05-6726825d.pth"),
        (("REAL",), "GENERATED is missing"),
        (("REAL", "EMPTY", "--weights", "W"), "no image in it"),
        (("REAL", "ALONE", "--weights", "W"), "1 images that can be read, of 1"),
        (("REAL", "GENERATED", "--weights", "W", "--size", "256"), "--size: found '256'"),
        (("REAL", "GENERATED", "--weights", "W", "--batch-size", "0"), "--batch-size: found 0"),
        (("REAL", "GENERATED", "--weights", "W", "--dims", "2048"), "This file is enough for"),
        (("REAL", "DIMS", "--weights", "W", "--dims", "64"), "has 64 dims, .* has 3"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    argv: tuple[str, ...],
    message: str,
    weights: str,
    folders: tuple[str, str],
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    smooth_image(0).save(tmp_path / "alone" / "0.png")
    np.savez(tmp_path / "dims.npz", mu=np.zeros(3), sigma=np.eye(3))
    places = {
        "REAL": folders[0],
        "GENERATED": folders[1],
        "W": weights,
        "EMPTY": str(tmp_path / "empty"),
        "ALONE": str(tmp_path / "alone"),
        "DIMS": str(tmp_path / "dims.npz"),
    }
    given = [places.get(word, word) for word in argv]
    defaults = [] if "--dims" in argv else ["--dims", "64"]
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main(given + defaults)


def test_files_are_found_at_any_depth_and_read_in_order(folders: tuple[str, str]) -> None:
    files = image_files(folders[1])
    assert len(files) == 8 and files == sorted(files)
    broken = []
    chunks = list(read_images(files, 16, 8, 3, lambda path, reason: broken.append(path.name)))
    assert broken == ["broken.jpg"]
    assert [len(chunk) for chunk in chunks] == [3, 2, 2]  # the second of 3 files is broken
    whole = np.concatenate(list(read_images(files, 16, 8, 100, lambda path, reason: None)))
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


@pytest.mark.slow
def test_the_command_ends_with_status_1_and_one_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "dgnet_jax.fid", "nowhere", "nowhere"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert found.returncode == 1
    assert found.stderr == "error: nowhere: no such folder or file\n"
    assert found.stdout == ""


@pytest.mark.slow
@pytest.mark.alone
def test_fid_of_real_images_is_pytorch_fids(
    shared: Path, market_zip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000 training images against 1,000 queries on the 768-d features, real weights."""
    torch = pytest.importorskip("torch")
    checkpoint = shared / "weights" / "fid-inception-2015-12-05-to-mixed-6e.pth"
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = tmp_path / "inception.safetensors"
    save_file({key: value.numpy() for key, value in state.items()}, weights)
    expected = json.loads((shared / "reference" / "fid768.json").read_text())
    with zipfile.ZipFile(market_zip) as archive:
        for folder in ("bounding_box_train", "query"):
            names = [
                name
                for name in archive.namelist()
                if f"/{folder}/" in name and name.endswith(".jpg")
            ]
            for name in sorted(names)[:1000]:
                archive.extract(name, tmp_path)
    root = next(tmp_path.glob("*/query")).parent
    saved = tmp_path / "train.npz"

    main(
        [str(root / "bounding_box_train"), str(root / "query"), "--weights", str(weights)]
        + ["--dims", "768", "--save-stats", str(saved), "--with-features", "--json"]
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["real"], result["generated"], result["broken"]) == (1000, 1000, 0)
    assert result["fid"] == pytest.approx(expected["train1000_vs_query1000"], rel=1e-3)
    features = np.load(saved)["features"]
    np.testing.assert_allclose(
        features[0, ::48], expected["first_image_features_every_48th"], rtol=1e-3, atol=1e-6
    )
    assert features.mean() == pytest.approx(expected["mean_feature_train"], rel=1e-4)
