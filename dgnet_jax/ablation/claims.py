"""What the thesis's values say about the losses, and what the runs of this study say to it.

Each claim is read from the thesis's tables (docs/method.md, section 8) and comes down to
comparisons of two losses, such as "l1+rmse has a lower FID than l1". A comparison is decided by the
paired differences over the seeds that both losses finished, as the differences to l1 are; a claim
holds if all of its comparisons do, and does not hold if one of them goes the other way.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dgnet_jax.ablation.cells import BY_NAME, difference_text
from dgnet_jax.ablation.loss_tables import gain_text, published_gain
from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.rendering import escaped
from dgnet_jax.ablation.statements import (
    DUKE,
    FID,
    MARKET,
    STATEMENTS,
    THESIS_LOSSES,
    Comparison,
    Statement,
)
from dgnet_jax.ablation.summary import (
    BASELINE,
    FEW_SEEDS,
    Difference,
    Metric,
    Summary,
    paired_difference,
)
from dgnet_jax.losses import FUSIONS

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be said"
# Measured by the thesis's protocol, of JPEG files, where every run was.
_PROTOCOL_FID = "fid_jpeg"


class Claim(NamedTuple):
    """A claim of the thesis beside this study's answer.

    Attributes:
        text: the claim.
        published: the thesis's numbers for it.
        verdict: `HOLDS`, `FAILS` or `UNKNOWN`.
        measured: this study's numbers, and the reason of the verdict.
    """

    text: str
    published: str
    verdict: str
    measured: str


def thesis_claims(summaries: Sequence[Summary], dataset: str) -> list[Claim]:
    """The thesis's claims, each with its numbers, this study's, and whether it holds here.

    Args:
        summaries: of the study's losses.
        dataset: `config.data.name`. DukeMTMC-reID has claims of its own; on any other data set
            those about Market-1501 are looked at.

    Returns:
        Nothing if the study has fewer than two losses of the thesis.
    """
    if sum(summary.label in THESIS_LOSSES for summary in summaries) < 2:
        return []
    found = {summary.label: summary for summary in summaries}
    source = dataset if dataset in STATEMENTS else MARKET
    return [_claim(one, found, source) for one in STATEMENTS[source]]


def claims_notes(dataset: str) -> list[str]:
    """How the claims are judged, and what sets the thesis's numbers apart from this study's."""
    printed = "" if dataset == DUKE else "; it prints the gains 20.57, 1.19 and 3.51 itself"
    notes = [
        f"These sentences are read from the thesis's tables, of one run a loss{printed}.",
        "A claim holds here if every difference that it speaks of is told apart from 0 over the "
        "seeds of this study (95 % for all differences of a claim together; claims are not "
        "corrected for each other). It does not hold if one is told apart the other way. Else "
        "nothing can be said.",
        "Gains are over l1, in the thesis's sense; measured ones are of the means over the seeds "
        "that a loss and l1 both finished, the values beside them means over all finished seeds.",
    ]
    if dataset not in STATEMENTS:
        notes.append(f"The thesis's numbers are of Market-1501, this study's of {dataset}.")
    return notes


def claims_to_markdown(claims: Sequence[Claim], dataset: str, notes: Sequence[str] = ()) -> str:
    """A line for each claim, for the terminal, below `claims_notes` and other notes."""
    lines = [
        f"- {claim.verdict.capitalize()}: {claim.text} Thesis: {claim.published} Here: "
        f"{claim.measured}"
        for claim in claims
    ]
    title = "**The thesis's claims**"
    return "\n\n".join((title, *claims_notes(dataset), *notes, escaped("\n".join(lines))))


class _Values(NamedTuple):
    """A metric's name, its values as they are printed, and their gains over l1; loss to number."""

    title: str
    values: Mapping[str, float]
    gains: Mapping[str, float | None]


def _claim(statement: Statement, found: Mapping[str, Summary], source: str) -> Claim:
    metrics = {FID: _fid_of(found), "mAP": BY_NAME["mAP"]}
    thesis = {
        name: _Values(
            "FID" if name == FID else name,
            {label: values[name] for label, values in PUBLISHED[source].items()},
            {label: published_gain(PUBLISHED[source], label, name) for label in PUBLISHED[source]},
        )
        for name in metrics
    }
    measured = {name: _measured(found, metric) for name, metric in metrics.items()}
    verdict, reason = _judge(statement, found, metrics)
    return Claim(
        statement.text,
        _numbers(statement, thesis),
        verdict,
        f"{_numbers(statement, measured)} {reason}".strip(),
    )


def _fid_of(found: Mapping[str, Summary]) -> Metric:
    """FID by the thesis's protocol if all runs that have an FID have this one."""
    counts = [(len(s.values[_PROTOCOL_FID]), len(s.values[FID])) for s in found.values()]
    complete = any(protocol for protocol, _ in counts) and all(a >= b for a, b in counts)
    return BY_NAME[_PROTOCOL_FID if complete else FID]


def _measured(found: Mapping[str, Summary], metric: Metric) -> _Values:
    means = {label: summary.spreads[metric.name].mean for label, summary in found.items()}
    values = {label: metric.factor * mean for label, mean in means.items() if mean is not None}
    gains = {label: summary.gains.get(metric.name) for label, summary in found.items()}
    return _Values(metric.title, values, gains)


def _numbers(statement: Statement, known: Mapping[str, _Values]) -> str:
    """Of each metric, the values of the losses in question, and their gain over l1 if it is one."""
    parts = []
    for name in dict.fromkeys(one.metric for one in statement.comparisons):
        comparisons = [one for one in statement.comparisons if one.metric == name]
        labels = list(dict.fromkeys(label for one in comparisons for label in one[1:3]))
        title, values, gains = known[name]
        shown = [label for label in labels if label in values]
        if statement.best:  # beside the best of its rivals
            rivals = [label for label in shown if label != labels[0]]
            rivals.sort(key=lambda label: -BY_NAME[name].better * values[label])
            shown = [label for label in shown if label in (labels[0], *rivals[:1])]
        texts = []
        for label in shown:
            gain = gains.get(label) if BASELINE in labels else None
            more = "" if gain is None else f" (gain {gain_text(gain)} %)"
            texts.append(f"{_title(label)} {values[label]:.2f}{more}")
        if len(texts) > 1:
            parts.append(f"{title}: {', '.join(texts)}.")
    return " ".join(parts)


def _judge(
    statement: Statement, found: Mapping[str, Summary], metrics: Mapping[str, Metric]
) -> tuple[str, str]:
    """The verdict and what it rests on."""
    runs = found.get(statement.finishes)
    if runs is not None and runs.diverged:
        total = len(runs.diverged) + len(runs.seeds)
        return FAILS, f"{len(runs.diverged)} of {total} runs with {runs.label} diverged."
    why: dict[str, list[str]] = {}  # something cannot be said, and of what
    decidable = []
    for one in statement.comparisons:
        metric = metrics[one.metric]
        missing = _missing(one, found, metric)
        if missing:
            reason, label = missing
            if label not in why.setdefault(reason, []):
                why[reason].append(label)
            continue
        better, worse = (found[label].values[metric.name] for label in one[1:3])
        if len(better.keys() & worse.keys()) < 2:
            few = f"fewer than two seeds in common with {_title(one.better)}"
            why.setdefault(few, []).append(f"{_title(one.worse)} ({metric.title})")
        else:
            decidable.append((one, metric))
    against, counts = [], set()
    for one, metric in decidable:
        difference = _difference(one, found, metric, len(decidable))
        counts.add(difference.n)
        sign = _sign(difference, metric)
        if sign < 0:
            against.append(_against(one, metric, difference))
        elif sign == 0 and one.factor != 1:
            doubt = f"whether {_title(one.worse)} is {one.factor:g} times worse"
            why.setdefault(f"not told apart in {metric.title}", []).append(doubt)
        elif sign == 0 and statement.best:
            doubt = f"not told apart in {metric.title} from {_title(one.better)}"
            why.setdefault(doubt, []).append(_title(one.worse))
        elif sign == 0:
            doubt = f"{_minus(one)} {difference_text(difference, metric)}"
            why.setdefault(f"not told apart in {metric.title}", []).append(doubt)
    seeds = _seeds_text(counts)
    if against:
        return FAILS, f"{_sentence('; '.join(against))}{seeds}"
    if why:
        reasons = (f"{reason}: {', '.join(of)}" for reason, of in why.items())
        return UNKNOWN, f"{_sentence('; '.join(reasons))}{seeds}"
    return HOLDS, seeds.strip()


def _difference(
    one: Comparison, found: Mapping[str, Summary], metric: Metric, comparisons: int
) -> Difference:
    """Better minus worse; the factor is that of the one with the lower value."""
    better, worse = (found[label].values[metric.name] for label in one[1:3])
    of_better, of_worse = (1.0, one.factor) if metric.better > 0 else (one.factor, 1.0)
    return paired_difference(
        {seed: of_better * value for seed, value in better.items()},
        {seed: of_worse * value for seed, value in worse.items()},
        comparisons,
    )


def _sign(difference: Difference, metric: Metric) -> int:
    """1 if the joint interval is on the claim's side, -1 if on the other, 0 if nothing is told."""
    if difference.joint_low is None or difference.joint_high is None:
        return 0
    low, high = sorted(metric.better * end for end in (difference.joint_low, difference.joint_high))
    return int(low > 0) - int(high < 0)


def _against(one: Comparison, metric: Metric, difference: Difference) -> str:
    better, worse = _title(one.better), _title(one.worse)
    if one.factor != 1:
        return f"in {metric.title} {worse} is not {one.factor:g} times worse than {better}"
    return (
        f"in {metric.title} {worse} is better than {better} ({_minus(one)} "
        f"{difference_text(difference, metric)})"
    )


def _missing(
    one: Comparison, found: Mapping[str, Summary], metric: Metric
) -> tuple[str, str] | None:
    """Why two losses cannot be compared, and of which loss that is."""
    for label in one[1:3]:
        if label not in found:
            return "not in the study", _title(label)
        if not found[label].seeds:
            return "without a finished run", _title(label)
        if not found[label].values[metric.name]:
            return f"{metric.title} was not measured", _title(label)
    return None


def _minus(one: Comparison) -> str:
    return f"{_title(one.better)} minus {_title(one.worse)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _title(label: str) -> str:
    """A loss as the thesis writes it."""
    return FUSIONS.get(label, label)


def _seeds_text(counts: set[int]) -> str:
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    text = f" {low} seeds" if low == high else f" {low} to {high} seeds"
    return text + (": wide intervals." if low < FEW_SEEDS else ".")
