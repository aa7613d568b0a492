"""The flags, as they are typed."""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver
from test_evaluator import STEP, TRAINED_WITH, people, run, strangers  # noqa: F401
from tiny import tiny_config

import launch
from configs import trained
from dgnet_jax import command_line
from dgnet_jax.command_line import (
    MODES_OF,
    StepParser,
    add_trained_config,
    default_workdir,
    given_command,
    parse_step,
)
from dgnet_jax.config import apply_variant
from dgnet_jax.config_fields import described
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.generate import GenerateOptions

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "flags",
    [
        ["--mode=evaluate", "--workdir=runs/a", "--config.data.root=b"],
        ["--config.data.root=b", "--workdir", "runs/a", "--mode", "evaluate"],
        ["-workdir=runs/a", "-mode=generate", "--unknown=3"],
    ],
)
def test_without_config_the_work_directory_s_is_taken_before_its_overrides(flags):
    argv = ["launch.py", *flags]
    add_trained_config(argv)
    assert argv == ["launch.py", f"--config={trained.__file__}:runs/a", *flags]


@pytest.mark.parametrize(
    "flags",
    [
        ["--mode=evaluate", "--workdir=runs/a", "--config=configs/market.py"],
        ["--config", "configs/market.py", "--mode=evaluate", "--workdir=runs/a"],
        ["--workdir=runs/a"],
        ["--mode=train", "--workdir=runs/a"],
        ["--mode=evaluate"],
        ["--mode=evaluate", "--workdir"],
    ],
)
def test_a_given_config_and_training_are_left_alone(flags):
    argv = ["launch.py", *flags]
    add_trained_config(argv)
    assert argv == ["launch.py", *flags]


@pytest.mark.parametrize(
    ("config", "mode", "workdir"),
    [
        ("configs/market.py:l1_rmse", "train", "runs/market_l1_rmse"),
        ("configs/market.py:l1_rmse,small", "train", "runs/market_l1_rmse_small"),
        ("configs/market.py:0.5*l1+2*rmse", "train", "runs/market_0.5_l1+2_rmse"),
        ("configs/market.py:../../x", "train", "runs/market_.._.._x"),
        ("configs/market.py", "evaluate", "runs/market"),
        ("/home/me/mine.py:l1", "generate", "runs/mine_l1"),
        ("configs/market.py:l1,small", "ablate", "runs/market_l1_small_study"),
        ("configs/market.py:l1,small", "search", "runs/market_l1_small_search"),
        (
            "configs/market.py:barron(alpha=0,c=0.1),small",
            "train",
            "runs/market_barron_alpha_0_c_0.1_small",
        ),
        ("configs/trained.py:runs/a", "evaluate", "runs/a"),
        ("dgnet_jax/config.py:weights.safetensors", "generate", "runs/weights"),
    ],
)
def test_without_a_work_directory_the_configuration_names_it(config, mode, workdir):
    assert default_workdir(config, mode) == workdir


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("train", "--config is missing, such as --config=configs/market.py:l1_rmse"),
        ("ablate", "--config is missing"),
        ("search", "--config is missing"),
        ("evaluate", "--workdir is missing: --mode=evaluate needs the folder of a run"),
        ("generate", "--workdir is missing: --mode=generate needs the folder of a run"),
    ],
)
def test_without_both_the_missing_one_is_named(mode, message):
    with pytest.raises(InputError, match=message):
        default_workdir("", mode)


@pytest.fixture
def given():
    """Parses flags of launch.py and gives the command; the flags are as before afterwards."""
    with flagsaver.flagsaver():
        yield lambda *argv: flags.FLAGS(["launch.py", *argv]) and given_command()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seed=1"], r"--seed: is for --mode=generate, but the mode is train.*--config.seed"),
        (["--losses=mse"], r"--losses: is for --mode=ablate, but the mode is train"),
        (["--mode=evaluate", "--seeds=1,2"], "--seeds: is for --mode=ablate or search, but the"),
        (["--mode=ablate", "--terms=l1"], "--terms: is for --mode=search, but the mode is ablate"),
        (["--mode=search", "--losses=l1"], r"--losses: is for --mode=ablate.*--terms those of a"),
        (
            ["--mode=ablate", "--step=3"],
            "--step: is for --mode=evaluate or generate, but",
        ),
        (["--mode=generate", "--queries=a"], "--queries: is for --mode=evaluate, but"),
        (["--mode=ablate", "--task=swap"], "--task: is for --mode=generate"),
        (["--count=0"], "--count: is for --mode=generate"),
        (["--mode=describe", "--output=x"], "--output: is for --mode=evaluate or generate"),
    ],
)
def test_a_flag_of_another_mode_is_refused_with_the_mode_that_takes_it(given, argv, message):
    with pytest.raises(InputError, match=message):
        given("--workdir=runs/a", *argv)


def test_every_flag_says_which_modes_take_it_or_is_every_modes():
    of_all = {"config", "workdir", "mode"}
    process = {
        "distributed",
        "coordinator_address",
        "num_processes",
        "process_id",
        "initialization_timeout",
        "require_accelerator",
    }
    ours = {flag.name for flag in flags.FLAGS.get_flags_for_module(command_line)}
    assert ours == set(MODES_OF) | of_all | process


def test_a_tilde_in_flags_is_the_home_folder(given, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    command = given("--mode=evaluate", "--workdir=~/runs/a", "--output=~/a.json")
    assert command.workdir == "/home/somebody/runs/a"
    assert command.output == "/home/somebody/a.json"


def test_the_main_job_needs_no_more_than_its_configuration(given):
    command = given(f"--config={REPOSITORY}/configs/market.py:l1_rmse,small")
    assert command.workdir == "runs/market_l1_rmse_small"
    assert command.config.reconstruction_loss == "l1_rmse"


@pytest.mark.slow
def test_describe_prints_the_table_even_into_a_pipe_that_closes():
    command = [sys.executable, "launch.py", "--mode=describe"]
    whole = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert whole.stdout == described() + "\n"
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as cut:
        cut.stdout.close()
        assert cut.stderr.read() == b""
    assert cut.returncode == 141


def test_a_step_is_a_number_or_best():
    for parse in (parse_step, StepParser().parse):
        assert (parse("12"), parse("best")) == (12, "best")


@pytest.mark.parametrize("text", ["last", "", "3.5", "Best"])
def test_another_step_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"found '{text}'. Give a number of steps"):
        parse_step(text)
    with pytest.raises(ValueError, match=f"found '{text}'. Give a number of steps, or 'best'"):
        StepParser().parse(text)


@pytest.mark.slow
def test_a_run_is_evaluated_on_another_data_set_by_overriding_its_fields(
    launcher,
    run,  # noqa: F811
    strangers,  # noqa: F811
):
    query = load_dataset("folder", strangers).query.files[0].rpartition("/")[2]
    said = launcher.finish(
        run,
        "--mode=evaluate",
        "--config.data.name=folder",
        f"--config.data.root={strangers}",
        "--config.evaluation.rerank_k1=4",
        f"--queries={query}",
        config=None,
    ).said()
    assert f"Trained on market1501 ({TRAINED_WITH} identities, step {STEP}, l1), eval" in said
    assert "k1 4, k2 6, lambda 0.3" in said
    report = json.loads((run / f"evaluation_on_folder_{strangers.name}.json").read_text())
    assert report["evaluated_on"] == f"folder {strangers.name}"
    assert report["config"].endswith(f"trained.py:{run}")
    assert report["configuration"]["data"]["root"] == str(strangers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.nme=x"], "error: --config has no such field"),
        (
            ["--config.data.name=markt1501"],
            "error: .*found 'markt1501'.*; the nearest is 'market1501'",
        ),
        (["--queries=nobody"], "error: --queries: no query has the name 'nobody'"),
        (["--step=3"], "error: .*no checkpoint of step 3; found steps \\[7\\]"),
        (["--step=best"], "error: .*no checkpoint has an evaluation.*; found steps \\[7\\]"),
        (["--step=last"], "error: flag --step=last: found 'last'. Give a number of steps, or 'b"),
        (
            ["--config.evaluation.rerank_k1=0"],
            r"error: --config.evaluation.rerank_k1: found 0. Give a whole number, 1 or more",
        ),
    ],
)
def test_what_is_wrong_ends_without_a_traceback(
    launcher,
    run,  # noqa: F811
    tmp_path,
    flags,
    message,
):
    output = f"--output={tmp_path}/x.json"
    said = launcher.refusal(run, "--mode=evaluate", output, *flags, config=None)
    assert re.search(message, said), said
    assert "Traceback" not in said
    assert not (tmp_path / "x.json").exists()


@pytest.mark.slow
def test_a_folder_that_is_no_run_is_refused(launcher, tmp_path):
    said = launcher.refusal(tmp_path, "--mode=evaluate", config=None)
    assert f"error: {tmp_path}: no config.json in it" in said


@pytest.mark.slow
def test_an_error_in_ones_own_configuration_is_named_with_its_line(launcher, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import market\n\n\ndef get_config():\n    config = market.get_config()\n"
        "    config.data.nme.part = 1\n    return config\n"
    )
    said = launcher.refusal(tmp_path / "run", config=str(file))
    assert re.search(r"error: --config: .*mine\.py, line 6: .*nme", said), said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_help_lists_the_flags_of_all_modes() -> None:
    """absl's --help shows what is key to the program that runs, as --helpfull does not."""
    listed = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(launch)}
    assert {"config", "workdir", "mode", "step", "task", "appearance", "losses", "shard"} <= listed


def test_options_of_generation_have_the_defaults_of_their_flags() -> None:
    """For the command line and for Python they are the same."""
    assert launch.MODES  # imported, so that the flags are defined
    for field in dataclasses.fields(GenerateOptions):
        default = flags.FLAGS[field.name].default
        assert (tuple(default) if isinstance(default, list) else default) == field.default


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("l1,l1_rmse,0.5*l1+2*rmse", ["l1", "l1_rmse", "0.5*l1+2*rmse"]),
        ("barron(alpha=0,c=0.1), small", ["barron(alpha=0,c=0.1)", "small"]),
        ("l1,huber(delta=0.1:2),2*f((1,2),3)", ["l1", "huber(delta=0.1:2)", "2*f((1,2),3)"]),
        (" , l1,, ", ["l1"]),
        ("a(1,2", ["a(1,2"]),
        ("a),b", ["a)", "b"]),
        ("", []),
    ],
)
def test_commas_within_parentheses_separate_no_losses(given, text, words):
    config = f"--config={REPOSITORY}/configs/market.py:l1"
    assert given(config, "--mode=ablate", f"--losses={text}").losses == words
    flag = flags.FLAGS["losses"]
    assert flag.parser.parse(flag.serializer.serialize(words)) == words


def test_a_variant_s_loss_may_have_commas_within_parentheses():
    config = tiny_config()
    with pytest.raises(InputError, match=r"barron\(alpha=0,c=0.1\)") as caught:
        apply_variant(config, "nothing_barron(alpha=0,c=0.1),small", {"small": print})
    assert "nothing_barron(alpha=0,c=0.1),small" not in str(caught.value)
