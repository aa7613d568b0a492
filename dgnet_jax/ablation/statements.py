"""What the thesis's tables say of its losses, docs/method.md, section 8, as comparisons of two."""

from collections.abc import Sequence
from typing import NamedTuple

from dgnet_jax.ablation.summary import BASELINE
from dgnet_jax.losses import FUSIONS, LOSSES

FID = "fid"
MARKET, DUKE = "market1501", "duke"
THESIS_LOSSES = (*LOSSES, *FUSIONS)


class Comparison(NamedTuple):
    """Loss `better` has a better value of `metric` than loss `worse`, by `factor` at least."""

    metric: str
    better: str
    worse: str
    factor: float = 1.0


class Statement(NamedTuple):
    """A claim as comparisons of one data set's losses.

    Attributes:
        text: the claim.
        comparisons: what has to hold.
        best: whether one loss is compared with all others of its kind, of which the best is shown.
        finishes: a loss of which no run diverges; "" for no such part.
    """

    text: str
    comparisons: tuple[Comparison, ...]
    best: bool = False
    finishes: str = ""


def _both(better: str, *worse: str) -> tuple[Comparison, ...]:
    """In FID and in mAP."""
    return tuple(Comparison(name, better, other) for other in worse for name in (FID, "mAP"))


def _best_of(metric: str, best: str, losses: Sequence[str]) -> tuple[Comparison, ...]:
    return tuple(Comparison(metric, best, other) for other in losses if other != best)


def _far_below_l1(label: str) -> tuple[Comparison, ...]:
    return tuple(Comparison(name, BASELINE, label, 2) for name in (FID, "mAP"))


STATEMENTS: dict[str, tuple[Statement, ...]] = {
    MARKET: (
        Statement(
            "L1 + RMSE has the best FID of the thesis's twelve losses.",
            _best_of(FID, "l1_rmse", THESIS_LOSSES),
            True,
        ),
        Statement(
            "L1 + MSE has the best mAP of the thesis's twelve losses.",
            _best_of("mAP", "l1_mse", THESIS_LOSSES),
            True,
        ),
        Statement("L1 + RMSE gains over L1 in FID.", (Comparison(FID, "l1_rmse", "l1"),)),
        Statement("L1 + RMSE gains over L1 in mAP.", (Comparison("mAP", "l1_rmse", "l1"),)),
        Statement("L1 + MSE gains over L1 in mAP.", (Comparison("mAP", "l1_mse", "l1"),)),
        *(
            Statement(
                f"L1 + {name.upper()} is better than L1 and than {name.upper()} alone, in FID and "
                "in mAP.",
                _both(f"l1_{name}", "l1", name),
            )
            for name in ("mse", "mrae", "rmse", "cos")
        ),
        Statement(
            "The weighted fusion, 0.4 L1 + 0.6 COS, is worse than L1 in FID and in mAP.",
            _both("l1", "l1_cos_weighted"),
        ),
        Statement(
            "Of the thesis's single losses, L1 has the best mAP.",
            _best_of("mAP", "l1", LOSSES),
            True,
        ),
        Statement(
            "With the multiplicative loss (ml) training goes to its end, with at least twice the "
            "FID of L1 and a lower mAP (its images collapse: docs/method.md, section 4.2).",
            (Comparison(FID, "l1", "ml", 2), Comparison("mAP", "l1", "ml")),
            finishes="ml",
        ),
    ),
    DUKE: tuple(
        Statement(
            f"L1 + {name.upper()} falls far below L1: at least twice its FID, and at most half of "
            "its mAP.",
            _far_below_l1(f"l1_{name}"),
        )
        for name in ("mse", "mrae")
    ),
}
