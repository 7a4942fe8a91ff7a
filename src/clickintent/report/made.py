"""How the run was made: facts by stage, for the last section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clickintent.report.words import is_number, number, percent, score, seconds

Facts = list[tuple[str, str]]


def facts(metrics: Mapping[str, Any]) -> list[tuple[str, Facts]]:
    """Stage → what is known of it; stages of which nothing is known are left out."""
    section = {k: v for k, v in metrics.items() if isinstance(v, Mapping)}
    found = [
        ("Encoder", _encoder(section.get("encoder", {}))),
        ("Embedding", _embedding(section.get("embed", {}))),
        ("Labels", _labels(section.get("taxonomy", {}), section.get("labels", {}))),
        ("Student", _student(section.get("student", {}))),
    ]
    kept = [(name, [(k, v) for k, v in pairs if v]) for name, pairs in found]
    return [(name, pairs) for name, pairs in kept if pairs]


def _encoder(encoder: Mapping[str, Any]) -> Facts:
    following = encoder.get("next_page")
    following = following if isinstance(following, Mapping) else {}
    recall = []
    for k in (1, 5):
        ours, floor = following.get(f"recall_at_{k}"), following.get(f"floor_recall_at_{k}")
        if is_number(ours):
            recall.append((f"Next page, recall@{k}", f"{percent(ours)}, best simple count {percent(floor)}"))
    return [
        ("Trained on", _number(encoder, "sessions", "sessions")),
        ("before", str(encoder.get("split_at") or "")),
        ("Parameters", _number(encoder, "parameters")),
        ("Pages known", _number(encoder, "pages")),
        ("Training time", _number(encoder, "seconds", form=seconds)),
        *recall,
    ]


def _embedding(embed: Mapping[str, Any]) -> Facts:
    return [
        ("Sessions", _number(embed, "sessions")),
        ("Numbers for each", _number(embed, "dim")),
        ("Speed", _number(embed, "sessions_per_second", "sessions a second")),
    ]


def _labels(taxonomy: Mapping[str, Any], labels: Mapping[str, Any]) -> Facts:
    drafted = {
        "llm": f"language model {taxonomy.get('model') or ''}".strip(),
        "keywords": "keyword namer",
        "human": "a person",
    }
    model = {k: v for k, v in labels.items() if is_number(v)}
    return [
        ("Taxonomy", f"version {taxonomy['version']}" if taxonomy.get("version") else ""),
        ("Drafted by", drafted.get(str(taxonomy.get("source")), "")),
        ("Approved by", str(taxonomy.get("approved_by") or ("nobody yet" if taxonomy else ""))),
        ("Sessions annotated", _number(labels, "sessions")),
        ("Fitting no intent", _number(labels, "none_of_these")),
        ("Without an answer", _number(labels, "unanswered")),
        ("With no supported intent", _number(labels, "unsupported")),
        ("Labels a session", _number(labels, "labels_per_labelled_session", form=lambda v: f"{v:.1f}")),
        ("Language model calls", _number(model, "calls")),
        ("Cost of the calls", f"{model['cost']:,.2f}" if model.get("cost") else ""),
    ]


def _student(student: Mapping[str, Any]) -> Facts:
    return [
        ("Trained on", _number(student, "n_train", "sessions")),
        ("Checked on", _number(student, "n_test", "sessions")),
        ("Micro F1 against the teacher", _number(student, "micro_f1_vs_teacher", form=score)),
        ("Same first intent", _number(student, "top1_agreement", form=percent)),
        ("Brier score", _number(student, "brier", form=lambda v: score(v, 4))),
        ("Calibration error of the first intent", _number(student, "ece", form=score)),
        ("Sessions with a label", _number(student, "sessions_labelled")),
        ("Labels given", _number(student, "labels")),
    ]


def _number(
    section: Mapping[str, Any], key: str, unit: str = "", *, form: Callable[[Any], str] = number
) -> str:
    value = section.get(key)
    return f"{form(value)} {unit}".strip() if is_number(value) else ""
