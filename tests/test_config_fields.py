"""The table of configuration fields: what each may be, checked at every entrance."""

import inspect
import json
import math
from pathlib import Path

import ml_collections
import pytest

from configs import cuhk03, custom, drawn, duke, market, msmt17, quickstart
from dgnet_jax.ablation.plan import STUDY_FILE, refuse_other_plan, save_plan
from dgnet_jax.ablation.points import choose_losses
from dgnet_jax.ablation.study import Study
from dgnet_jax.config import trained_config
from dgnet_jax.config_fields import (
    DATA_SETS,
    DRAWING,
    FIELDS,
    OURS,
    PROGRAM,
    SOURCES,
    as_markdown,
    checked,
    default_config,
    described,
    expressions,
    older_config,
    reconstruction_text,
)
from dgnet_jax.data.readers.datasets import READERS
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.evaluator import evaluate, evaluate_fully
from dgnet_jax.generate.tasks import generate
from dgnet_jax.inference import load_baseline, load_model, load_teacher_model
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.training.state import PARTS
from dgnet_jax.training.teacher import train_baseline
from dgnet_jax.training.trainer import RESUMABLE, train

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"
CONFIGS = [
    market.get_config("l1_rmse"),
    market.get_config("l1_rmse,small"),
    market.get_config("0.5*l1+2*rmse,medium"),
    market.get_config("baseline"),
    duke.get_config("huber"),
    msmt17.get_config("ml,small"),
    cuhk03.get_config("cos"),
    custom.get_config("mrae,csv"),
    drawn.get_config("mse"),
    quickstart.get_config("l1"),
]


def harmful_values() -> list[tuple[str, object]]:
    """For each field values of other types and out of range, by the type of its default."""
    found: list[tuple[str, object]] = []
    for name, field in FIELDS.items():
        match field.default:
            case bool():
                values: list[object] = [None, 1, 0.0, "True", ()]
            case int():
                values = [None, 1.5, True, "3", (1,), -2_000_000, 10**12, math.nan]
            case float():
                values = [None, "0.1", True, (0.1,), -0.5, math.nan, math.inf, -math.inf]
            case str():
                values = [None, 3, True, ("l1",), "no such\0thing"]
            case tuple():
                values = [
                    None,
                    3,
                    "abc",
                    (None,),
                    ("no such part",),
                    (-1,),
                    (math.nan, 1),
                    (1.5, 0.1),
                ]
        found += [(name, value) for value in values]
    return found


def with_value(name: str, value: object) -> ml_collections.ConfigDict:
    """The published configuration with a field as only Python can set it, whatever its type."""
    config = default_config()
    section, _, leaf = name.rpartition(".")
    node = config[section] if section else config
    del node[leaf]  # ConfigDict would keep its type
    node[leaf] = value
    return config


@pytest.mark.parametrize(("name", "value"), harmful_values())
def test_a_value_of_another_type_or_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(InputError) as caught:
        checked(with_value(name, value))
    message = str(caught.value)
    assert message == f"--config.{name}: found {value!r}. Give {FIELDS[name].kind.range}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appearance.pooling", "avg"),
        ("appearance.pooling", "Max"),
        ("appearance.stem", "resnt"),
        ("appearance.init", "techer"),
        ("appearance.parts", 0),
        ("appearance.embedding", 0),
        ("appearance.last_stride", -1),
        ("appearance.last_stride", 3),
        ("appearance.dropout_prime", 1.5),
        ("appearance.dropout_fine", 1.0),
        ("appearance.stage_widths", ()),
        ("teacher.label_style", 5),
        ("teacher.stage_sizes", (3, 0)),
        ("augment.pad", -1),
        ("augment.erasing_area", ()),
        ("augment.erasing_area", (0.4, 0.02)),
        ("augment.erasing_area", (0.0, 0.4)),
        ("augment.erasing_aspect", 0.0),
        ("augment.mirror_probability", 1.01),
        ("batch_size", 1),
        ("data.height", 0),
        ("data.cache_height", 0),
        ("data.name", "market"),
        ("decoder.num_residual", 0),
        ("discriminator.num_scales", 0),
        ("dtype", "float16"),
        ("evaluation.every_steps", -2),
        ("evaluation.fid_dims", 100),
        ("evaluation.rerank_lambda", 1.1),
        ("freeze", ("encoder",)),
        ("freeze", ("decoder", "decoder")),
        ("log.image_rows", 0),
        ("optimizer.beta1", 1.0),
        ("optimizer.epsilon", 0.0),
        ("optimizer.milestones", (90_000, 60_000)),
        ("optimizer.milestones", (0,)),
        ("optimizer.decay", 2.0),
        ("reconstruction_loss", "l1_l3"),
        ("seed", -1),
        ("seed", 2**32),
        ("total_steps", 0),
        ("weights.gan", math.nan),
    ],
)
def test_a_value_that_trained_another_network_or_ended_in_a_traceback_is_refused(name, value):
    with pytest.raises(InputError, match=f"--config.{name}: found "):
        checked(with_value(name, value))


def test_all_wrong_fields_are_named_at_once():
    config = with_value("seed", -1)
    config.weights.gan = math.inf
    config.appearance.stem = "resnt"
    with pytest.raises(InputError) as caught:
        checked(config)
    lines = str(caught.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "--config.appearance.stem",
        "--config.seed",
        "--config.weights.gan",
    ]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_configurations_of_the_repository_are_right_as_they_are(config):
    assert checked(config).to_dict() == config.to_dict()


def test_the_default_configuration_has_the_fields_of_the_table_and_no_other():
    def leaves(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    assert sorted(leaves(default_config().to_dict())) == sorted(FIELDS)


def test_every_field_that_draws_a_data_set_is_in_the_table_with_its_default():
    arguments = inspect.signature(draw_dataset).parameters
    defaults = {
        f"data.drawing.{name}": argument.default
        for name, argument in arguments.items()
        if name != "root"
    }
    assert {name: field.default for name, field in DRAWING.items()} == defaults


def test_choices_are_those_of_the_code_that_uses_them():
    assert {*READERS, "quickstart"} == set(DATA_SETS)
    for part in PARTS:
        assert checked(with_value("freeze", (part,))).freeze == (part,)


def test_a_field_that_does_not_exist_is_refused_with_the_nearest():
    config = default_config()
    config.totl_steps = 3
    config.data.hight = 64
    with pytest.raises(InputError) as caught:
        checked(config)
    assert "--config.totl_steps: no such field; the nearest is total_steps" in str(caught.value)
    assert "--config.data.hight: no such field; the nearest is data.height" in str(caught.value)


def test_a_value_in_the_place_of_a_section_is_refused():
    with pytest.raises(InputError, match="--config.data: found a value. It is a section"):
        checked(with_value("data", 3))


def test_a_list_becomes_a_tuple_and_a_whole_number_a_real_one():
    config = with_value("optimizer.milestones", [3, 5])
    with config.weights.ignore_type():
        config.weights.gan = 1
    found = checked(config)
    assert found.optimizer.milestones == (3, 5)
    assert isinstance(found.weights.gan, float)


def test_missing_fields_get_the_default_and_the_given_configuration_stays_as_it_is():
    config = default_config()
    del config.log.image_rows
    del config.ramp
    before = config.to_dict()
    assert checked(config).to_dict() == default_config().to_dict()
    assert config.to_dict() == before


def test_a_run_from_before_the_teachers_dropout_in_labels_goes_on_without_it(tmp_path):
    config = default_config()
    stored = work_directory.as_json(config)
    del stored["teacher"]["label_dropout"]
    (tmp_path / work_directory.CONFIG_FILE).write_text(json.dumps(stored), encoding="utf-8")
    assert not trained_config(tmp_path).teacher.label_dropout
    try:
        with pytest.raises(InputError, match=r"teacher.label_dropout: false there, true now\n"):
            work_directory.prepare(tmp_path, config, RESUMABLE, older_config())
        config.teacher.label_dropout = False
        work_directory.prepare(tmp_path, config, RESUMABLE, older_config())
        assert trained_config(tmp_path) == config
    finally:
        work_directory.unlock(tmp_path)


def test_a_study_from_before_it_goes_on_without_it(tmp_path):
    config = default_config()
    save_plan(tmp_path, config, choose_losses(["l1"]), [0])
    plan = json.loads((tmp_path / STUDY_FILE).read_text())
    del plan["config"]["teacher"]["label_dropout"]
    (tmp_path / STUDY_FILE).write_text(json.dumps(plan), encoding="utf-8")
    assert not Study.load(tmp_path).config.teacher.label_dropout
    with pytest.raises(InputError, match=r"teacher.label_dropout: false there, true now\n"):
        refuse_other_plan(tmp_path, config, choose_losses(["l1"]))
    config.teacher.label_dropout = False
    refuse_other_plan(tmp_path, config, choose_losses(["l1"]))


def test_what_older_runs_did_is_a_value_that_the_field_may_have():
    assert checked(older_config()).to_dict() == older_config().to_dict()
    changed = {name: field.before for name, field in FIELDS.items() if field.before is not None}
    assert changed == {"teacher.label_dropout": False}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reconstruction_loss": "l1_ssim"}, "reconstruction_loss"),
        ({"reconstruction.structure_code": "2*ms_ssim"}, "reconstruction.structure_code"),
        (
            {"reconstruction_loss": "ssim", "reconstruction.structure_code": "l1"},
            "reconstruction_loss",
        ),
    ],
)
def test_losses_that_need_images_are_refused_on_codes_by_name(fields, field):
    config = default_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(InputError, match=rf"--config.{field}: .*ssim, which needs .* of an image"):
        checked(config)
    config.baseline = True
    checked(config)


def test_each_term_may_have_a_reconstruction_loss_of_its_own():
    config = default_config()
    config.reconstruction_loss, config.reconstruction.structure_code = "l1_ssim", "huber(0.5)"
    config.reconstruction.appearance_code = "cos"
    found = {use: str(one) for use, one in expressions(checked(config)).items()}
    assert found == {
        "images": "l1+ssim",
        "structure_code": "huber(0.5)",
        "appearance_code": "cos",
        "cycle": "l1+ssim",
    }
    text = "l1_ssim (structure_code: huber(0.5), appearance_code: cos)"
    assert reconstruction_text(config) == text
    assert reconstruction_text(default_config()) == "l1"


def test_a_tilde_in_paths_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for name in ("pretrained", "released", "inception", "data.root", "teacher.checkpoint"):
        found = checked(with_value(name, "~/a"))
        section, _, leaf = name.rpartition(".")
        assert (found[section] if section else found)[leaf] == "/home/somebody/a"
    assert checked(with_value("data.root", "gs://bucket/a")).data.root == "gs://bucket/a"


def test_a_locked_configuration_stays_locked():
    assert checked(default_config().lock()).is_locked
    assert not checked(default_config()).is_locked


def test_sizes_and_widths_of_stages_go_together():
    with pytest.raises(InputError, match="--config.appearance.stage_sizes: found .* as many of"):
        checked(with_value("appearance.stage_sizes", (3, 4)))


def test_starting_from_the_teacher_needs_its_backbone_before_it_is_trained():
    config = market.get_config("l1,small")
    config.appearance.stage_widths = (32, 64, 128, 512)
    with pytest.raises(InputError, match="'teacher' needs the same backbone.*stage_widths"):
        checked(config)
    config.appearance.init = "imagenet"
    checked(config)


@pytest.mark.parametrize(
    "enter",
    [
        lambda config, folder: train(config, folder),
        lambda config, folder: train_baseline(config, folder),
        lambda config, folder: evaluate(config, folder),
        lambda config, folder: evaluate_fully(config, folder),
        lambda config, folder: generate(config, folder, "swap"),
        lambda config, folder: load_model(config, folder),
        lambda config, folder: load_baseline(config, folder),
        lambda config, folder: load_teacher_model(config, folder),
        lambda config, folder: Study(config, workdir=folder),
    ],
)
def test_every_entrance_checks_the_configuration_before_it_makes_anything(enter, tmp_path):
    with pytest.raises(InputError, match="--config.appearance.pooling: found 'avg'"):
        enter(with_value("appearance.pooling", "avg"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_reference_page_is_the_table():
    assert DOCS.read_text(encoding="utf-8").endswith(f"\n\n{as_markdown()}\n")


def test_a_default_is_called_published_where_a_document_says_so():
    assert {field.source for field in FIELDS.values()} == set(SOURCES)
    by_source = {
        source: {name for name, field in FIELDS.items() if field.source == source}
        for source in SOURCES
    }
    # The rows of docs/method.md, section 9, in which this code follows the program, and the field
    # that the released program's ramps are shared by.
    assert by_source[PROGRAM] == {
        "appearance.cut_gradient",
        "appearance.train_bn",
        "augment.erasing_probability",
        "discriminator.gradient_penalty",
        "gan_loss",
        "ramp.scale",
        "ramp.start",
        "ramp.teacher_delay",
        "structure_encoder.train_probability",
        "teacher.label_dropout",
        "weights.cycle",
    }
    # The teacher's training follows no published recipe; its network and its labels do.
    training = {"total_steps", "batch_size", "learning_rate", "backbone_factor", "momentum"}
    training |= {"weight_decay", "warmup_steps", "milestones", "decay", "erasing_probability"}
    ours = {name for name in by_source[OURS] if name.startswith("teacher.")}
    assert ours == {f"teacher.{name}" for name in training | {"checkpoint", "last_stride"}}
    # Of DG-Net's own training all is published but what says where things are and how they run.
    for section in ("augment", "structure_encoder", "discriminator", "appearance", "weights"):
        assert not [name for name in by_source[OURS] if name.startswith(f"{section}.")]
    assert not [name for name in by_source[OURS] if name.startswith(("ramp.", "optimizer."))]


def test_the_printed_table_shows_every_field_and_what_a_configuration_changes():
    lines = described(market.get_config("l1_rmse,small"))
    for name, field in FIELDS.items():
        start = lines.index(f"\n│ {name} ") + 1
        assert field.source.split()[0] in lines[start : lines.index("\n", start)]
        assert field.comment
    changed = lines[lines.index("│ total_steps ") : lines.index("│ batch_size ")]
    assert "100000" in changed and "│ here 3000 " in changed
    assert "│ here " not in described()
