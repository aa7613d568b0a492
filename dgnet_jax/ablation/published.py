"""The thesis's measured values (docs/method.md, section 8); none was measured with this code."""

_COLUMNS = ("fid", "rank1", "rank5", "rank10", "mAP")


def _table(rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {label: dict(zip(_COLUMNS, values, strict=True)) for label, values in rows.items()}


PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "market1501": _table(
        {
            "l1": (19.68, 91.09, 96.73, 97.80, 75.96),
            "huber": (25.17, 90.65, 96.73, 98.01, 75.83),
            "mse": (21.40, 90.29, 96.88, 98.31, 74.75),
            "mrae": (21.73, 91.18, 96.91, 98.16, 75.73),
            "cos": (37.95, 90.11, 96.35, 97.62, 74.15),
            "rmse": (19.65, 91.33, 96.79, 98.01, 75.19),
            "ml": (319.82, 68.35, 84.47, 89.07, 43.77),
            "l1_cos_weighted": (20.55, 90.32, 96.70, 97.74, 74.81),
            "l1_mse": (17.99, 92.37, 97.45, 98.56, 78.63),
            "l1_mrae": (18.79, 91.03, 96.82, 97.98, 77.13),
            "l1_rmse": (15.63, 91.42, 97.06, 98.16, 76.87),
            "l1_cos": (17.35, 91.45, 96.44, 97.95, 76.92),
        }
    ),
    "duke": _table(
        {
            "l1": (20.84, 81.19, 90.71, 93.18, 67.33),
            "l1_mse": (97.17, 10.80, 22.13, 22.01, 23.71),
            "l1_mrae": (86.40, 14.37, 23.71, 26.31, 26.34),
        }
    ),
}
"""Data set -> loss -> value: "fid" (2048-d, JPEG, one run), and shares in percent."""
