"""Where a data set is looked for when no root is given."""

import zipfile

import pytest

from configs import market
from dgnet_jax.data.prepare import prepare
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.dataset import find_root, list_data

MARKET = "Market-1501-v15.09.15"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small data set in Market-1501's form."""
    folder = tmp_path_factory.mktemp("drawn") / MARKET
    draw_dataset(
        folder,
        train_identities=2,
        test_identities=1,
        images_per_identity_camera=2,
        distractors=0,
        junk=0,
        height=16,
        width=8,
    )
    return folder


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A working and a home folder of their own, and no DGNET_DATA."""
    for name in ("work", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DGNET_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize("place", ["work/data", "home/datasets"])
def test_a_folder_of_data_sets_is_looked_into(places, drawn, place):
    folder = places / place
    folder.mkdir()
    (folder / "DukeMTMC-reID").symlink_to(drawn)
    (folder / MARKET).symlink_to(drawn)
    assert len(list_data(market.get_config()).train.files) == 16
    # "data" is found from where the program was started.
    expected = f"data/{MARKET}" if place == "work/data" else str(folder / MARKET)
    assert find_root("market1501") == expected


def test_a_zip_is_found_by_the_beginning_of_its_name(places, drawn):
    (places / "work" / "data").mkdir()
    with zipfile.ZipFile(places / "work/data/Market-1501-v15.09.15 (1).zip", "w") as archive:
        for file in drawn.rglob("*"):
            archive.write(file, f"{MARKET}/{file.relative_to(drawn)}")
    assert len(list_data(market.get_config()).train.files) == 16


def test_prepared_records_are_found(places, drawn):
    prepare("market1501", drawn, places / "work" / "data")
    assert find_root("market1501") == "data"
    assert len(list_data(market.get_config()).train.files) == 16


@pytest.mark.parametrize("named", ["", MARKET])
def test_the_environment_names_a_folder_of_data_sets_or_the_data_set(
    places, drawn, monkeypatch, named
):
    monkeypatch.setenv("DGNET_DATA", str(drawn.parent / named))
    assert find_root("market1501") == str(drawn)


def test_the_environment_comes_first_and_must_exist(places, drawn, monkeypatch):
    (places / "work" / "data").mkdir()
    (places / "work" / "data" / MARKET).symlink_to(drawn)
    monkeypatch.setenv("DGNET_DATA", "~/nowhere")
    with pytest.raises(InputError, match="DGNET_DATA=~/nowhere: does not exist"):
        find_root("market1501")


def test_another_data_set_of_the_same_form_is_not_taken_for_it(places, drawn):
    (places / "work" / "data").mkdir()
    (places / "work" / "data" / "DukeMTMC-reID").symlink_to(drawn)
    with pytest.raises(InputError) as caught:
        list_data(market.get_config())
    message = str(caught.value)
    assert message.startswith("--config.data.root is not set.\n\nMarket-1501 is a person")
    assert f"{MARKET} or its zip was looked for in" in message
    assert str(places / "work" / "data") in message
    assert str(places / "home" / "datasets") in message


def test_a_given_root_is_taken_whatever_lies_elsewhere(places, drawn):
    (places / "work" / "data").mkdir()
    (places / "work" / "data" / MARKET).symlink_to(drawn)
    config = market.get_config()
    config.data.root = str(places / "nowhere")
    with pytest.raises(InputError, match="nowhere: does not exist"):
        list_data(config)


def test_ones_own_data_have_no_usual_place(places):
    config = market.get_config()
    config.data.name = "folder"
    with pytest.raises(InputError, match="--config.data.root is not set"):
        list_data(config)
