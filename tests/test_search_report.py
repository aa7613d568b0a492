"""The report of a search: its plots against its trials, its section in the page."""

import shutil

import numpy as np
import pytest
from report_page import Page, row, smooth_images
from tiny import tiny_config

pytest.importorskip("optuna", reason="the extra [search] is not installed")

from made_search import TERMS, make_search

from dgnet_jax.ablation.plan import save_plan
from dgnet_jax.ablation.points import Point
from dgnet_jax.ablation.report import search_plots, sections, write_report
from dgnet_jax.ablation.report.runs import Run, by_label
from dgnet_jax.ablation.report.search import read_search, shown_labels
from dgnet_jax.ablation.results import run_directory, write_result
from dgnet_jax.ablation.search.definition import define, save_definition
from dgnet_jax.ablation.search.journal import Trial
from dgnet_jax.ablation.search.objectives import parse_objectives
from dgnet_jax.ablation.search.outcome import importances, read_outcome
from dgnet_jax.ablation.study import Study
from dgnet_jax.losses import FUSIONS, LOSSES

THESIS = (*LOSSES, *FUSIONS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a search for less FID and more mAP, and its page."""
    folder = tmp_path_factory.mktemp("search")
    rows = make_search(folder)
    config = tiny_config()
    config.data.name = "market1501"
    page = write_report(folder, rows, config, train_images=smooth_images(4))
    return folder, rows, Page(page.read_text(encoding="utf-8"))


def trial(number: int, *values: float, label: str = "") -> Trial:
    return Trial(number, label or f"trial_{number:03d}", "l1", "finished", values)


def texts(cells) -> list[str]:
    return [text for text, _, _ in cells]


def test_the_table_of_the_front_has_its_trials_with_expression_objectives_and_seeds(made):
    _, rows, page = made
    head, *body = page.tables["The front"]
    assert texts(head) == ["trial", "R", "FID (PNG)", "mAP", "seeds"]
    by_label = {row["loss"]: row for row in rows if row["status"] == "finished"}
    front = [
        label
        for label, one in by_label.items()
        if not any(
            other["fid_png"] <= one["fid_png"]
            and other["mAP"] >= one["mAP"]
            and (other["fid_png"], other["mAP"]) != (one["fid_png"], one["mAP"])
            for other in by_label.values()
        )
    ]
    front.sort(key=lambda label: by_label[label]["fid_png"])
    assert len(front) > 1
    assert [texts(cells) for cells in body] == [
        [
            label,
            by_label[label]["expression"],
            f"{by_label[label]['fid_png']:.2f}",
            f"{100 * by_label[label]['mAP']:.2f}",
            "0",
        ]
        for label in front
    ]
    # The best of each column.
    assert body[0][2][2] and body[-1][3][2]


def test_the_section_says_what_was_searched_and_what_became_of_the_trials(made):
    _, _, page = made
    assert (
        "A search for less FID (PNG) and more mAP in sums of 0.05:5*l1, 0.1:4*rmse and "
        "0.05:5*huber(delta=0.1:2)"
    ) in page.text
    assert "30 trials: 28 finished, 1 pruned, 1 diverged." in page.text
    files = [caption.split()[-1] for caption in page.captions]
    assert files[:3] == ["search_front.png", "search_history.png", "search_importance.png"]
    assert "Outside of the axes: ml (FID (PNG) 320.00, mAP 40.00)." in page.captions[0]


def test_a_pruned_run_is_in_the_table_of_runs_and_in_no_other(made):
    _, _, page = made
    runs = {cells[0][0]: texts(cells) for cells in page.tables["Every run by itself"][1:]}
    assert runs["trial_015"][3] == "pruned"
    for caption, table in page.tables.items():
        if caption != "Every run by itself":
            assert "trial_015" not in [cells[0][0] for cells in table]
    others = [cells[0][0] for cells in page.tables["Other losses on market1501"]]
    assert any("trial_014" in text for text in others)


def test_of_trials_that_ended_early_no_seed_is_waited_for_and_pruned_ones_are_in_no_table(tmp_path):
    outcomes = {
        "l1": ["finished", "finished"],
        "rmse": ["finished"],  # its seed 1 is to come
        "trial_012": ["finished", "pruned"],
        "trial_013": ["diverged"],
    }
    sums = {"trial_012": "0.5*l1+2*rmse", "trial_013": "0.7*l1+2*rmse"}
    points = [Point(label, sums.get(label, label), sums.get(label, label)) for label in outcomes]
    save_plan(tmp_path, tiny_config(), points, [0, 1])
    save_definition(tmp_path, define(TERMS, ["mAP"], [0, 1]))
    runs = []
    for point in points:
        for seed, status in enumerate(outcomes[point.label]):
            fields = {"mAP": 0.5, "rank1": 0.6} if status == "finished" else {}
            found = row(point.label, seed, status=status, expression=point.expression, **fields)
            folder = run_directory(tmp_path, point.label, seed)
            folder.mkdir(parents=True)
            write_result(folder, found)
            runs.append(Run(point.label, seed, None, found, {}, {}))

    def absent() -> list[str]:
        text = sections.results_section(by_label(runs), "market1501", tmp_path).text
        return [line for line in text if line.startswith("Without a result so far: ")]

    study = Study.load(tmp_path)
    assert study.missing() == [("rmse", 1)]
    assert absent() == ["Without a result so far: rmse (seed 1)."]
    assert [one["loss"] for one in study.table()] == ["l1", "rmse", "trial_013"]
    text = study.text().replace("\\", "")
    assert sums["trial_013"] in text and sums["trial_012"] not in text
    # A study alone runs the other seeds of a loss that diverged.
    (tmp_path / "search.json").unlink()
    assert study.missing() == [("rmse", 1), ("trial_013", 1)]
    assert absent() == ["Without a result so far: rmse (seed 1), trial_013 (seed 1)."]


def test_pictures_and_curves_are_of_l1_and_at_most_six_of_the_front(tmp_path, made):
    folder, rows, _ = made
    found = read_search(folder)
    labels = [row["loss"] for row in rows]
    front = [one.label for one in found.front]
    shown = shown_labels(found, labels)
    assert set(shown) <= {"l1", *front} and "l1" in shown
    assert shown == sorted(shown, key=labels.index)
    # A front of ten: its ends are among the six.
    wide = make_search(
        tmp_path,
        trials=12,
        values=lambda weights, number: {"fid_png": 50.0 - number, "mAP": 0.9 - number / 100},
    )
    shown = shown_labels(read_search(tmp_path), [row["loss"] for row in wide])
    assert len(shown) == 6 and {"l1", "l1_cos"} <= set(shown)


def test_one_objective_has_a_history_and_no_front(tmp_path):
    rows = make_search(tmp_path, ["mAP"], trials=13)
    page = Page(write_report(tmp_path, rows, tiny_config()).read_text(encoding="utf-8"))
    files = [caption.split()[-1] for caption in page.captions]
    assert "search_history.png" in files and "search_front.png" not in files
    ((_, best),) = [page.tables["The best trial"]]
    top = max(rows, key=lambda row: row["mAP"])
    assert texts(best) == [top["loss"], top["expression"], f"{100 * top['mAP']:.2f}", "0"]
    assert "With fewer than 15 finished trials nothing can be said" in page.text


def test_without_optuna_the_page_says_so_and_has_the_rest(made, tmp_path, monkeypatch):
    folder, rows, _ = made
    for name in ("search.json", "journal.log"):
        shutil.copy(folder / name, tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    page = Page(write_report(tmp_path, rows, tiny_config()).read_text(encoding="utf-8"))
    assert "The search itself is not shown: --mode=search: Optuna is not installed" in page.text
    assert "Every run by itself" in page.tables


def test_a_study_has_no_section_of_a_search(made, tmp_path):
    _, rows, _ = made
    page = Page(write_report(tmp_path, rows[:2], tiny_config()).read_text(encoding="utf-8"))
    assert "#Search" not in page.links


def lines(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        # The trials are (1, 1), (2, 4), (3, 9) in units of tables; what is attained between two
        # neighbours is the worse of the second objective.
        (("fid", "mAP"), "steps-post"),
        (("rank1", "fid"), "steps-pre"),
    ],
)
def test_the_front_is_drawn_in_units_of_tables_with_the_line_of_what_it_attains(names, line):
    objectives = parse_objectives(names)
    trials = [
        trial(n, *(x / one.factor for x, one in zip((n, n**2), objectives, strict=True)))
        for n in (1, 2, 3)
    ]
    dominated = trial(4, *((3, 1) if names[0] == "fid" else (1, 9)))
    dominated = dominated._replace(
        values=tuple(v / m.factor for v, m in zip(dominated.values, objectives, strict=True))
    )
    known = trial(1)._replace(label="l1", values=trials[0].values)
    everything = [known, *trials[1:], dominated]
    plot = search_plots.front_plot(everything, [known, *trials[1:]], objectives, THESIS)
    (axes,) = plot.figure.axes
    step = axes.lines[0]
    assert step.get_drawstyle() == line
    np.testing.assert_allclose(step.get_xydata(), [[1, 1], [2, 4], [3, 9]])
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["the thesis's, on the front"], [[1, 1]])
    np.testing.assert_allclose(drawn["on the front"], [[2, 4], [3, 9]])
    assert len(drawn["other trials"]) == 1
    assert {note.get_text() for note in axes.texts} == {"l1", "2", "3"}
    assert plot.outside == []


def test_of_three_objectives_the_first_two_are_drawn_without_a_line():
    objectives = parse_objectives(["fid", "mAP", "rank1"])
    trials = [trial(n, n, n / 100, 0.5) for n in (1, 2, 3)]
    (axes,) = search_plots.front_plot(trials, trials, objectives, THESIS).figure.axes
    assert list(lines(axes)) == ["on the front"]


def test_the_thesis_s_points_are_named_where_nothing_covers_the_names(made):
    found = read_outcome(made[0])
    plot = search_plots.front_plot(found.finished, found.front, found.definition.objectives, THESIS)
    (axes,) = plot.figure.axes
    named = [note.get_text() for note in axes.texts]
    assert set(THESIS) - set(named) == {"ml"}  # far away, and said so
    assert [one.label for one in plot.outside] == ["ml"]
    plot.figure.draw_without_rendering()
    boxes = [note.get_bbox_patch() or note.get_tightbbox() for note in axes.texts]
    crossing = sum(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert crossing <= 1


def test_the_history_has_the_best_so_far_and_what_ended_early():
    objectives = parse_objectives(["fid"])
    trials = [
        trial(0, 30.0, label="l1"),
        trial(1, 40.0),
        Trial(2, "trial_002", "l1", "pruned", ()),
        trial(3, 20.0),
        Trial(4, "trial_004", "l1", "diverged", ()),
        trial(5, 25.0),
    ]
    (axes,) = search_plots.history_plot(trials, objectives, THESIS).axes
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["best so far"], [[0, 30], [1, 30], [3, 20], [5, 20]])
    np.testing.assert_allclose(drawn["the thesis's losses"], [[0, 30]])
    np.testing.assert_allclose(drawn["other trials"], [[1, 40], [3, 20], [5, 25]])
    assert drawn["pruned"][:, 0].tolist() == [2]
    assert drawn["diverged"][:, 0].tolist() == [4]


@pytest.mark.parametrize(("metric", "sign"), [("fid", 1), ("mAP", -1)])
def test_the_parameter_that_alone_decides_is_the_most_important(tmp_path, metric, sign):
    field = {"fid": "fid_png", "mAP": "mAP"}[metric]
    make_search(
        tmp_path,
        [metric],
        trials=60,
        values=lambda weights, number: {field: sign * abs(weights.get("rmse", 9.0) - 1.0)},
        sampler="random",
    )
    (shares,) = importances(read_outcome(tmp_path)).values()
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) in ("rmse.weight", "rmse")
    assert shares["rmse.weight"] + shares["rmse"] > 0.5
    assert {name.partition(".")[0] for name in shares} == {"l1", "rmse", "huber"}


def test_importances_are_bars_of_each_objective_with_the_largest_on_top():
    shares = {"FID": {"l1": 0.75, "l1.weight": 0.25}, "mAP": {"l1": 0.5, "huber.delta": 0.5}}
    (axes,) = search_plots.importance_plot(shares).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "l1: weight",
        "huber: delta",
        "l1: in or out",
    ]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [25, 0, 75, 0, 50, 50]
