"""Reads a report's HTML, and a study's folder to write one of."""

import json
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from trained import STEP, save_run

from dgnet_jax.losses import FUSIONS, LOSSES

# Tags without an end tag.
_VOID = ("meta", "link", "img", "br", "wbr")


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        tables: caption to rows, the head first, of (text, classes, whether it is bold).
        images: attributes of each <img>.
        captions: text of each <figcaption>.
        fetched: addresses that a browser would load: of src, srcset, link, object, @import, url().
        links: addresses of <a>.
        text: all text outside of tags and styles.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str, bool]]]] = {}
        self.images: list[dict[str, str | None]] = []
        self.captions: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self._open: list[str] = []
        self._rows: list[list[tuple[str, str, bool]]] = []
        self._words = ""
        self._bold = False
        self._class = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        if tag not in _VOID:
            self._open.append(tag)
        self.fetched += [
            given[name] for name in ("src", "srcset", "data", "poster") if name in given
        ]
        if tag == "link":
            self.fetched.append(given["href"])
        if tag == "a":
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td", "caption", "figcaption"):
            self._words, self._bold, self._class = "", False, given.get("class") or ""
        self._bold |= tag == "strong"

    def handle_endtag(self, tag):
        if self._open.pop() != tag:
            raise AssertionError(f"</{tag}> closes another element")
        if tag in ("th", "td"):
            self._rows[-1].append((self._words.strip(), self._class, self._bold))
        if tag == "caption":
            self._rows = self.tables.setdefault(self._words.strip(), [])
        if tag == "figcaption":
            self.captions.append(self._words.strip())

    def handle_data(self, data):
        if "style" in self._open:
            parts = data.split("url(")[1:] + data.split("@import")[1:]
            self.fetched += [part.split(")")[0].split(";")[0].strip("'\" ") for part in parts]
            return
        self._words += data
        self.text += data


def row(label: str, seed: int, **fields: Any) -> dict[str, Any]:
    """A result.json: of a finished run without measures, but for `fields`."""
    return {
        "loss": label,
        "expression": label.replace("_", "+"),
        "seed": seed,
        "status": "finished",
        "diverged_step": None,
        "diverged_loss": None,
        "steps": STEP,
        **fields,
    }


def log_lines(seed: int, shift: float, last_mean: float = 0.5, diverges: bool = False) -> str:
    """A metrics.jsonl of four evaluations and ten logged steps, in part of the teacher."""
    lines: list[dict[str, Any]] = [
        {"kind": "evaluation", "stage": "teacher", "step": 0, "mAP": 0.99, "rank1": 0.99}
    ]
    for step in range(0, 400, 100):
        value = last_mean * step / 300 + shift
        lines.append(
            {"kind": "evaluation", "stage": "dgnet", "step": step, "mAP": value, "rank1": value}
        )
    for step in range(40, 401, 40):
        loss: float | None = 2 + shift + 400 / step
        if diverges and step == 400:
            loss = None
        lines.append(
            {
                "kind": "train",
                "stage": "dgnet",
                "step": step,
                "images_per_second": 5.0,
                "self_reconstruction": loss,
                "adversarial": 1.0 + seed,
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


def make_study(folder: Path) -> tuple[list[dict[str, Any]], Any]:
    """A study of l1 and l1_rmse with two seeds each, and huber, which diverged; mse is to come.

    The run l1_rmse, seed 0, has no checkpoint. Returns the rows and the configuration.
    """
    rows = []
    for label, seed, fields in (
        ("l1", 0, {"mAP": 0.70, "rank1": 0.90, "fid_png": 20.5}),
        ("l1", 1, {"mAP": 0.72, "rank1": 0.92, "fid_png": 21.5}),
        ("l1_rmse", 0, {"mAP": 0.75, "rank1": 0.91, "fid_png": 18.25}),
        ("l1_rmse", 1, {"mAP": 0.77, "rank1": 0.91, "fid_png": 19.25}),
        (
            "huber",
            0,
            {
                "status": "diverged",
                "diverged_step": 1812,
                "diverged_loss": "self_reconstruction",
            },
        ),
    ):
        sizes = {"dims": 768, "generated": 64, "real": 64} if "fid_png" in fields else {}
        rows.append(row(label, seed, **fields, **sizes))
        workdir = folder / "runs" / label / f"seed_{seed}"
        # Weights of its own, so that its pictures are its own.
        config, _, _ = save_run(workdir, {"log.image_rows": 3}, seed=len(rows))
        log = log_lines(seed, shift=0.1 * seed, diverges=label == "huber")
        (workdir / "metrics.jsonl").write_text(log)
    shutil.rmtree(folder / "runs" / "l1_rmse" / "seed_0" / "dgnet")
    losses = {label: label for label in ("l1", "l1_rmse", "huber", "mse")}
    plan = {"losses": losses, "seeds": [0, 1], "config": config.to_dict()}
    (folder / "study.json").write_text(json.dumps(plan))
    return rows, config


def make_large_study(folder: Path, others: Sequence[str]) -> list[dict[str, Any]]:
    """The thesis's losses and `others`, one run each with evaluations alone; returns the rows."""
    rows = []
    for number, label in enumerate([*LOSSES, *FUSIONS, *others]):
        expression = FUSIONS.get(label, label.replace("l1_", "l1+"))
        fields = {"mAP": 0.7, "rank1": 0.9, "fid_png": 20.0 + number, "dims": 768}
        rows.append(row(label, 0, expression=expression, generated=64, real=64, **fields))
        workdir = folder / "runs" / label / "seed_0"
        workdir.mkdir(parents=True)
        lines = log_lines(0, shift=0.001 * number).splitlines(keepends=True)
        (workdir / "metrics.jsonl").write_text("".join(li for li in lines if "evaluation" in li))
    return rows


def smooth_images(count: int, height: int = 32, width: int = 16) -> np.ndarray:
    """(count, height, width, 3) uint8, all different."""
    steps = np.linspace(0, 1, height)[:, None, None] * np.linspace(0.2, 1, width)[:, None]
    colours = np.random.default_rng(0).integers(60, 255, (count, 1, 1, 3))
    return (steps * colours).astype(np.uint8)
