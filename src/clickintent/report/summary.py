"""The report's sentences. They say what the numbers say: a loss is a loss, an interval around 0 no result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clickintent.report.results import BASELINE, Interval, Method, Result, Task, Verdict
from clickintent.report.views import Intent
from clickintent.report.words import metric_in_text, number, percent, score, signed

_VERDICTS: dict[Verdict, str] = {
    "better": "better than page counts",
    "worse": "worse than page counts",
    "unclear": "not clearly different from page counts",
}


@dataclass(frozen=True)
class Finding:
    """One task's main result, the embedding against page counts, in words.

    ``plain`` is a sentence without numbers, ``numbers`` one with them, ``more`` what else is to be said.
    """

    plain: str
    numbers: str
    more: str
    verdict: Verdict | None
    metric: str
    value: Interval
    baseline: Interval | None


def subject(task: Task, name: str) -> str:
    """What is predicted, in words."""
    if name == "tiles":
        return "which homepage tile a visitor taps"
    if task.kind == "in_session":
        return f"whether a session reaches {f'“{task.outcome}”' if task.outcome else 'its goal'}"
    return "which product, if any, a visitor takes next"


def finding(task: Task, name: str) -> Finding | None:
    """The main result of ``conversion`` or ``tiles``; None if the embedding was not measured."""
    result = task.headline
    ours = result.method("embedding") if result else None
    if result is None or ours is None or result.main not in ours.scores:
        return None
    metric, what = metric_in_text(result.main), subject(task, name)
    if task.prefixes:
        what += f" from its first {_events(task.prefixes[-1][0])}"
    value = ours.scores[result.main]
    theirs = result.method(BASELINE)
    baseline = theirs.scores.get(result.main) if theirs else None
    difference, verdict = ours.difference.get(result.main), ours.verdict(result.main)
    if baseline is None:
        plain = f"The session embedding was measured at predicting {what}; page counts were not."
        numbers = f"Its {metric} is {_with_interval(value)}."
        return Finding(plain, numbers, "", None, metric, value, None)
    numbers = f"{metric[:1].upper()}{metric[1:]} is {score(value.value)} against {score(baseline.value)}"
    if difference is None or difference.low is None or verdict is None:
        plain = f"Whether the session embedding predicts {what} better than page counts do is not known."
        return Finding(plain, f"{numbers}, without an interval.", "", None, metric, value, baseline)
    plain = {
        "better": f"The session embedding predicts {what} better than page counts do.",
        "worse": f"The session embedding predicts {what} worse than page counts do.",
        "unclear": f"The session embedding and page counts predict {what} about equally well.",
    }[verdict]
    numbers += f": a difference of {_difference(difference)}"
    numbers += ", which includes 0." if verdict == "unclear" else "."
    more = (_other_metrics(ours, result), _together(result), _others(result), _over_prefixes(task))
    return Finding(plain, numbers, " ".join(m for m in more if m), verdict, metric, value, baseline)


def who_came(sessions: int, linked: int, period: str, found: Sequence[Intent]) -> list[str]:
    """How many sessions, and what they wanted."""
    if not sessions:
        return ["No session reached the models."]
    noun, verb = ("session", "was") if sessions == 1 else ("sessions", "were")
    when = f" {'on' if ' to ' not in period else 'from'} {period}" if period else ""
    tied = f"{percent(linked / sessions)} can be tied to an account"
    sentences = [f"{number(sessions)} {noun}{when} {verb} read; {tied}."]
    used = [i for i in found if i.sessions]
    if len(used) == 1:
        sentences.append(f"They share one intent, “{used[0].name}”.")
    elif used:
        text = f"They fall into {number(len(used))} intents. “{used[0].name}” is the most frequent, with "
        text += f"{percent(used[0].share)} of sessions"
        text += (
            f"; the first three together have {percent(sum(i.share for i in used[:3]))}."
            if len(used) > 3
            else "."
        )
        sentences.append(text)
    return sentences


def _other_metrics(ours: Method, result: Result) -> str:
    found: dict[Verdict, list[str]] = {}
    for metric in result.metrics[1:]:
        verdict = ours.verdict(metric)
        if verdict:
            found.setdefault(verdict, []).append(metric_in_text(metric))
    parts = [f"{_VERDICTS[v]} by {_and(found[v])}" for v in ("better", "worse", "unclear") if v in found]
    return f"On the other measures the embedding is {'; '.join(parts)}." if parts else ""


def _together(result: Result) -> str:
    both = result.method("embedding_page_counts")
    found = both.difference.get(result.main) if both else None
    verdict = both.verdict(result.main) if both else None
    if found is None or verdict is None or found.low is None:
        return ""
    what = {
        "better": "The two together do better than page counts alone",
        "worse": "The two together do worse than page counts alone",
        "unclear": "Adding the embedding to page counts makes no clear difference",
    }[verdict]
    return f"{what} ({_difference(found)})."


def _others(result: Result) -> str:
    """What can be had for less, where it was measured: hand-made features, and no features at all."""
    by_hand = result.method("evening")
    floor = result.method("prior") or result.method("popularity")
    parts = []
    if by_hand and result.main in by_hand.scores:
        reached = score(by_hand.scores[result.main].value)
        parts.append(f"Hand-made features (order, gaps, dwell, time of day) reach {reached}")
    if floor and result.main in floor.scores:
        reached = score(floor.scores[result.main].value)
        parts.append(f"no features at all, {reached}" if parts else f"No features at all reach {reached}")
    return f"{'; '.join(parts)}." if parts else ""


def _over_prefixes(task: Task) -> str:
    """At which k the embedding is ahead or behind, where there are several."""
    if len(task.prefixes) < 2:
        return ""
    found: dict[Verdict, list[str]] = {}
    for k, result in task.prefixes:
        ours = result.method("embedding")
        verdict = ours.verdict("auc") if ours else None
        if verdict:
            found.setdefault(verdict, []).append(str(k))
    words: dict[Verdict, str] = {"better": "ahead", "worse": "behind", "unclear": "not clearly different"}
    parts = [f"{words[v]} after {_and(found[v])}" for v in ("better", "worse", "unclear") if v in found]
    return f"By number of events seen, the embedding is {'; '.join(parts)}." if parts else ""


def _difference(found: Interval) -> str:
    return f"{signed(found.value)}, 95\u202f% interval {signed(found.low)} to {signed(found.high)}"


def _with_interval(found: Interval) -> str:
    if found.low is None:
        return score(found.value)
    return f"{score(found.value)} (95\u202f% interval {score(found.low)} to {score(found.high)})"


def _events(k: int) -> str:
    return "event" if k == 1 else f"{number(k)} events"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
