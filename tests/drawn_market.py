"""Small folders in Market-1501's layout for the data tests, drawn with NumPy and Pillow."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER_NAME = "Market-1501-v15.09.15"
TRAIN = (
    "0002_c1s1_000451_03.jpg",
    "0002_c2s1_000476_01.jpg",
    "0007_c3s3_077419_03.jpg",
    "0007_c6s3_077419_02.jpg",
    "0010_c6s4_002427_02.jpg.jpg",
)
QUERY = ("0001_c1s1_001051_00.jpg", "0003_c4s6_015641_00.jpg")
GALLERY = (
    "-1_c1s1_000401_03.jpg",
    "0000_c2s1_000151_01.jpg",
    "0001_c2s1_001976_01.jpg",
    "0003_c5s1_000151_01.jpg",
)


def smooth_image(seed: int, height: int = 128, width: int = 64) -> Image.Image:
    """Noise without the fine grain that JPEG would lose."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def draw_market(parent: Path) -> Path:
    """Writes the data set's folder into `parent` and returns it."""
    root = parent / FOLDER_NAME
    folders = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for i, name in enumerate(names):
            smooth_image(i).save(root / folder / name, "JPEG")
    return root


def zip_folder(root: Path, archive: Path, top: str = "") -> Path:
    """Stores a folder's files in a zip, below `top`."""
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(root.rglob("*")):
            target.write(file, top + file.relative_to(root).as_posix())
    return archive
