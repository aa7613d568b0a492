"""Means, differences to l1 with their intervals, and the tables that show them."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from dgnet_jax.ablation.loss_tables import gain_text
from dgnet_jax.ablation.other_methods import METHODS, methods_table
from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.rendering import to_latex, to_markdown, write_tables
from dgnet_jax.ablation.results import (
    FIELDS,
    IMAGES,
    read_results,
    run_directory,
    write_result,
    write_results,
)
from dgnet_jax.ablation.summary import paired_difference, spread, statement, summarise
from dgnet_jax.ablation.tables import run_table, study_tables

L1 = {0: 20.0, 1: 22.0, 2: 21.0, 3: 23.5, 4: 20.5}
RMSE = {0: 18.5, 1: 21.0, 2: 19.0, 3: 22.5, 4: 18.0}


def row(loss, seed, fid=None, **more):
    """A finished run's result; `more` overrides."""
    found = {
        "expression": loss,
        "status": "finished",
        "fid_png": fid,
        "rank1": None if fid is None else 1 - fid / 100,
        "mAP": 0.5,
        "diversity": 0.3,
        "diversity_pairs": 37_550,
        "dims": 768,
        "generated": 2000,
        "real": 2000,
        "steps": 100,
    }
    return dict.fromkeys(FIELDS) | found | {"loss": loss, "seed": seed} | more


def rows(seeds=5):
    results = [row("l1", seed, L1[seed]) for seed in range(seeds)]
    return results + [row("rmse", seed, RMSE[seed]) for seed in range(seeds)]


def diverged(loss, seed):
    nothing = {"mAP": None, "diversity": None, "dims": None}
    return row(
        loss, seed, status="diverged", diverged_step=1240, diverged_loss="identity", **nothing
    )


def rows_of_numbers(text: str) -> dict[str, list[float]]:
    """The rows of Markdown tables that are a loss and five numbers."""
    names = {"0.4*l1+0.6*cos": "l1_cos_weighted"}
    found = {}
    for line in text.splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"[0-9.]+", cells[1]):
            label = names.get(cells[0], cells[0].replace("+", "_"))
            found[label] = [float(cell) for cell in cells[1:]]
    return found


def published(data_set: str) -> dict[str, list[float]]:
    return {label: list(values.values()) for label, values in PUBLISHED[data_set].items()}


def test_the_published_values_are_those_of_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "method.md").read_text()
    market, duke = text.split("The thesis, DukeMTMC-reID:")
    assert rows_of_numbers(market) == published("market1501")
    assert rows_of_numbers(duke) == published("duke")


def test_the_published_values_are_those_of_the_thesis(shared: Path):
    text = (shared / "docs" / "dgnet.md").read_text()
    assert rows_of_numbers(text) == published("market1501")
    for values in PUBLISHED["duke"].values():
        assert " / ".join(f"{value:.2f}" for value in values.values()) in re.sub(r"\s+", " ", text)


def test_the_interval_is_that_of_a_paired_t_test():
    difference = paired_difference(RMSE, L1)
    oracle = scipy.stats.ttest_rel(list(RMSE.values()), list(L1.values())).confidence_interval(0.95)
    assert difference.mean == pytest.approx(-1.6)
    assert (difference.low, difference.high) == pytest.approx((oracle.low, oracle.high))
    # Taken as unpaired samples, the same numbers would say nothing.
    unpaired = scipy.stats.ttest_ind(list(RMSE.values()), list(L1.values()))
    assert unpaired.confidence_interval(0.95).high > 0 > difference.high


def test_joint_intervals_are_bonferronis():
    alone = paired_difference(RMSE, L1)
    assert (alone.joint_low, alone.joint_high) == (alone.low, alone.high)
    joint = paired_difference(RMSE, L1, comparisons=11)
    test = scipy.stats.ttest_rel(list(RMSE.values()), list(L1.values()))
    oracle = test.confidence_interval(1 - 0.05 / 11)
    assert (joint.low, joint.high) == (alone.low, alone.high)
    assert (joint.joint_low, joint.joint_high) == pytest.approx((oracle.low, oracle.high))
    assert joint.joint_low < joint.low < joint.high < joint.joint_high


def test_many_losses_that_do_not_differ_are_told_apart_in_few_studies():
    """Of eleven losses that are l1 in truth, single intervals find one in every third study."""
    rng = np.random.default_rng(0)
    single = joint = 0
    for _ in range(100):
        values = rng.normal(size=(12, 5))
        study = [
            row("l1" if loss == 0 else f"loss{loss}", seed, values[loss, seed])
            for loss in range(12)
            for seed in range(5)
        ]
        found = [s.differences["fid"] for s in summarise(study)[1:]]
        single += any(d.low > 0 or d.high < 0 for d in found)
        joint += any(statement(d) != "not told apart from l1" for d in found)
    assert single / 100 > 0.2
    assert joint / 100 < 0.06


def test_only_losses_that_are_compared_count():
    found = {s.label: s for s in summarise([*rows(), diverged("huber", 0), row("cos", 0, 30.0)])}
    difference = found["rmse"].differences["fid"]
    assert (difference.joint_low, difference.joint_high) == (difference.low, difference.high)


def test_a_difference_that_is_the_same_in_all_seeds_claims_no_certainty():
    difference = paired_difference({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5})
    assert (difference.mean, difference.low, difference.n) == (0.25, None, 2)
    assert statement(difference) == "the same in all 2 seeds: nothing can be said"

    # 84/96 - 82/96 and 85/96 - 83/96 differ in the last bit.
    difference = paired_difference({0: 84 / 96, 1: 85 / 96}, {0: 82 / 96, 1: 83 / 96}, 11)
    assert difference.mean == pytest.approx(2 / 96)
    assert difference.low is None and difference.joint_low is None


def test_only_seeds_that_both_have_are_compared():
    difference = paired_difference({0: 1.0, 1: 5.0, 9: 100.0}, {0: 0.0, 1: 3.0, 7: -100.0})
    assert (difference.mean, difference.n) == (1.5, 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "no seed with both values"),
        ({0: 1.0}, "one seed: nothing can be said"),
        ({0: 21.0, 1: 23.1}, "above l1; 2 seeds: a wide interval"),
        ({0: 21.0, 1: 33.0}, "not told apart from l1; 2 seeds: a wide interval"),
        ({seed: value - 1 - seed / 100 for seed, value in L1.items()}, "below l1"),
    ],
)
def test_what_can_be_said_depends_on_the_number_of_seeds(values, said):
    assert statement(paired_difference(values, L1)) == said


def test_the_spread_is_the_sample_standard_deviation():
    assert spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1), 3))
    assert spread([3.0]) == (3.0, None, 1)
    assert spread([]) == (None, None, 0)


def test_a_summary_has_a_row_for_each_loss():
    found = {s.label: s.as_row() for s in summarise([*rows(), diverged("huber", 0), row("cos", 0)])}
    assert list(found) == ["l1", "rmse", "huber", "cos"]
    rmse = found["rmse"]
    assert (rmse["n"], rmse["diverged"], rmse["fid_n"], rmse["fid_pairs"]) == (5, 0, 5, 5)
    assert rmse["fid_mean"] == pytest.approx(19.8)
    assert rmse["fid_difference"] == pytest.approx(-1.6)
    assert rmse["fid_difference_joint_low"] == rmse["fid_difference_low"]
    assert rmse["rank1_difference"] == pytest.approx(0.016)
    assert "fid_difference" not in found["l1"]
    assert (found["huber"]["n"], found["huber"]["diverged"], found["huber"]["fid_mean"]) == (
        0,
        1,
        None,
    )
    # Finished, but without FID.
    assert (found["cos"]["n"], found["cos"]["fid_n"], found["cos"]["mAP_n"]) == (1, 0, 1)


def test_published_values_stand_beside_the_measured_ones_and_the_best_of_each_is_bold():
    (single, *_) = study_tables(rows(), "market1501")
    assert single.name == "single_losses"
    by_loss = {cells[0].text: dict(zip(single.head, cells, strict=True)) for cells in single.rows}
    assert by_loss["l1"]["FID (PNG)"].text == "21.40 ± 1.39"
    assert by_loss["rmse"]["FID (PNG)"] == ("19.80 ± 1.89", True)
    assert not by_loss["l1"]["FID (PNG)"].bold
    # Published: the lower FID is rmse's, the better mAP l1's; measured mAPs are equal.
    assert by_loss["rmse"]["FID (published)"] == ("19.65", True)
    assert by_loss["l1"]["mAP (published)"] == ("75.96", True)
    assert by_loss["rmse"]["mAP (published)"] == ("75.19", False)
    notes = " ".join(single.notes)
    assert "not measured here" in notes
    assert "768 features, 2000 generated against 2000 real" in notes
    assert "not comparable with the published one of 2048" in notes


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"fid_jpeg": 9.0}, {"fid_jpeg": 9.0, "generated_jpeg": 2000}),
        ({"diversity_pairs": None}, {}),  # without the Inception, or without FID (JPEG)
    ],
)
def test_results_of_the_protocols_before_are_counted_beside_those_of_now(before, now):
    def notes(results):
        return " ".join(study_tables(results, "market1501")[0].notes)

    old, new = row("l1", 0, 20.0, **before), row("l1", 1, 20.0, **now)
    said = "results were measured before 2026-11-28"
    assert f"1 of 2 {said}" in notes([old, new, diverged("l1", 3)])
    assert "not comparable with what" in notes([old])
    assert said not in notes([new, row("l1", 2), diverged("l1", 3)])
    assert ("truncated" in notes([new])) == ("generated_jpeg" in now)
    assert "truncated" not in notes([old])


def test_a_result_keeps_what_tells_its_protocol(tmp_path: Path):
    folder = _made(run_directory(tmp_path, "l1", 0))
    write_result(folder, row("l1", 0, 20.0, generated_jpeg=2000, diversity_pairs=37_550))
    (found,) = read_results(tmp_path).rows
    assert (found["generated_jpeg"], found["diversity_pairs"]) == (2000, 37_550)


def columns_of(table):
    """Loss to title to text."""
    return {
        cells[0].text: {title: cell.text for title, cell in zip(table.head, cells, strict=True)}
        for cells in table.rows
    }


def test_other_methods_are_published_values_with_their_protocol():
    tables = {table.name: table for table in study_tables(rows(), "market1501")}
    table = columns_of(tables["other_methods"])
    columns = ("FID (published)", "Rank@1 (published)", "mAP (published)")
    assert {name: [table[name][one] for one in columns] for name in table} == {
        "DG-Net": ["18.24", "94.8", "86.0"],
        "thesis, l1": ["19.68", "91.09", "75.96"],
        "PN-GAN": ["", "89.43", "72.58"],
        "FD-GAN": ["", "90.5", "77.7"],
        "PG2": ["", "", ""],
    }
    for name, cells in table.items():
        other = name not in ("DG-Net", "thesis, l1")
        assert cells["protocol"].startswith("another" if other else "as here")
    notes = " ".join(tables["other_methods"].notes)
    assert "l1, which is DG-Net's loss, is 10.0 points of mAP below DG-Net's own" in notes
    assert "SSIM 0.253" in notes and "16,483 queries" in notes
    # What is said of an FID stands where there is one.
    said = "DG-Net's FID is of JPEG files."
    assert said in notes
    others = {name: " ".join(methods_table(name).notes) for name in METHODS if name != "market1501"}
    assert len(others) == 4
    assert all(said not in text and "trapezoid" in text for text in others.values())
    # On a data set that nobody published there is no such table.
    assert "other_methods" not in [one.name for one in study_tables(rows(), "quickstart")]


def test_the_values_of_other_methods_are_those_of_their_source(shared: Path):
    rivals = (shared / "docs" / "rivals.md").read_text()
    market, duke, msmt, cuhk = (
        {method.name: method for method in METHODS[name]}
        for name in ("market1501", "duke", "msmt17", "cuhk03_detected")
    )
    one, other = market["FD-GAN"], duke["FD-GAN"]
    assert (
        f"FD-GAN | Market mAP {one.mAP} / R1 {one.rank1}; Duke {other.mAP} / {other.rank1}; "
    ) in rivals
    one, other = market["PN-GAN"], duke["PN-GAN"]
    assert f"Market single query | R1 {one.rank1}, mAP {one.mAP}; " in rivals
    assert f"Duke {other.rank1} / {other.mAP} " in rivals
    assert "SSIM 0.253, IS 3.460, mask-SSIM 0.792, mask-IS 3.435" in rivals
    dgnet = re.sub(r"\s+", " ", (shared / "docs" / "dgnet.md").read_text())
    one = market["DG-Net"]
    assert f"Market-1501 R1 {one.rank1}, mAP {one.mAP}, FID {one.fid} (real training" in dgnet
    for name, of in (("Duke", duke), ("MSMT17", msmt), ("CUHK03-NP", cuhk)):
        assert f"{name} {of['DG-Net'].rank1} / {of['DG-Net'].mAP}" in dgnet


def test_the_values_of_other_methods_are_those_of_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "method.md").read_text()
    names = {"Market-1501": "market1501", "DukeMTMC-reID": "duke"}
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1] in names:
            found[names[cells[1]], cells[0]] = tuple(cells[2:5])
    assert found == {
        (dataset, method.name): (method.fid, method.rank1, method.mAP)
        for dataset in names.values()
        for method in METHODS[dataset]
        if method.name != "DG-Net"
    }


def test_the_three_gains_that_the_thesis_prints_come_out_digit_by_digit():
    names = {"l1": "l1", "l1_rmse": "l1+rmse", "l1_mse": "l1+mse"}
    study = [row(label, 0, 1.0, expression=names[label]) for label in names]
    table = columns_of(next(t for t in study_tables(study, "market1501") if t.name == "fusions"))
    fid, mean = ("FID: gain over l1, % (published)", "mAP: gain over l1, % (published)")
    assert table["l1+rmse"][fid] == "20.57"
    assert table["l1+rmse"][mean] == "1.19"
    assert table["l1+mse"][mean] == "3.51"
    assert table["l1"][fid] == table["l1"][mean] == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.20579, "20.57"), (0.29, "29.00"), (-0.00001, "0.00"), (-15.2513, "−1525.13"), (None, "")],
)
def test_digits_of_a_gain_are_cut_off(share, text):
    assert gain_text(share) == text


def test_measured_gains_are_relative_and_of_the_seeds_that_both_have():
    study = [
        row("l1", 0, 20.0, mAP=0.5, fid_jpeg=10.0),
        row("l1", 1, 40.0, mAP=0.5, fid_jpeg=10.0),
        row("rmse", 0, 15.0, mAP=0.6, fid_jpeg=12.5),
        row("cos", 0),
    ]
    table = columns_of(study_tables(study, "msmt17")[0])
    gains = [
        *("FID (PNG): gain over l1, %", "FID (JPEG): gain over l1, %", "mAP: gain over l1, %"),
    ]
    # l1's seed 1 has no partner: 15 of 20 is a quarter less, 0.6 of 0.5 a fifth more.
    assert [table["rmse"][title] for title in gains] == ["25.00", "−25.00", "20.00"]
    assert [table["cos"][title] for title in gains] == ["", "", "0.00"]
    assert [table["l1"][title] for title in gains] == ["", "", ""]
    (found,) = (s.as_row() for s in summarise(study) if s.label == "rmse")
    assert (found["fid_gain"], found["diversity_gain"]) == (pytest.approx(0.25), None)
    # Without l1 nothing is measured against it; the thesis's gains are there all the same.
    (alone,) = [t for t in study_tables(study[2:3], "market1501") if t.name == "single_losses"]
    assert [title for title in alone.head if "gain" in title] == [
        *("FID: gain over l1, % (published)", "mAP: gain over l1, % (published)"),
    ]


def test_a_published_value_that_cannot_be_is_noted():
    study = [row(label, 0, 1.0) for label in ("l1", "l1_mse", "l1_mrae")]
    notes = " ".join(study_tables(study, "duke")[1].notes)
    assert "Rank@5 of l1_mse, 22.13, is above its Rank@10, 22.01, which cannot be" in notes
    assert "cannot be" not in " ".join(study_tables(study, "market1501")[1].notes)


def test_another_data_set_has_its_own_published_values_or_none():
    (single, *_) = study_tables(rows(), "duke")
    assert "20.84" in to_markdown(single) and "19.68" not in to_markdown(single)
    (single, *_) = study_tables(rows(), "msmt17")
    assert not any("published" in title for title in single.head)


def test_a_diverged_run_is_shown_with_its_step():
    results = [*rows(2), row("huber", 0, 30.0), diverged("huber", 1), diverged("cos", 0)]
    (single, *_) = study_tables(results, "market1501")
    by_loss = {cells[0].text: cells for cells in single.rows}
    assert by_loss["huber"][1].text == "1 of 2"
    assert by_loss["huber"][2].text == "30.00"
    assert [cell.text for cell in by_loss["cos"][1:3]] == ["0 of 1", "diverged"]
    assert "huber, seed 1: diverged at step 1,240 (identity)." in single.notes


def test_fusions_and_losses_of_ones_own_have_tables_with_l1_beside_them():
    results = [
        *rows(1),
        row("l1_rmse", 0, 17.0, expression="l1+rmse"),
        row("0.5l1_2rmse", 0, 16.0, expression="0.5*l1+2*rmse"),
        row("mine", 0, 15.0, expression="custom"),
        row("heavy", 0, 15.0, expression="l1+3*mse"),
    ]
    tables = {table.name: table for table in study_tables(results, "market1501")}
    assert list(tables) == [
        *("single_losses", "fusions", "other_losses", "more_measures", "difference_to_l1"),
        *("order_of_losses", "other_methods"),
    ]
    assert [cells[0].text for cells in tables["fusions"].rows] == ["l1", "l1+rmse"]
    names = [cells[0].text for cells in tables["other_losses"].rows]
    # Single ones first, then sums. No published value is theirs.
    assert names == ["l1", "mine", "0.5*l1+2*rmse", "heavy (l1+3*mse)"]
    assert not any("published" in title for title in tables["other_losses"].head)


def test_the_difference_table_says_that_one_seed_says_nothing():
    table = study_tables(rows(1), "quickstart")[-1]
    assert [cell.text for cell in table.rows[0]][:3] == [
        *("rmse", "−1.50", "one seed: nothing can be said")
    ]
    table = study_tables(rows(5), "quickstart")[-1]
    assert re.fullmatch(r"−1\.60 \[−[0-9.]+, −[0-9.]+\]", table.rows[0][1].text)
    assert table.rows[0][2].text == "below l1"
    assert "corrected for the number of losses" in table.notes[0]


def test_markdown_and_latex_are_well_formed(tmp_path: Path):
    results = [*rows(2), row("l1_cos_weighted", 0, 17.0, expression="0.4*l1+0.6*cos")]
    tables = study_tables(results, "market1501")
    write_tables(tmp_path, tables)
    for table in tables:
        lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(table.rows)
        assert {line.count("|") for line in lines} == {len(table.head) + 1}
        latex = (tmp_path / f"{table.name}.tex").read_text()
        assert latex.strip() == to_latex(table)
        body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
        assert {line.count("&") for line in body.splitlines()[1:-1]} == {len(table.head) - 1}
        assert not re.search(r"(?<!\\)[%_#]", latex)
    assert r"0.4\*l1+0.6\*cos" in (tmp_path / "fusions.md").read_text()


def test_the_order_of_losses_stands_beside_the_published_one():
    # Published FID: l1_rmse 15.63, l1_mse 17.99, rmse 19.65, l1 19.68, mse 21.40.
    measured = {"l1": 4.0, "rmse": 3.0, "l1_rmse": 1.0, "mse": 2.0, "mine": 0.5}
    results = [row(label, 0, fid, fid_jpeg=-fid) for label, fid in measured.items()]
    (table,) = (t for t in study_tables(results, "market1501") if t.name == "order_of_losses")
    published = ["FID (published)", "mAP", "mAP (published)"]
    assert table.head == ["place", "FID (PNG)", "FID (JPEG)", *published]
    columns = {
        title: [cells[index].text for cells in table.rows] for index, title in enumerate(table.head)
    }
    assert columns["place"] == ["1", "2", "3", "4"]
    assert columns["FID (PNG)"] == ["l1_rmse", "mse", "rmse", "l1"]
    assert columns["FID (JPEG)"] == ["l1", "rmse", "mse", "l1_rmse"]
    assert columns["FID (published)"] == ["l1_rmse", "rmse", "l1", "mse"]
    # Of six pairs, mse is on the wrong side of two: (4 - 2) / 6. mAP is the same for all.
    assert "FID (PNG) +0.33, FID (JPEG) −0.33 (" in table.notes[1]


def test_drawn_people_have_columns_of_the_truth_and_older_results_stay_readable(tmp_path: Path):
    drawn = [
        row("l1", seed, 20.0, appearance_transfer=0.5 + 0.1 * seed, structure_kept=0.8)
        for seed in range(2)
    ]
    results = [*drawn, row("rmse", 0, 19.0, appearance_transfer=0.7, truth_l1=0.0512)]
    tables = {table.name: table for table in study_tables(results, "quickstart")}
    more = tables["more_measures"]
    by_loss = {cells[0].text: dict(zip(more.head, cells, strict=True)) for cells in more.rows}
    assert by_loss["l1"]["appearance transfer"] == ("0.550 ± 0.071", False)
    assert by_loss["rmse"]["appearance transfer"] == ("0.700", True)
    assert by_loss["rmse"]["L1 to the truth"].text == "0.0512"
    assert by_loss["rmse"]["structure kept"].text == "–"
    assert any("appearance image has no say" in note for note in more.notes)
    assert "appearance transfer minus l1's [95 %]" in tables["difference_to_l1"].head
    assert "appearance transfer" in run_table(results).head
    # Results of before there was a truth, of which no file has the fields.
    folder = run_directory(tmp_path, "l1", 0)
    folder.mkdir(parents=True)
    old = {name: value for name, value in row("l1", 0, 20.0).items() if name not in IMAGES[-4:]}
    (folder / "result.json").write_text(json.dumps(old))
    found = read_results(tmp_path).rows
    assert found == [old]
    write_results(tmp_path, found)
    for table in (*study_tables(found, "quickstart"), run_table(found)):
        assert not any("transfer" in title or "truth" in title for title in table.head)


def agreement(results):
    tables = {table.name: table for table in study_tables(results, "quickstart")}
    table = tables.get("agreement_with_truth")
    return table and {cells[0].text: [cell.text for cell in cells[1:]] for cells in table.rows}


def test_agreement_is_the_rank_correlation_with_the_truth():
    # FID puts them in the order b, a, c, d; the transfer in the order a, b, c, d; L1 reversed.
    fid = {"a": 2.0, "b": 1.0, "c": 3.0, "d": 4.0}
    transfer = {"a": 0.8, "b": 0.7, "c": 0.6, "d": 0.5}
    one = [
        row(label, 0, fid[label], appearance_transfer=transfer[label], truth_l1=transfer[label])
        for label in fid
    ]
    assert agreement(one)["FID (PNG)"] == ["+0.67", "–", "−0.67", "–"]
    # mAP is the same for all: it has no order.
    assert set(agreement(one)) == {"FID (PNG)", "Rank@1"}
    # A seed with the reverse order, in which differences are larger.
    reverse = [
        row(label, 1, 10 * (5 - fid[label]), appearance_transfer=transfer[label]) for label in fid
    ]
    assert agreement([*one, *reverse])["FID (PNG)"][0] == "−0.67"
    # Five seeds that say the same: no choice of seeds changes it.
    five = [found | {"seed": seed} for seed in range(5) for found in one]
    assert agreement(five)["FID (PNG)"][0] == "+0.67 [+0.67, +0.67]"
    # One of them with the reverse order outweighs the rest where it is chosen.
    mixed = [found for found in five if found["seed"] != 1]
    assert agreement([*mixed, *reverse])["FID (PNG)"][0] == "−0.67 [−0.67, +0.67]"
    # A loss that has no FID is left out, and two losses have no order.
    assert agreement([*one, row("e", 0, appearance_transfer=0.1)]) == agreement(one)
    assert agreement(one[:2]) is None
    assert agreement(rows()) is None


def test_agreement_bears_ties_and_losses_that_lack_seeds():
    shares = [85, 89, 90, 92, 96]
    same = [
        row(label, seed, 1.0 + shift, appearance_transfer=shares[(seed + shift) % 5] / 96)
        for shift, label in enumerate("abc")
        for seed in range(5)
    ]
    # The same values in another order: their means are the same to the last bit.
    assert agreement(same) is None
    results = [
        row(label, seed, 1.0 if seed == 0 else fid, appearance_transfer=-fid)
        for fid, label in enumerate("abcd")
        for seed in range(5)
    ]
    # In the first seed no FID differs: choices of it alone have no order, and count as 0.
    assert agreement(results)["FID (PNG)"][0] == "+1.00 [+1.00, +1.00]"
    late = [row("late", 0, 9.0, appearance_transfer=0.0)]
    tables = {table.name: table for table in study_tables([*results, *late], "quickstart")}
    notes = tables["agreement_with_truth"].notes
    assert "4 losses, 5 seeds" in notes[0] and notes[-1].endswith("left out: late.")
    assert agreement([*results, *late]) == agreement(results)


def test_agreement_leaves_out_a_loss_with_a_pruned_run():
    one = [
        row(label, 0, 4.0 - place, appearance_transfer=0.1 * place)
        for place, label in enumerate("abcd")
    ]
    assert agreement(one)["FID (PNG)"][0] == "+1.00"
    # The worst FID and the best transfer, of the seed that was finished.
    ended = [row("e", 0, 9.0, appearance_transfer=0.9), row("e", 1, status="pruned")]
    assert agreement([*one, *ended]) == agreement(one)


def test_two_losses_have_no_order():
    assert "order_of_losses" not in [t.name for t in study_tables(rows(), "market1501")]
    three = [row(label, 0, 1.0) for label in ("l1", "mse", "rmse")]
    assert "order_of_losses" not in [t.name for t in study_tables(three, "msmt17")]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ('{"loss": ', "not valid JSON"),
        ("[]", "valid dictionary"),
        ("null", "valid dictionary"),
        ("[" * 500 + "]" * 500, "too deeply nested"),
        ({"loss": None}, "loss: .*found None"),
        ({"seed": "0"}, "seed: .*found '0'"),
        ({"seed": 1}, "the result of 'l1', seed 1, and so of another folder"),
        ({"status": "over"}, "status: .*found 'over'"),
        ({"steps": None}, "a finished run has steps"),
        ({"fid_png": "12"}, "fid_png: .*found '12'"),
        ({"fid_png": True}, "fid_png: .*found True"),
        ({"mAP": {}}, "mAP: .*found {}"),
        ({"mAP": float("inf")}, "Infinity is no number"),
        ({"real": None}, "has generated and real"),
        ({"wall_seconds": [1]}, r"wall_seconds: .*found \[1\]"),
        ({"versions": 3}, "versions: .*found 3"),
    ],
)
def test_a_broken_result_is_left_out_and_named(tmp_path: Path, change, found):
    for seed in (0, 1):
        write_result(_made(run_directory(tmp_path, "l1", seed)), row("l1", seed, 20.0))
    file = run_directory(tmp_path, "l1", 0) / "result.json"
    whole = json.loads(file.read_text())
    file.write_text(change if isinstance(change, str) else json.dumps(whole | change))
    rows, damaged = read_results(tmp_path)
    assert [row["seed"] for row in rows] == [1]
    (fault,) = damaged
    assert re.search(rf"seed_0/result\.json: .*{found}.* Delete it", fault)


def test_a_fifo_in_the_place_of_a_result_is_left_out_and_named(tmp_path: Path):
    folder = _made(run_directory(tmp_path, "l1", 0))
    os.mkfifo(folder / "result.json")
    (fault,) = read_results(tmp_path).damaged
    assert "result.json: cannot be read (a FIFO, not a file)" in fault


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_results_are_one_row_a_run_as_csv_and_json(tmp_path: Path):
    for result in reversed(rows(2)):
        folder = run_directory(tmp_path, result["loss"], result["seed"])
        folder.mkdir(parents=True)
        more = {"versions": {"jax": "1", "numpy": "2"}, "mINP": float("nan")}
        write_result(folder, result | more)
    found, damaged = read_results(tmp_path)
    assert not damaged
    assert [(r["loss"], r["seed"]) for r in found] == [
        *[("l1", 0), ("l1", 1), ("rmse", 0), ("rmse", 1)]
    ]
    write_results(tmp_path, found)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert found[0]["mINP"] is None
    with (tmp_path / "results.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == FIELDS
    assert table[3]["fid_png"] == "21.0" and table[3]["versions"] == "jax 1, numpy 2"
