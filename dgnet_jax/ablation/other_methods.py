"""Published values of DG-Net itself and of methods that other protocols measured.

None of them was measured with this code (docs/method.md, section 8).
"""

from typing import NamedTuple

from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.summary import BASELINE

_SAME = "as here"


class Method(NamedTuple):
    """A method's published values on a data set, as printed; "" for what was not published.

    Attributes:
        name: of the method.
        fid, rank1, mAP: FID, and shares in percent.
        protocol: how it was measured, if not as here.
        source: the publication.
    """

    name: str
    fid: str
    rank1: str
    mAP: str
    protocol: str
    source: str


def _dgnet(fid: str, rank1: str, mean: str, protocol: str = _SAME) -> Method:
    return Method("DG-Net", fid, rank1, mean, protocol, "Zheng et al., CVPR 2019")


_PNGAN_SOURCE = "Qian et al., ECCV 2018"
_FDGAN_SOURCE = "Ge et al., NeurIPS 2018"
_PNGAN = "another: with generated images of eight poses at test"
_CUHK03 = "as here; detected or labelled is not said"

METHODS: dict[str, tuple[Method, ...]] = {
    "market1501": (
        _dgnet("18.24", "94.8", "86.0"),
        Method("PN-GAN", "", "89.43", "72.58", _PNGAN, _PNGAN_SOURCE),
        Method("FD-GAN", "", "90.5", "77.7", "another: 16,483 queries", _FDGAN_SOURCE),
        Method("PG2", "", "", "", "another: SSIM of pairs, no re-ID", "Ma et al., NIPS 2017"),
    ),
    "duke": (
        _dgnet("", "86.6", "74.8"),
        Method("PN-GAN", "", "73.58", "53.20", _PNGAN, _PNGAN_SOURCE),
        Method("FD-GAN", "", "80.0", "64.5", "another: its queries are not said", _FDGAN_SOURCE),
    ),
    "msmt17": (_dgnet("", "77.2", "52.3"),),
    "cuhk03_detected": (_dgnet("", "65.6", "61.1", _CUHK03),),
    "cuhk03_labeled": (_dgnet("", "65.6", "61.1", _CUHK03),),
}
"""Data set -> methods. PN-GAN's are second-hand; FD-GAN's are those that Papers with Code lists."""

_NOTES = {
    "DG-Net": "DG-Net's mAP is the trapezoid one.",
    "PN-GAN": "PN-GAN: single query. The values are second-hand and were not checked against the "
    "paper; which mAP it is, is not known. Its features are fused over an image and eight "
    "generated from it.",
    "FD-GAN": "FD-GAN: values as listed by Papers with Code. The authors' own log of Market-1501 "
    "counts 16,483 queries, every test image being one, where the standard protocol has 3,368; "
    "probably that is so for the published values too.",
    "PG2": "PG2 has no re-ID and no FID. On 12,800 test pairs of its own it has SSIM 0.253, "
    "mask-SSIM 0.792, Inception score 3.460 and mask-IS 3.435, second-hand and not checked against "
    "the paper.",
}


def methods_table(dataset: str) -> Table | None:
    """The table of a data set's published methods; None if none is known."""
    methods = METHODS.get(dataset)
    if not methods:
        return None
    thesis = PUBLISHED.get(dataset, {}).get(BASELINE)
    rows = [[Cell(text) for text in method] for method in methods]
    notes = [
        "Published values alone, none measured here, and comparable with each other only where the "
        "protocol is the same. Left empty is what was not published.",
        *(_NOTES[method.name] for method in methods),
    ]
    if methods[0].fid:
        notes.insert(1, "DG-Net's FID is of JPEG files.")
    if thesis is not None:
        own = ("thesis, l1", *(f"{thesis[name]:.2f}" for name in ("fid", "rank1", "mAP")))
        rows.insert(1, [Cell(text) for text in (*own, _SAME, "thesis of 2022")])
        below = float(methods[0].mAP) - thesis["mAP"]
        notes.append(
            f"The thesis's own l1, which is DG-Net's loss, is {below:.1f} points of mAP below "
            f"DG-Net's own ({thesis['mAP']:.2f} against {methods[0].mAP}): the thesis's values "
            "compare with each other."
        )
    head = ["method", "FID (published)", "Rank@1 (published)", "mAP (published)"]
    return Table(
        "other_methods",
        f"Published methods on {dataset}",
        [*head, "protocol", "source"],
        rows,
        notes,
    )
