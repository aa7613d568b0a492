"""The report in headless Chromium, on a wide and on a narrow screen and in print.

A page of the test holds the report in a frame as wide as a screen and writes down what it measures
there: Chromium's own windows are not as narrow as a phone.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_search import make_search
from PIL import Image
from report_page import make_large_study, make_study, smooth_images
from tiny import tiny_config

from dgnet_jax.ablation.report import write_report
from dgnet_jax.ablation.report.comparisons import Painting
from dgnet_jax.config import default_config

CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)"),
]
WIDE, NARROW = 1600, 390
_MEASURE = """<!DOCTYPE html><style>body { margin: 0 } iframe { border: 0 }</style>
<iframe id="frame" src="%(page)s" width="%(width)d" height="%(height)d"></iframe>
<pre id="found"></pre>
<script>
frame.onload = () => {
  const view = frame.contentWindow, page = frame.contentDocument, root = page.documentElement;
  const images = [...page.images];
  const boxes = [...page.querySelectorAll(".table")];
  found.textContent = JSON.stringify({
    width: root.clientWidth,
    overflow: root.scrollWidth - root.clientWidth,
    height: root.scrollHeight,
    broken: images.filter(image => !image.naturalWidth).length,
    widest: Math.max(...images.map(
      image => (image.closest(".scroll") || image).getBoundingClientRect().right)),
    stretched: images.filter(image => Math.abs(
      image.width / image.height - image.naturalWidth / image.naturalHeight) > 0.02).length,
    scrolling: boxes.filter(box => box.scrollWidth > box.clientWidth
      && view.getComputedStyle(box).overflowX === "auto").length,
    tables: boxes.length,
    smallest: Math.min(...[...page.querySelectorAll("p, td, th, li, figcaption")].map(
      element => parseFloat(view.getComputedStyle(element).fontSize))),
    fetched: view.performance.getEntriesByType("resource").map(entry => entry.name),
  });
};
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    rows, config = make_study(folder)
    config.data.name = "market1501"
    return write_report(folder, rows, config, train_images=smooth_images(10))


# As labels of losses to come are, with parameters and without.
OTHERS = (
    *("charbonnier", "log_cosh", "ssim", "ms_ssim", "gradient_difference", "focal_frequency"),
    *("teacher_features", "rmse_printed", "huber_printed", "cos_channels", "huber-0.5"),
    *(f"barron-alpha{alpha}-c0.1" for alpha in (-2, 0, 1)),
    *("l1_charbonnier", "l1_log_cosh", "l1_ssim", "l1_ms_ssim", "l1_gradient_difference"),
    *("l1_focal_frequency", "l1_teacher_features", "l1_cos_channels", "l1_barron-alpha0-c0.1"),
)


@pytest.fixture(scope="module")
def large_page(tmp_path_factory) -> Path:
    """Of a study of 35 losses, whose pictures are plain: no network paints them."""
    folder = tmp_path_factory.mktemp("large")
    rows = make_large_study(folder, OTHERS)
    originals = smooth_images(2, 64, 32)
    swapped = np.stack([originals, originals[::-1]])

    def paint_first(runs, _):
        return Painting(runs[0], 3, originals, swapped)

    config = default_config()
    config.data.name, config.log.image_rows = "market1501", 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dgnet_jax.ablation.report.paint_first", paint_first)
        return write_report(folder, rows, config, train_images=originals)


def chromium(profile: Path, *arguments: str) -> str:
    """Runs it in a fresh profile, without a network, and returns what it prints."""
    command = [
        CHROMIUM,
        "--headless",
        # A sandbox cannot be set up as root, nor in most containers.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(page: Path, width: int, tmp_path: Path) -> dict:
    probe = tmp_path / "probe.html"
    probe.write_text(_MEASURE % {"page": page.as_uri(), "width": width, "height": 900})
    dom = chromium(tmp_path / "profile", "--dump-dom", probe.as_uri())
    found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
    assert found, dom[:2000]
    return json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&"))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_fits_the_screen_and_fetches_nothing(page, width, tmp_path):
    found = measure(page, width, tmp_path)
    assert found["width"] == width
    assert found["overflow"] == 0
    assert found["broken"] == found["stretched"] == 0
    assert 0 < found["widest"] <= width
    assert found["smallest"] >= 12
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
    if width == NARROW:
        assert 0 < found["scrolling"] <= found["tables"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_page_of_35_losses_fits_too(large_page, width, tmp_path):
    found = measure(large_page, width, tmp_path)
    assert found["overflow"] == 0
    assert found["broken"] == found["stretched"] == 0
    assert 0 < found["widest"] <= width
    assert found["smallest"] >= 12
    html = large_page.read_text(encoding="utf-8")
    assert html.count("<figcaption>Other losses, ") == 4
    assert html.count('href="#swaps_') == 35


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_of_a_search_fits_too(width, tmp_path):
    pytest.importorskip("optuna", reason="the extra [search] is not installed")
    rows = make_search(tmp_path)
    page = write_report(tmp_path, rows, tiny_config(), train_images=smooth_images(4))
    found = measure(page, width, tmp_path)
    assert found["width"] == width and found["overflow"] == 0
    assert found["broken"] == found["stretched"] == 0
    assert 0 < found["widest"] <= width


def test_a_picture_from_elsewhere_would_be_noticed(page, tmp_path):
    other = page.with_name("other.html")
    html = page.read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv.*?>", html)
    assert policy
    outside = '<img src="http://pictures.invalid/a.png" alt="">'
    other.write_text(html.replace(policy[0], "").replace("<main>", f"<main>{outside}"))
    found = measure(other, NARROW, tmp_path)
    assert found["broken"] == 1
    assert found["fetched"] == ["http://pictures.invalid/a.png"]


def test_a_screenshot_shows_tables_plots_and_pictures(page, tmp_path):
    file = tmp_path / "wide.png"
    chromium(
        tmp_path / "profile", f"--screenshot={file}", f"--window-size={WIDE},4000", page.as_uri()
    )
    with Image.open(file) as picture:
        assert picture.size == (WIDE, 4000)
        pixels = np.asarray(picture.convert("RGB"))
    ink = (pixels < 128).all(-1)
    # Words at the top, and no quarter of the page's height is empty.
    assert all(ink[start : start + 1000].mean() > 0.002 for start in range(0, 4000, 1000))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_it_prints(page, tmp_path):
    file = tmp_path / "page.pdf"
    chromium(tmp_path / "profile", f"--print-to-pdf={file}", page.as_uri())
    pages = file.read_bytes().count(b"/Type /Page\n")
    assert 3 <= pages <= 20
