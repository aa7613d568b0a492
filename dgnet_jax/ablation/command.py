"""`launch.py --mode=ablate` and `--mode=search`."""

from collections.abc import Sequence

import ml_collections

from dgnet_jax.ablation.points import choose_seeds, parse_shard
from dgnet_jax.ablation.search.search import Search
from dgnet_jax.ablation.study import Study
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.preemption import stopping_at_once


def ablate(
    config: ml_collections.ConfigDict,
    workdir: str,
    losses: Sequence[str],
    seeds: Sequence[str],
    shard: str | None,
) -> str:
    """Runs the study that the flags ask for, and reports, of a split one when all parts are over.

    Args:
        config: of all runs.
        workdir: of the study.
        losses, seeds, shard: as the flags of these names hold them.

    Returns:
        Its tables as text, and where the report is.

    Raises:
        InputError: a flag, the configuration or the work directory is wrong.
        Stopped: SIGTERM or Ctrl-C came; the same command goes on.
    """
    study = Study(
        config,
        losses=losses,
        seeds=choose_seeds(seeds),
        workdir=workdir,
        shard=parse_shard(shard),
    )
    with stopping_at_once() as check:
        study.run()
        if study.shard[1] > 1 and on_first_process(study.missing):
            hint = f"python -m dgnet_jax.ablation {workdir} reports what is over."
            return f"{study.text()}\n\n{hint}"
        check()
        page = study.report()
    return f"{study.text()}\n\nwrote {page}"


def search(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    terms: Sequence[str],
    objectives: Sequence[str],
    trials: int,
    seeds: Sequence[str],
    sampler: str,
    shard: str | None,
) -> str:
    """Runs the search that the flags ask for, and reports once its last trial is over.

    Args:
        config: of all runs.
        workdir: of the search.
        terms, objectives, trials, seeds, sampler, shard: as the flags of these names hold them.

    Returns:
        The front as text, and where the report is.

    Raises:
        InputError: a flag, the configuration or the work directory is wrong.
        Stopped: SIGTERM or Ctrl-C came; the same command goes on.
    """
    found = Search(
        config,
        terms,
        objectives,
        workdir=workdir,
        trials=trials,
        seeds=choose_seeds(seeds),
        sampler=sampler,
        shard=parse_shard(shard),
    )
    with stopping_at_once() as check:
        found.run()
        if on_first_process(found.is_under_way):
            hint = f"python -m dgnet_jax.ablation {workdir} reports what is over."
            return f"{found.text()}\n\n{hint}"
        check()
        page = found.report()
    return f"{found.text()}\n\nwrote {page}"
