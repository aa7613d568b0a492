"""Rank@k, average precision and mINP, from the ranks of each query's hits alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from dgnet_jax.errors import InputError

RANKS = (1, 5, 10, 20)


def average_precision_trapezoid(hit_ranks: Int[np.ndarray, " hits"]) -> float:
    """Area under the precision-recall curve by the trapezoid rule: Market's own AP.

    With r_i the rank of hit i, both from 0, and G hits: (1/G) sum of half of
    [i/r_i + (i+1)/(r_i+1)], where the first fraction is 1 if r_i = 0 (the program of Zheng et al.,
    ICCV 2015). Every mAP that DG-Net and the thesis print is the mean of these.

    Args:
        hit_ranks: rising, from 0.

    Returns:
        The average precision in [0, 1]; 0 without a hit.
    """
    if len(hit_ranks) == 0:
        return 0.0
    found = np.arange(len(hit_ranks))
    before = np.where(hit_ranks == 0, 1.0, found / np.maximum(hit_ranks, 1))
    return float(np.mean(0.5 * (before + (found + 1) / (hit_ranks + 1))))


def average_precision_standard(hit_ranks: Int[np.ndarray, " hits"]) -> float:
    """Mean precision at the hits, (1/G) sum of (i+1)/(r_i+1): the mAP of most later papers.

    Args:
        hit_ranks: rising, from 0.

    Returns:
        The average precision in [0, 1]; 0 without a hit.
    """
    if len(hit_ranks) == 0:
        return 0.0
    return float(np.mean(np.arange(1, len(hit_ranks) + 1) / (hit_ranks + 1)))


def inverse_negative_penalty(hit_ranks: Int[np.ndarray, " hits"]) -> float:
    """G / (rank of the last hit + 1): how far down the hardest match lies.

    Its mean is mINP (Ye et al., Deep Learning for Person Re-identification, arXiv 2001.04193).

    Args:
        hit_ranks: rising, from 0.

    Returns:
        A value in [0, 1]; 0 without a hit.
    """
    if len(hit_ranks) == 0:
        return 0.0
    return float(len(hit_ranks) / (hit_ranks[-1] + 1))


def summarise(
    hits: Sequence[Int[np.ndarray, " _hits"]], ranks: Sequence[int] = RANKS
) -> dict[str, float | int]:
    """Rank@k, both mAPs and mINP from the ranks of every query's hits.

    Rank@k and the trapezoid mAP divide by all queries, so that one without a valid hit counts as
    zero, as in Market's program; `mAP_standard` and `mINP` leave such queries out of the mean, as
    later programs do (0 if all are such).

    Args:
        hits: for each query the rising ranks of its hits, from 0; empty if it has none.
        ranks: the k of each Rank@k.

    Returns:
        `rank1` and so on for each k, `mAP` (trapezoid), `mAP_standard` and `mINP` as fractions,
        `queries` and `queries_without_match` as counts.

    Raises:
        InputError: if there is no query or a rank is below 1.
    """
    if len(hits) == 0:
        raise InputError("hits: there is no query. Check the query folder.")
    if any(k < 1 for k in ranks):
        raise InputError(f"ranks: found {tuple(ranks)}. Give values of 1 and above.")
    matched = [ranks_of_query for ranks_of_query in hits if len(ranks_of_query)]
    first = np.array([ranks_of_query[0] for ranks_of_query in matched])
    return {f"rank{k}": int(np.count_nonzero(first < k)) / len(hits) for k in ranks} | {
        "mAP": sum(map(average_precision_trapezoid, matched)) / len(hits),
        "mAP_standard": sum(map(average_precision_standard, matched)) / max(len(matched), 1),
        "mINP": sum(map(inverse_negative_penalty, matched)) / max(len(matched), 1),
        "queries": len(hits),
        "queries_without_match": len(hits) - len(matched),
    }


def cumulative_matches(
    hits: Sequence[Int[np.ndarray, " _hits"]], length: int
) -> Float[np.ndarray, " {length}"]:
    """The CMC curve: the share of all queries whose first hit is among the first k items.

    Args:
        hits: as `summarise` takes them.
        length: the largest k.

    Returns:
        Shares for k = 1 ... length; Rank@k is entry k - 1.
    """
    first = np.array([ranks[0] for ranks in hits if len(ranks)], dtype=np.int64)
    counts = np.bincount(first[first < length], minlength=length)
    return np.cumsum(counts) / len(hits)
