"""Small folders in the layouts of DukeMTMC-reID, MSMT17 and CUHK03-NP, and tables of images."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.drawn_market import smooth_image

DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0046302.jpg", "0007_c1_f0000001.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051341.jpg", "7140_c6_f0098765.jpg"],
}
CUHK03 = {
    "bounding_box_train": ["0001_c1_1.png", "0001_c2_6.png", "0002_c1_11.png"],
    "query": ["0003_c1_22.png", "0003_c2_27.png"],
    "bounding_box_test": ["0003_c1_21.png", "0003_c1_23.png", "1467_c2_9.png"],
}
# Identities start at 0 in training and test images alike; camera 15 has two digits.
MSMT17 = {
    "list_train.txt": [
        "0000/0000_000_01_0303morning_0008_0.jpg 0",
        "0000/0000_001_15_0303noon_0044_1.jpg 0",
        "0001/0001_000_07_0303afternoon_0215_1.jpg 1",
    ],
    "list_val.txt": ["0001/0001_004_11_0302morning_0633_0_ex.jpg 1"],
    "list_query.txt": ["0000/0000_000_10_0303morning_0036_0.jpg 0"],
    "list_gallery.txt": [
        "0000/0000_002_05_0303morning_0060_0.jpg 0",
        "3059/3059_001_14_0303noon_0170_2_ex.jpg 3059",
    ],
}
_SIZES = ((128, 48), (301, 110), (64, 33))


def draw(path: Path, seed: int) -> None:
    """An image whose size and colour mode depend on the seed: JPEGs are also gray and CMYK."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Image.Image = smooth_image(seed, *_SIZES[seed % len(_SIZES)])
    if path.suffix == ".jpg":
        image = image.convert(("RGB", "L", "CMYK")[seed // 2 % 3])
    image.save(path)


def draw_folders(root: Path, folders: dict[str, list[str]]) -> Path:
    """Writes the files of each folder below `root` and returns it."""
    seed = 0
    for folder, names in folders.items():
        for name in names:
            draw(root / folder / name, seed)
            seed += 1
    return root


def draw_msmt17(root: Path, train: str = "train", test: str = "test") -> Path:
    """Writes MSMT17's lists and the images that they name."""
    for number, (name, lines) in enumerate(MSMT17.items()):
        folder = train if name in ("list_train.txt", "list_val.txt") else test
        for i, line in enumerate(lines):
            draw(root / folder / line.split()[0], 10 * number + i)
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    return root


def write_table(
    path: Path, rows: Sequence[str], header: str = "path,identity,camera,split"
) -> Path:
    """Writes a table, and draws the image of each row that does not have one yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(rows):
        image = path.parent / row.split(",")[0]
        if not image.exists():
            draw(image, i)
    path.write_text("".join(f"{line}\n" for line in (header, *rows)))
    return path
