"""One of several processes that share a search's journal; its trials train nothing.

`python tests/search_worker.py WORKDIR TRIALS PAUSE` claims and tells trials until there are as many
as asked for, holding each for PAUSE seconds, and prints the numbers that it told.
"""

import sys
import time
from pathlib import Path

from dgnet_jax.ablation.search.journal import Claim, Journal
from dgnet_jax.ablation.search.objectives import parse_objectives
from dgnet_jax.ablation.search.space import parse_terms

FIRST = {"l1": "l1", "mse": "mse", "l1_rmse": "l1+rmse"}


def journal(workdir: Path, sampler: str = "tpe", terms: str = "l1,rmse,0.1:4*cos") -> Journal:
    """Of a search for less FID and more mAP."""
    objectives = parse_objectives(["fid", "mAP"])
    space = parse_terms(terms.split(","))
    return Journal(workdir, space, objectives, FIRST, sampler=sampler, seed=3)


def values(claim: Claim) -> list[float]:
    """What a trial comes to: longer sums have less FID and less mAP."""
    return [100.0 / len(claim.expression), 1.0 / len(claim.expression)]


if __name__ == "__main__":
    folder, trials, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    mine = journal(folder)
    while (claim := mine.claim(trials)) is not None:
        print("claimed", claim.number, flush=True)
        time.sleep(pause)
        mine.finish(claim.number, values(claim))
        mine.release(claim)
        print("told", claim.number, flush=True)
