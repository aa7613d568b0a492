"""The config files of the data sets: published values, and one small size for all."""

import pytest

from configs import base, cuhk03, custom, duke, market, msmt17
from dgnet_jax.data.readers.datasets import PUBLISHED, READERS
from dgnet_jax.errors import InputError
from dgnet_jax.training.schedules import step_decay

CONFIGS = {
    "market1501": market.get_config(),
    "duke": duke.get_config(),
    "msmt17": msmt17.get_config(),
    "cuhk03_detected": cuhk03.get_config(),
    "cuhk03_labeled": cuhk03.get_config("l1,labeled"),
    "folder": custom.get_config(),
    "csv": custom.get_config("l1,csv"),
}


def test_every_reader_has_a_config():
    assert sorted(CONFIGS) == sorted(READERS)
    for name, config in CONFIGS.items():
        assert config.data.name == name


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"market1501"}))
def test_they_differ_from_market_in_what_they_say_only(name: str):
    """docs/method.md, section 5.5: the same values, but for MSMT17's number of steps."""
    ours, market1501 = (c.to_dict() for c in (CONFIGS[name], CONFIGS["market1501"]))
    different = {
        f"{key}.{field}" if isinstance(value, dict) else key
        for key, value in ours.items()
        for field in (value if isinstance(value, dict) else [""])
        if (value[field] != market1501[key][field] if field else value != market1501[key])
    }
    expected = {"data.name", "data.cache_height", "data.cache_width"}
    if name in PUBLISHED:
        expected |= {"teacher.total_steps", "teacher.milestones"}
    if name == "msmt17":
        expected |= {"total_steps"}
    assert different == expected
    assert CONFIGS["msmt17"].total_steps == 150_000


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_rates_fall_when_those_of_the_released_program_do(name: str):
    """Times 0.1 at 60,000, 90,000 and 105,000 steps; step t, from 0, has the rate for t + 1."""
    config = CONFIGS[name]
    rates = step_decay(1e-4, config.optimizer.milestones, config.optimizer.decay)
    fallen = {59_998: 0, 59_999: 1, 89_998: 1, 89_999: 2, 104_998: 2, 104_999: 3, 149_999: 3}
    for step, times in fallen.items():
        assert float(rates(step)) == pytest.approx(1e-4 * 0.1**times, rel=1e-5), step
    assert config.total_steps == (150_000 if name == "msmt17" else 100_000)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_teacher_trains_sixty_epochs(name: str):
    """As on Market-1501: 24,255 steps of 32 are 60 epochs of 12,936 images."""
    teacher = CONFIGS[name].teacher
    images = PUBLISHED[name].train
    assert teacher.total_steps * teacher.batch_size / images == pytest.approx(60, abs=0.05)
    (milestone,) = teacher.milestones
    assert milestone * teacher.batch_size / images == pytest.approx(40, abs=0.05)


@pytest.mark.parametrize("flag", ["small", "medium"])
def test_a_size_is_the_same_for_all_data_sets(flag: str):
    configs = [
        module.get_config(f"l1,{flag}").to_dict()
        for module in (market, duke, msmt17, cuhk03, custom)
    ]
    for config in configs:
        del config["data"]["name"]
        assert config == configs[0]
    assert (configs[0]["data"]["cache_height"], configs[0]["data"]["cache_width"]) == (128, 64)


def test_medium_is_small_with_wider_networks():
    small, medium = (market.get_config(f"l1,{flag}") for flag in ("small", "medium"))
    for part in ("data", "augment", "weights", "ramp"):
        assert medium[part].to_dict() == small[part].to_dict()
    assert (medium.dtype, medium.batch_size) == ("bfloat16", 16)
    published = base.get_config().structure_encoder
    assert medium.structure_encoder.to_dict() == published.to_dict()
    assert medium.appearance.stage_widths == medium.teacher.stage_widths == (48, 96, 192, 384)


def test_labeled_and_small_go_together():
    config = cuhk03.get_config("l1_rmse,labeled,small")
    assert (config.data.name, config.data.height) == ("cuhk03_labeled", 128)
    assert config.reconstruction_loss == "l1_rmse"
    with pytest.raises(InputError, match="'labelled' after the colon; the nearest is 'labeled'"):
        cuhk03.get_config("l1,labelled")
    assert base.get_config().data.name == "market1501"
