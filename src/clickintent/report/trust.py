"""How far the labels can be trusted: the student's section of ``metrics.json``, whatever it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickintent.report import vega
from clickintent.report.vega import Rows, Spec
from clickintent.report.words import is_number, number, percent, score, signed

_WEAKEST = 5  # intents shown
_FEW = 10  # sessions of an intent that its F1 is worth showing from


@dataclass(frozen=True)
class Abstention:
    """What being so sure costs."""

    wanted: str
    cutoff: str
    precision: str
    labelled: str


@dataclass(frozen=True)
class Weak:
    """An intent that the student tells badly."""

    name: str
    f1: str
    precision: str
    recall: str
    support: str


@dataclass(frozen=True)
class Trust:
    sentence: str
    charts: dict[str, Spec]
    abstention: tuple[Abstention, ...] = ()
    weakest: tuple[Weak, ...] = ()
    ece: str = ""
    doubling: str = ""  # what the last doubling of the labels bought


def view(student: Any, names: Mapping[str, str]) -> Trust | None:
    """Charts and tables of a student; None if it was not measured.

    Args:
        names: of the intents, by id.
    """
    if not isinstance(student, Mapping) or not is_number(student.get("micro_f1_vs_teacher")):
        return None
    bins = _rows(student, "reliability", ("n", "confidence", "right"))
    curve = _rows(student, "learning_curve", ("n_train", "micro_f1_vs_teacher"))
    charts = {}
    if len(bins) > 1:
        charts["reliability"] = _reliability(bins)
    if len(curve) > 1:
        charts["learning"] = _learning(curve)
    sentence = (
        f"On {number(student.get('n_test'))} labelled sessions that it was not trained on, the student has a "
        f"micro F1 of {score(student['micro_f1_vs_teacher'])} against its teacher"
    )
    agreement = student.get("top1_agreement")
    if is_number(agreement):
        sentence += f" and names the same first intent in {percent(agreement)} of them"
    return Trust(
        sentence=sentence + ".",
        charts=charts,
        abstention=tuple(_abstention(student)),
        weakest=tuple(_weakest(student, names)),
        ece=score(student["ece"]) if is_number(student.get("ece")) else "",
        doubling=_doubling(curve),
    )


def _rows(student: Mapping[str, Any], key: str, fields: Sequence[str]) -> list[Mapping[str, Any]]:
    rows = student.get(key)
    return [row for row in rows if all(is_number(row.get(f)) for f in fields)] if rows else []


def _doubling(curve: Sequence[Mapping[str, Any]]) -> str:
    if len(curve) < 2:
        return ""
    before, after = curve[-2], curve[-1]
    gain = signed(after["micro_f1_vs_teacher"] - before["micro_f1_vs_teacher"])
    labels = f"from {number(before['n_train'])} to {number(after['n_train'])} labelled sessions"
    return f"The last step, {labels}, changed it by {gain}."


def _abstention(student: Mapping[str, Any]) -> list[Abstention]:
    rows = _rows(student, "abstention", ("wanted", "sessions_labelled"))
    return [
        Abstention(
            percent(row["wanted"]),
            score(row["cutoff"]) if is_number(row.get("cutoff")) else "not reached",
            percent(row.get("precision")),
            percent(row["sessions_labelled"]),
        )
        for row in rows
    ]


def _weakest(student: Mapping[str, Any], names: Mapping[str, str]) -> list[Weak]:
    by_id = student.get("intents")
    if not isinstance(by_id, Mapping):
        return []
    known = [
        (id_, row)
        for id_, row in by_id.items()
        if is_number(row.get("f1")) and is_number(row.get("support")) and row["support"] >= _FEW
    ]
    known.sort(key=lambda pair: pair[1]["f1"])
    return [
        Weak(
            names.get(id_, id_),
            score(row["f1"]),
            percent(row.get("precision")),
            percent(row.get("recall")),
            number(row["support"]),
        )
        for id_, row in known[:_WEAKEST]
    ]


def _reliability(bins: Sequence[Mapping[str, Any]]) -> Spec:
    """How often the first intent is the teacher's, by how sure the student is; the diagonal is honest."""
    alt = vega.altair()
    table: Rows = [
        {
            "confidence": row["confidence"],
            "right": row["right"],
            "said": percent(row["confidence"]),
            "true": percent(row["right"]),
            "sessions": number(row["n"]),
        }
        for row in bins
    ]
    share = {"type": "quantitative", "scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="~%")}
    x, y = {"title": "The student's confidence", **share}, {"title": "The teacher agrees", **share}
    tips = vega.tooltip(said="Confidence", true="The teacher agrees", sessions="Sessions")
    base = vega.chart()
    diagonal = (
        base.transform_aggregate(n="count()")
        .transform_calculate(zero="0", one="1")
        .mark_rule(strokeDash=[3, 3], opacity=0.7)
        .encode(x=alt.X("zero:Q", **x), x2="one:Q", y=alt.Y("zero:Q", **y), y2="one:Q")
    )
    line = base.mark_line(strokeWidth=1.5, color="var(--accent)")
    point = base.mark_point(size=70, filled=True, opacity=1, color="var(--accent)")
    at = {"x": alt.X("confidence", **x), "y": alt.Y("right", **y)}
    chart = alt.layer(diagonal, line.encode(**at), point.encode(**at, tooltip=tips))
    return vega.specify(chart, table, height=300)


def _learning(curve: Sequence[Mapping[str, Any]]) -> Spec:
    """F1 against the teacher by the number of labelled sessions."""
    alt = vega.altair()
    table: Rows = [
        {
            "n": row["n_train"],
            "f1": row["micro_f1_vs_teacher"],
            "label": score(row["micro_f1_vs_teacher"]),
            "labels": number(row["n_train"]),
        }
        for row in curve
    ]
    x = {
        "type": "quantitative",
        "title": "Labelled sessions",
        "scale": alt.Scale(type="log", nice=False, padding=24),
        "axis": alt.Axis(format=",d", values=[row["n"] for row in table], grid=False),
    }
    y = {
        "type": "quantitative",
        "title": "Micro F1 against the teacher",
        "scale": alt.Scale(zero=False, padding=24),
        "axis": alt.Axis(tickCount=5),
    }
    tips = vega.tooltip(labels="Labelled sessions", label="Micro F1")
    base = vega.chart().encode(x=alt.X("n", **x), y=alt.Y("f1", **y))
    chart = alt.layer(
        base.mark_line(strokeWidth=1.5, color="var(--accent)"),
        base.mark_point(size=70, filled=True, opacity=1, color="var(--accent)").encode(tooltip=tips),
        base.mark_text(dy=-13).encode(text=vega.text("label")),
    )
    return vega.specify(chart, table, height=300)
