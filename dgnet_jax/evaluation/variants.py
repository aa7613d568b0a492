"""The ways of ranking that one evaluation reports: the rows of its table."""

import time
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.features import ranking_features
from dgnet_jax.evaluation.metrics import summarise
from dgnet_jax.evaluation.multi_query import average_queries
from dgnet_jax.evaluation.ranking import gallery_counts, inner_products, rank_hits
from dgnet_jax.evaluation.reranking import KReciprocal

Metrics = dict[str, float]


class Embedded(NamedTuple):
    """The embedded images of a split.

    Attributes:
        embeddings: prime and fine, each of unit norm.
        identities: as `ranking.evaluate_ranking` takes them.
        cameras: of any numbering.
    """

    embeddings: Float[np.ndarray, "n 2 dim"]
    identities: Int[np.ndarray, " n"]
    cameras: Int[np.ndarray, " n"]


class Variant(NamedTuple):
    """One way of ranking.

    Attributes:
        alpha: weight of the fine embedding in the score; 0 leaves it out.
        fine_only: score by the fine embedding alone, whatever alpha is.
        reranking: k-reciprocal re-ranking, or None.
        multi_query: queries are averaged over their multi-query images.
    """

    alpha: float
    fine_only: bool = False
    reranking: KReciprocal | None = None
    multi_query: bool = False

    @property
    def name(self) -> str:
        """Its row's name in the table."""
        name = "fine only" if self.fine_only else f"alpha {self.alpha:g}"
        if self.multi_query:
            name += ", multi-query"
        if self.reranking is not None:
            k1, k2, lambda_value = self.reranking
            name += f", re-ranked (k1 {k1}, k2 {k2}, lambda {lambda_value:g})"
        return name

    def features(self, split: Embedded) -> Float[np.ndarray, "n values"]:
        """Features whose inner product is the score."""
        prime, fine = split.embeddings[:, 0], split.embeddings[:, 1]
        return ranking_features(prime, fine, self.alpha, fine_only=self.fine_only)


class Ranked(NamedTuple):
    """What a variant gave.

    Attributes:
        variant: the way of ranking.
        hits: for each query the rising ranks of its hits, from 0.
        metrics: those of `ranking.evaluate_ranking`, as shares and counts; with multi-query also
            `multi_query_images` and `queries_without_multi_query`.
        seconds: what it took.
    """

    variant: Variant
    hits: list[Int[np.ndarray, " _hits"]]
    metrics: Metrics
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The settings and the metrics."""
        settings = self.variant._asdict()
        if self.variant.reranking is not None:
            k1, k2, lambda_value = self.variant.reranking
            settings["reranking"] = {"k1": k1, "k2": k2, "lambda": lambda_value}
        return {
            "name": self.variant.name,
            **settings,
            "seconds": round(self.seconds, 2),
            "metrics": self.metrics,
        }


def main_variant(config: ml_collections.ConfigDict) -> Variant:
    """The one that is compared with published numbers; the baseline has one embedding only."""
    return Variant(alpha=0.0 if config.get("baseline") else config.evaluation.alpha)


def variants(config: ml_collections.ConfigDict, *, multi_query: bool) -> list[Variant]:
    """All rows: the main one first.

    Args:
        config: `evaluation.alpha` and `evaluation.rerank*`.
        multi_query: whether the data set has the images for it.

    Raises:
        InputError: a setting is out of range.
    """
    settings = config.evaluation
    if not 0 <= settings.alpha < np.inf:
        raise InputError(
            f"--config.evaluation.alpha: found {settings.alpha}. Give a finite weight of 0 or "
            "above, such as 0.5."
        )
    main = main_variant(config)
    rows = [main]
    if not config.get("baseline"):
        rows += [Variant(0.0), Variant(settings.alpha, fine_only=True)]
    if settings.rerank:
        reranking = KReciprocal(settings.rerank_k1, settings.rerank_k2, settings.rerank_lambda)
        try:
            reranking.check()
        except InputError as error:
            raise InputError(f"--config.evaluation.rerank_*: {error}") from error
        rows.append(main._replace(reranking=reranking))
    if multi_query:
        rows.append(main._replace(multi_query=True))
    return list(dict.fromkeys(rows))


def rank(
    variant: Variant, query: Embedded, gallery: Embedded, multi_query: Embedded | None = None
) -> Ranked:
    """Ranks the gallery for every query in one way.

    Raises:
        InputError: see `ranking.evaluate_ranking`.
    """
    started = time.perf_counter()
    query_features = variant.features(query)
    counts: dict[str, int] = {}
    if variant.multi_query:
        assert multi_query is not None
        query_features, found = average_queries(
            query_features, *query[1:], variant.features(multi_query), *multi_query[1:]
        )
        counts = {
            "multi_query_images": len(multi_query.identities),
            "queries_without_multi_query": int(np.count_nonzero(found == 0)),
        }
    hits = rank_hits(
        query_features,
        *query[1:],
        variant.features(gallery),
        *gallery[1:],
        scorer=inner_products if variant.reranking is None else variant.reranking.scores,
    )
    metrics = summarise(hits) | gallery_counts(gallery.identities) | counts
    return Ranked(variant, hits, metrics, time.perf_counter() - started)
