"""What a search chooses from, what it improves, which trials are its front, which it ends early."""

import itertools
import statistics

import numpy as np
import pytest
from tiny import tiny_config

from dgnet_jax.ablation.points import choose_losses
from dgnet_jax.ablation.search.front import pareto_front
from dgnet_jax.ablation.search.objectives import (
    check_drawn,
    check_measured,
    parse_objectives,
    values_of,
)
from dgnet_jax.ablation.search.outcome import running_best
from dgnet_jax.ablation.search.pruning import is_hopeless
from dgnet_jax.ablation.search.space import Range, parse_terms
from dgnet_jax.errors import InputError
from dgnet_jax.losses import canonical_expression

optuna = pytest.importorskip("optuna", reason="the extra [search] is not installed")


class Asked:
    """Stands for a trial: gives what it is told, notes what it is asked."""

    def __init__(self, values):
        self.values, self.asked = values, {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return self.values[name]

    def suggest_float(self, name, low, high, *, log):
        self.asked[name] = (low, high, log)
        return self.values[name]


def test_a_trial_is_asked_for_the_weights_of_the_terms_that_are_in():
    space = parse_terms(["l1", "0.1:4*rmse", "cos"])
    trial = Asked(
        {"l1": True, "l1.weight": 0.51234, "rmse": True, "rmse.weight": 1.2996, "cos": False}
    )
    assert space.suggest(trial) == "0.512*l1+1.3*rmse"
    assert trial.asked == {
        "l1": [False, True],
        "l1.weight": (0.05, 5, True),
        "rmse": [False, True],
        "rmse.weight": (0.1, 4, True),
        "cos": [False, True],
    }


def test_at_least_one_term_is_in():
    space = parse_terms(["l1", "rmse", "cos"])
    trial = Asked({"l1": False, "rmse": False, "cos.weight": 2.0})
    assert space.suggest(trial) == "2*cos"
    assert "cos" not in trial.asked
    alone = Asked({"l1.weight": 1.0})
    assert parse_terms(["l1"]).suggest(alone) == "l1"


def test_every_suggestion_of_a_sampler_is_a_loss_of_the_space():
    space = parse_terms(["l1", "0.1:4*rmse", "2*cos"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        trial = study.ask()
        expression = space.suggest(trial)
        study.tell(trial, 0.0)
        assert canonical_expression(expression) == expression
        assert space.expression(trial.params) == expression
        for part in expression.split("+"):
            weight, _, name = part.rpartition("*")
            low, high = {"l1": (0.05, 5), "rmse": (0.1, 4), "cos": (2, 2)}[name]
            assert low <= float(weight or 1) <= high
            assert len(weight.lstrip("0.").replace(".", "")) <= 3
        seen.add(frozenset(part.rpartition("*")[2] for part in expression.split("+")))
    # Every set of terms but the empty one.
    assert len(seen) == 2**3 - 1


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.051234, 0.0512), (4.9996, 5), (0.0501, 0.0502), (5.1, 5), (12345, 5)]
)
def test_numbers_have_three_digits_within_their_range(value, rounded):
    assert Range(0.0502, 5, True).round(value) == rounded


def test_the_points_of_the_thesis_that_a_space_holds_are_found_in_it():
    space = parse_terms(["l1", "rmse", "cos"])
    inside = {
        point.label: space.locate(point.expression)
        for point in choose_losses("all")
        if space.locate(point.expression) is not None
    }
    assert inside.keys() == {"l1", "rmse", "cos", "l1_rmse", "l1_cos", "l1_cos_weighted"}
    for point in choose_losses("all"):
        if point.label in inside:
            assert space.expression(inside[point.label]) == point.expression
            assert space.suggest(Asked(inside[point.label])) == point.expression
    assert inside["l1_rmse"] == {
        **{"l1": True, "rmse": True, "cos": False},
        **{"l1.weight": 1, "rmse.weight": 1},
    }


def test_parameters_are_searched_by_their_logarithm_where_their_range_is_wide_and_positive():
    space = parse_terms(["2*huber(0.1:2)", "barron(alpha=-2:2, c=0.05:0.5)", "l1"])
    trial = Asked(
        {
            **{"huber": True, "huber.delta": 0.7654},
            **{"barron": True, "barron.weight": 1, "barron.alpha": -1.2345, "barron.c": 0.1},
            "l1": False,
        }
    )
    assert space.suggest(trial) == "2*huber(0.765)+barron(alpha=-1.23,c=0.1)"
    ranges = {name: asked for name, asked in trial.asked.items() if isinstance(asked, tuple)}
    assert ranges == {
        "huber.delta": (0.1, 2, True),
        "barron.weight": (0.05, 5, True),
        "barron.alpha": (-2, 2, False),
        "barron.c": (0.05, 0.5, False),
    }
    assert space.texts == [
        "2*huber(delta=0.1:2)",
        "0.05:5*barron(alpha=-2:2,c=0.05:0.5)",
        "0.05:5*l1",
    ]
    assert parse_terms(space.texts) == space


@pytest.mark.parametrize(
    ("term", "expression", "inside"),
    [
        ("huber(delta=0.1:2)", "huber", True),  # delta is 1 by default
        ("huber", "huber", True),
        ("huber(delta=2:4)", "huber", False),
        ("huber(delta=2:4)", "3*huber(2.5)", True),
        ("huber(delta=2)", "huber(2)", True),
        ("huber", "huber(2)", False),
        ("barron(alpha=-2:2)", "barron(alpha=1)", True),
        ("barron(alpha=-2:2)", "barron(alpha=1,c=1)", False),
    ],
)
def test_a_point_is_found_by_its_parameters_too(term, expression, inside):
    space = parse_terms([term, "l1"])
    found = space.locate(expression)
    assert (found is not None) == inside
    if inside:
        assert space.expression(found) == canonical_expression(expression)


@pytest.mark.parametrize("terms", [["2:3*l1", "rmse"], ["0.5*l1"], ["rmse"]])
def test_a_point_outside_of_the_weights_or_the_terms_is_not_in_the_space(terms):
    assert parse_terms(terms).locate("l1") is None


def test_spellings_of_a_space_have_one_text():
    assert parse_terms(["l1", " 0.10:4.0 * rmse "]).texts == ["0.05:5*l1", "0.1:4*rmse"]
    assert parse_terms(parse_terms(["2*l1", "cos"]).texts).texts == ["2*l1", "0.05:5*cos"]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "--terms: none given; write a loss as l1, 0.1:4"),
        (["l1", "l2"], "--terms: 'l2': .*unknown loss 'l2'; the nearest is"),
        (["l1", "0.1:4*l1"], "--terms: 'l1' comes 2 times"),
        (["l1_rmse"], r"'l1_rmse' is the sum l1\+rmse; give its losses"),
        (["l1+rmse"], r"found 'l1\+rmse'; write a loss as"),
        (["a:4*l1"], "found 'a:4' as a range; write low:high"),
        (["*l1"], "found '' as a range"),
        (["1:*l1"], "found '1:' as a range"),
        (["1:2:3*l1"], "found '1:2:3' as a range"),
        (["nan*l1"], "found 'nan' as a range"),
        (["1:inf*l1"], "found '1:inf' as a range"),
        (["4:0.1*l1"], "in 4:0.1 the low end is above the high one"),
        (["0:4*l1"], "found the weight range 0:4; weights are above 0"),
        (["-1*l1"], "weights are above 0"),
        (["1e-60:1*l1"], "at its low end: .*outside the range of float32"),
        (["huber(gamma=1:2)"], "found 'gamma=1:2'; huber takes delta, each once"),
        (["l1(1:2)"], "found '1:2'; l1 takes no parameters"),
        (["huber(1:2,3)"], "found '3'; huber takes delta, each once"),
        (["huber()"], "found '' as a range"),
        (["huber(delta=1:x)"], "found '1:x' as a range"),
        (["huber(delta=1,delta=2)"], "found 'delta=2'; huber takes delta, each once"),
        (["huber(delta=0:2)"], "at its low end: .*huber: delta is '0'; it has to be"),
        (["barron(alpha=1:3)"], "at its high end: .*barron: alpha is '3'"),
        (["barron(alpha=-inf:2)"], "found '-inf:2' as a range"),
        (["teacher_features(1:2)"], "first is a whole number, .* is not searched"),
        (["huber(delta=1"], "write a loss as"),
    ],
)
def test_wrong_terms_are_refused(terms, message):
    with pytest.raises(InputError, match=message):
        parse_terms(terms)


def test_objectives_are_metrics_of_the_tables_with_their_direction():
    found = parse_objectives(["fid", " mAP", "fid"])
    assert [(metric.name, metric.field, metric.better) for metric in found] == [
        ("fid", "fid_png", -1),
        ("mAP", "mAP", 1),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "--objectives: none given"),
        (["map"], "unknown metric 'map'; the nearest is 'mAP'. Known: fid, "),
        (["diversity"], "more diversity is neither better nor worse"),
    ],
)
def test_wrong_objectives_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        parse_objectives(names)


def test_an_objective_that_no_run_will_have_is_refused_with_the_ways_out():
    plain = tiny_config()
    with pytest.raises(InputError, match=r"--config.inception=FILE, or .* --objectives=teacher_"):
        check_measured(parse_objectives(["fid", "mAP"]), plain)
    check_measured(parse_objectives(["fid"]), tiny_config({"inception": "file"}))
    check_measured(parse_objectives(["mAP", "teacher_frechet"]), plain)
    without = tiny_config({"evaluation.generated_images": False})
    with pytest.raises(InputError, match="teacher_frechet is measured on generated images"):
        check_measured(parse_objectives(["teacher_frechet"]), without)
    check_measured(parse_objectives(["mAP"]), without)
    with pytest.raises(InputError, match="truth_l1 compares with the truth, which only drawn"):
        check_drawn(parse_objectives(["mAP", "truth_l1"]), drawn=False)
    check_drawn(parse_objectives(["truth_l1"]), drawn=True)


def test_the_objectives_of_a_trial_are_means_over_its_seeds():
    objectives = parse_objectives(["fid", "mAP"])
    rows = [
        {"loss": "l1", "fid_png": 20.0, "mAP": 0.5},
        {"loss": "l1", "fid_png": 30.0, "mAP": 0.7},
    ]
    assert values_of(objectives, rows) == [25, pytest.approx(0.6)]
    rows[1]["fid_png"] = None
    with pytest.raises(InputError, match="fid was not measured of l1"):
        values_of(objectives, rows)


@pytest.mark.parametrize("better", [(1, 1), (-1, 1), (-1, -1), (1,), (-1, 1, 1)])
def test_the_front_is_what_no_point_dominates(better):
    rng = np.random.default_rng(0)
    # Few different values, so that there are equal ones.
    values = rng.integers(0, 6, (40, len(better))).astype(float).tolist()

    def dominates(a, b):
        pairs = list(zip(a, b, better, strict=True))
        return all(s * x >= s * y for x, y, s in pairs) and any(s * x > s * y for x, y, s in pairs)

    expected = [
        i for i, one in enumerate(values) if not any(dominates(other, one) for other in values)
    ]
    assert pareto_front(values, better) == expected
    study = optuna.create_study(
        directions=["maximize" if sign > 0 else "minimize" for sign in better]
    )
    study.add_trials([optuna.create_trial(values=one) for one in values])
    if len(better) > 1:  # of one objective Optuna names one of several equal ones
        assert [trial.number for trial in study.best_trials] == expected


def test_the_front_of_nothing_is_empty():
    assert pareto_front([], [1]) == []


def test_the_running_best_follows_the_direction():
    assert running_best([3, 4, 1, 2], -1) == [3, 3, 1, 1]
    assert running_best([3, 4, 1, 5], 1) == [3, 4, 4, 5]


def test_of_one_objective_the_rule_is_the_median_rule():
    rng = np.random.default_rng(0)
    for count, sign in itertools.product((5, 6, 11), (1, -1)):
        others = rng.random(count).tolist()
        for value in rng.random(20):
            worse = sign * value < sign * statistics.median(others)
            rows = [{"mAP": other} for other in others]
            assert is_hopeless({"mAP": value}, rows, {"mAP": sign}) == worse


def test_a_run_is_hopeless_if_it_is_worse_than_the_median_in_all_that_is_measured():
    others = [{"mAP": n / 10, "truth_l1": n / 10, "rank1": 0.9} for n in range(1, 6)]
    better = {"mAP": 1, "truth_l1": -1, "fid_png": -1}
    # The medians are 0.3.
    assert is_hopeless({"mAP": 0.29, "truth_l1": 0.31}, others, better)
    assert not is_hopeless({"mAP": 0.31, "truth_l1": 0.31}, others, better)
    assert not is_hopeless({"mAP": 0.29, "truth_l1": 0.29}, others, better)
    assert not is_hopeless({"mAP": 0.3, "truth_l1": 0.31}, others, better)
    assert is_hopeless({"mAP": 0.29}, others, better)
    assert not is_hopeless({"rank1": 0.1}, others, better)
    assert not is_hopeless({"mAP": 0.0}, others[:4], better)
    assert is_hopeless({"mAP": 0.0}, others[:4], better, startup=4)
