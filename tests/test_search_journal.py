"""The journal of a search: what comes first, who takes what, what a death leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from search_worker import FIRST, journal, values

from dgnet_jax.ablation.search import journal as module
from dgnet_jax.ablation.search.journal import JOURNAL_FILE, read_study, trials_of
from dgnet_jax.errors import InputError
from dgnet_jax.losses import canonical_expression
from dgnet_jax.runtime.workdir import unlock

pytest.importorskip("optuna", reason="the extra [search] is not installed")
WORKER = Path(__file__).parent / "search_worker.py"


def finish_all(made, trials):
    claims = []
    while (claim := made.claim(trials)) is not None:
        claims.append(claim)
        made.finish(claim.number, values(claim))
        made.release(claim)
    return claims


def test_the_given_points_come_first_then_the_sampler_s(tmp_path):
    claims = finish_all(journal(tmp_path), 8)
    assert [(one.number, one.label, one.expression) for one in claims[:3]] == [
        (0, "l1", "l1"),
        (1, "mse", "mse"),  # outside of the space
        (2, "l1_rmse", "l1+rmse"),
    ]
    assert [one.label for one in claims[3:]] == [f"trial_{number:03d}" for number in range(3, 8)]
    for one in claims[3:]:
        assert canonical_expression(one.expression) == one.expression
    study = read_study(tmp_path)
    # What is inside has its values, from which the sampler learns.
    assert study.trials[2].params == {
        **{"l1": True, "rmse": True, "cos": False},
        **{"l1.weight": 1, "rmse.weight": 1},
    }
    assert study.trials[1].params == {}
    assert [one.outcome for one in trials_of(study)] == ["finished"] * 8
    assert trials_of(study)[0].values == (50, 0.5)


def test_a_search_of_fewer_trials_begins_with_the_first_points_and_can_be_made_longer(tmp_path):
    assert [one.label for one in finish_all(journal(tmp_path), 2)] == ["l1", "mse"]
    assert [one.label for one in finish_all(journal(tmp_path), 4)] == ["l1_rmse", "trial_003"]
    assert finish_all(journal(tmp_path), 4) == []


def test_a_restarted_search_suggests_what_one_that_was_not_does(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    claims = finish_all(journal(whole), 16)
    found = [claim for trials in range(1, 17) for claim in finish_all(journal(parts), trials)]
    assert found == claims
    assert len({one.expression for one in claims}) == 16


def test_samplers_differ(tmp_path):
    found = {}
    for sampler in ("tpe", "random"):
        (tmp_path / sampler).mkdir()
        found[sampler] = finish_all(journal(tmp_path / sampler, sampler), 20)
    # Both draw at random until there are enough trials to learn from.
    assert found["tpe"][:8] == found["random"][:8]
    assert found["tpe"] != found["random"]


def test_a_point_is_not_run_twice(tmp_path, caplog):
    """Of two terms with fixed weights there are three points, of which one has come first."""
    made = journal(tmp_path, terms="1*l1,2*rmse")
    claims = finish_all(made, 30)
    assert sorted(one.expression for one in claims) == [
        "2*rmse",
        "l1",
        "l1+2*rmse",
        "l1+rmse",
        "mse",
    ]
    assert "the search ends with 5 of 30 trials" in caplog.text
    assert len(made.trials()) == 5


def test_a_trial_that_was_not_told_is_taken_up_again_with_its_point(tmp_path):
    made = journal(tmp_path)
    finish_all(made, 4)
    lost = made.claim(5)
    unlock(tmp_path / "runs" / lost.label)  # as the death of its process does
    assert journal(tmp_path).claim(5) == lost


def test_a_trial_that_is_told_while_another_process_looks_at_it_is_not_taken_up(
    tmp_path, monkeypatch
):
    theirs, mine = journal(tmp_path), journal(tmp_path)
    claim = theirs.claim(9)
    lock = module.lock_here

    def tell_first(folder: Path) -> None:
        if folder.name == claim.label:
            theirs.finish(claim.number, values(claim))
            theirs.release(claim)
        lock(folder)

    monkeypatch.setattr(module, "lock_here", tell_first)
    assert mine.claim(9).number == 1
    assert [one.outcome for one in mine.trials()] == ["finished", "running", "waiting"]


def test_a_process_that_dies_after_any_line_loses_nothing(tmp_path):
    """A copy of the journal's first lines, and half a line, is what a death leaves."""
    made = journal(tmp_path)
    told = finish_all(made, 3)
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    claim = made.claim(4)
    made.record(claim.number, 0, 2, {"mAP": 0.5})
    made.finish(claim.number, values(claim))
    made.release(claim)
    after = (tmp_path / JOURNAL_FILE).read_bytes()[len(before) :].splitlines(keepends=True)
    assert len(after) > 5
    for lines in range(len(after) + 1):
        torn = after[lines][: len(after[lines]) // 2] if lines < len(after) else b""
        (tmp_path / JOURNAL_FILE).write_bytes(before + b"".join(after[:lines]) + torn)
        again = journal(tmp_path)
        claims = finish_all(again, 6)
        trials = again.trials()
        assert [one.label for one in trials[:3]] == [one.label for one in told]
        assert [one.outcome for one in trials] == ["finished"] * 6
        # Once the fourth trial's point is chosen it stays, and it is told again if that was lost.
        if any(b'"expression"' in line for line in after[:lines]):
            assert trials[3].expression == claim.expression
        assert len({one.expression for one in trials}) == 6
        assert [one.number for one in claims] == ([3, 4, 5] if lines < len(after) else [4, 5])
        for line in (tmp_path / JOURNAL_FILE).read_text().splitlines():
            json.loads(line)


def test_a_death_while_the_first_points_are_written_leaves_none_out(tmp_path):
    journal(tmp_path)
    content = (tmp_path / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    for lines in range(len(content)):
        (tmp_path / JOURNAL_FILE).write_bytes(b"".join(content[:lines]) + content[lines][:7])
        # A search that goes on looks first at what there is.
        assert (read_study(tmp_path) is None) == (lines == 0)
        assert [one.label for one in journal(tmp_path).trials()] == list(FIRST)


def test_what_ends_early_has_no_values_and_counts_as_bad(tmp_path):
    made = journal(tmp_path)
    for outcome in ("pruned", "diverged"):
        claim = made.claim(9)
        made.give_up(claim.number, outcome)
        made.release(claim)
    assert [(one.outcome, one.values) for one in made.trials()[:2]] == [
        ("pruned", ()),
        ("diverged", ()),
    ]
    states = {trial.state.name for trial in read_study(tmp_path).trials[:2]}
    assert states == {"PRUNED"}


def test_evaluations_of_finished_trials_are_found_by_seed_and_step(tmp_path):
    made = journal(tmp_path)
    for number, ends in enumerate((made.finish, made.give_up)):
        claim = made.claim(9)
        made.record(claim.number, 1, 200, {"mAP": 0.25 + number})
        made.record(claim.number, 1, 400, {"mAP": 0.5})
        ends(claim.number, [1.0, 2.0] if number == 0 else "pruned")
        made.release(claim)
    assert made.evaluated(1, 200) == [{"mAP": 0.25}]
    assert made.evaluated(0, 200) == made.evaluated(1, 300) == []


def test_processes_share_a_search_and_none_runs_a_trial_of_another(tmp_path):
    """One of three is killed with a trial in its hands, which the others take up."""
    command = [sys.executable, str(WORKER), str(tmp_path), "14"]
    root = {"cwd": WORKER.parents[1], "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(WORKER.parents[1])}
    killed = subprocess.Popen([*command, "600"], env=environment, **root)
    assert killed.stdout.readline() == "claimed 0\n"
    others = [subprocess.Popen([*command, "0.05"], env=environment, **root) for _ in range(2)]
    assert others[0].stdout.readline().startswith("claimed ")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    said = [process.communicate(timeout=120)[0] for process in others]
    assert [process.returncode for process in others] == [0, 0]
    told = [line.split()[1] for text in said for line in text.splitlines() if "told" in line]
    assert sorted(map(int, told)) == list(range(14))
    trials = trials_of(read_study(tmp_path))
    assert [trial.outcome for trial in trials] == ["finished"] * 14
    assert len({trial.expression for trial in trials}) == 14


@pytest.mark.parametrize(
    "content", ["null\n", "{}\n{}\n", "[1]\n[2]\n", "x\nx\n", '{"op_code": 99}\n']
)
def test_a_damaged_journal_is_named(tmp_path, content):
    (tmp_path / JOURNAL_FILE).write_text(content)
    with pytest.raises(InputError, match=f"{JOURNAL_FILE}: no journal of this search"):
        journal(tmp_path)
    with pytest.raises(InputError, match=f"{JOURNAL_FILE}: no journal of this search"):
        read_study(tmp_path)


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        InputError, match=r"'dgnet-jax\[search\]'.*requirements-search.txt"
    ) as error:
        module.load_optuna()
    assert "\n" not in str(error.value)
