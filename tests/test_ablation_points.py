"""Which losses, seeds and shards a study is made of."""

import itertools

import pytest

from dgnet_jax import losses
from dgnet_jax.ablation.points import (
    Point,
    assign,
    choose_losses,
    choose_seeds,
    is_fusion,
    parse_shard,
)
from dgnet_jax.errors import InputError

# The rows of the thesis's table.
THESIS = {
    *("l1", "huber", "mse", "mrae", "cos", "rmse", "ml"),
    *("l1_cos_weighted", "l1_mse", "l1_mrae", "l1_rmse", "l1_cos"),
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(losses.registry, "DEFINITIONS", dict(losses.registry.DEFINITIONS))


def mine(target, output):
    return abs(target - output).max()


def test_all_is_the_twelve_losses_of_the_thesis():
    assert {point.label for point in choose_losses("all")} == THESIS
    assert choose_losses(["all"]) == choose_losses("all")


@pytest.mark.parametrize(
    ("spec", "point"),
    [
        ("rmse", Point("rmse", "rmse", "rmse")),
        ("l1_rmse", Point("l1_rmse", "l1+rmse", "l1_rmse")),
        ("rmse + l1", Point("l1_rmse", "l1+rmse", "l1_rmse")),
        ("0.6*cos+0.4*l1", Point("l1_cos_weighted", "0.4*l1+0.6*cos", "l1_cos_weighted")),
        ("0.5*l1+2*rmse", Point("0.5l1_2rmse", "0.5*l1+2*rmse", "0.5*l1+2*rmse")),
        ("1e38*mse+mrae", Point("1e38mse_mrae", "1e+38*mse+mrae", "1e+38*mse+mrae")),
        ("charbonnier", Point("charbonnier", "charbonnier", "charbonnier")),
        ("l1+ssim", Point("l1_ssim", "l1+ssim", "l1_ssim")),
        ("huber(0.5)", Point("huber-0.5", "huber(0.5)", "huber(0.5)")),
        (
            "0.3*barron(alpha=-inf,c=0.1)+l1",
            Point(
                "l1_0.3barron-alpha-inf-c0.1",
                "l1+0.3*barron(alpha=-inf,c=0.1)",
                "l1+0.3*barron(alpha=-inf,c=0.1)",
            ),
        ),
    ],
)
def test_a_loss_goes_by_its_name_and_an_expression_by_one_that_a_folder_can_have(spec, point):
    assert choose_losses([spec]) == [point]


def test_what_the_thesis_did_not_study_is_a_word_too():
    """The names are those of the issue that asked for them; each has its fusion with l1."""
    beyond = {
        *("charbonnier", "log_cosh", "barron", "ssim", "ms_ssim", "gradient_difference"),
        *("focal_frequency", "teacher_features"),
    }
    labels = [point.label for point in choose_losses("beyond")]
    assert set(labels) == beyond | {f"l1_{name}" for name in beyond} | {"l1_ms_ssim_weighted"}
    printed = choose_losses("printed")
    assert [point.label for point in printed] == ["rmse_printed", "huber_printed", "cos_channels"]
    assert len(choose_losses(["all", "printed", "beyond"])) == 12 + 3 + 17


def test_spellings_of_one_loss_are_one_point():
    labels = [point.label for point in choose_losses(["l1_mse", "mse+l1", "l1", "l1+mse"])]
    assert labels == ["l1_mse", "l1"]


def test_a_function_is_taken_wherever_a_name_is():
    assert choose_losses({"own": mine, "heavy": "l1+3*mse"}) == [
        Point("own", "custom", "own", mine),
        Point("heavy", "l1+3*mse", "l1+3*mse"),
    ]
    assert choose_losses(["l1", mine])[1] == Point("mine", "custom", "mine", mine)
    assert losses.reconstruction_loss("own") is mine
    # Registered once, its name is one like the others.
    assert choose_losses("own") == [Point("own", "custom", "own")]
    assert choose_losses("l1+own") == [Point("l1_own", "l1+own", "l1+own")]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["l1_rmes"], "unknown loss 'l1_rmes'; the nearest is 'l1_rmse'"),
        ([], "none given"),
        ({"l1": "mse"}, "'l1' is the name of a loss, but stands for 'mse'"),
        ({"l1_mse": mine}, "the name 'l1_mse' is taken"),
        ({"../up": "l1"}, "names a folder"),
        ([lambda target, output: 0.0], "no name of its own"),
        ({"own": lambda target, output: target - output}, "one real number"),
    ],
)
def test_a_wrong_loss_is_refused(chosen, message):
    with pytest.raises(InputError, match=message):
        choose_losses(chosen)


def test_seeds_are_integers_from_0_on_each_once():
    assert choose_seeds(["0", " 2", 0, 1]) == [0, 2, 1]
    for wrong in (["-1"], ["a"], ["1.5"], []):
        with pytest.raises(InputError, match="--seeds: .*integers from 0"):
            choose_seeds(wrong)


def test_shards_share_out_every_run_once_and_keep_a_losss_seeds_together():
    points, seeds = choose_losses("all"), [3, 1, 2]
    everything = set(itertools.product(points, seeds))
    for count in (1, 2, 5, 12, 40):
        shards = [assign(points, seeds, (index, count)) for index in range(count)]
        runs = list(itertools.chain(*shards))
        assert len(runs) == len(everything) and set(runs) == everything
        sizes = [len(shard) for shard in shards]
        assert max(sizes) - min(sizes) <= 1
    assert {point.label for point, _ in assign(points, seeds, (0, 12))} == {"l1"}


def test_all_losses_of_the_first_seed_come_first():
    runs = assign(choose_losses(["l1", "mse", "cos"]), [7, 0])
    assert [(point.label, seed) for point, seed in runs] == [
        *[("l1", 7), ("mse", 7), ("cos", 7)],
        *[("l1", 0), ("mse", 0), ("cos", 0)],
    ]


def test_a_shard_is_i_of_n_from_0():
    assert parse_shard("2/4") == (2, 4)
    assert parse_shard(None) == (0, 1)
    with pytest.raises(InputError, match="i goes from 0 to 3"):
        parse_shard("4/4")
    with pytest.raises(InputError, match="give i/n"):
        parse_shard("first")


def test_a_fusion_is_a_sum():
    assert is_fusion("l1+rmse") and is_fusion("0.4*l1+0.6*cos") and is_fusion("1e+2*l1+mse")
    assert is_fusion("barron(alpha=0, c=0.1)+l1")
    assert not any(map(is_fusion, ("l1", "custom", "1e+38*mse", "2e+2*huber(1e+2)", "f(a+b)")))


def test_a_function_that_needs_images_keeps_saying_so():
    """Given to a study, it is still refused on codes."""
    losses.register("edges", mine, images_only=True)
    (point,) = choose_losses({"edges": mine})
    assert losses.parse("edges").images_only == ("edges",)
    losses.register("edges", losses.mse)
    point.register()
    assert losses.parse("edges").images_only == ("edges",)
    choose_losses({"anywhere": mine})
    assert losses.parse("anywhere").images_only == ()
