"""A search with tiny networks, for real."""

import json
from pathlib import Path

import pytest
from processes import saved_steps, tiny_data
from report_page import Page
from tiny import tiny_config

pytest.importorskip("optuna", reason="the extra [search] is not installed")

from dgnet_jax.ablation.search import search as module
from dgnet_jax.ablation.search.outcome import read_outcome
from dgnet_jax.ablation.search.search import Search
from dgnet_jax.losses import parse

pytestmark = pytest.mark.slow


def test_a_search_trains_measures_prunes_and_reports(tmp_path_factory, tmp_path, monkeypatch):
    """One of the thesis's losses and two that are suggested, of which the last is hopeless."""
    monkeypatch.setattr(module, "ALL", "l1")
    monkeypatch.setattr(module, "is_hopeless", lambda found, others, better: len(others) == 2)
    config = tiny_config(
        {
            "data.root": str(tiny_data(tmp_path_factory)),
            "evaluation.every_steps": 2,
            "total_steps": 4,
            "ramp.start": -2,
            "teacher.total_steps": 2,
        }
    )
    search = Search(
        config,
        ["l1", "huber(delta=0.1:2)"],
        ["truth_l1", "mAP"],
        workdir=tmp_path / "search",
        trials=3,
    )
    search.run()
    # Whatever the losses and their numbers, there is one program.
    session = search._runner.session
    assert session is not None and len(session._steps) == 1

    outcome = read_outcome(tmp_path / "search")
    assert [trial.label for trial in outcome.trials] == ["l1", "trial_001", "trial_002"]
    assert [trial.outcome for trial in outcome.trials] == ["finished", "finished", "pruned"]
    for trial in outcome.trials:
        run = tmp_path / "search" / "runs" / trial.label / "seed_0"
        row = json.loads((run / "result.json").read_text())
        assert row["expression"] == trial.expression == str(parse(trial.expression))
        if trial.outcome == "finished":
            assert trial.values == (row["truth_l1"], row["mAP"])
            assert 0 < row["truth_l1"] < 1 and 0 < row["mAP"] <= 1
        else:
            assert row["steps"] == 2
        # The last checkpoint is whole, of the pruned one too.
        assert saved_steps(run, "dgnet")[-1] == row["steps"]
        assert evaluations(run) == list(range(0, row["steps"] + 1, 2))

    page = Page(search.report().read_text(encoding="utf-8"))
    files = [caption.split()[-1] for caption in page.captions]
    assert {"search_front.png", "search_history.png"} <= set(files)
    shown = {"l1", *(trial.label for trial in outcome.front)}
    assert {name for name in files if name.startswith("swaps_")} == {
        f"swaps_{label}.png" for label in shown
    }


def evaluations(run: Path) -> list[int]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if (row["kind"], row["stage"]) == ("evaluation", "dgnet")]
