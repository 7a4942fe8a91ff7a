"""``results/quality.json`` → the tables of docs/benchmarks.md.

python benchmarks/quality_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from common import RESULTS
from quality_judge import HEADS, LESS

Row = dict[str, Any]

METHODS = {
    "last_page": "last page",
    "page_counts": "page counts",
    "evening": "an evening's features",
    "tfidf_svd": "TF-IDF + SVD",
    "coles": "ptls CoLES",
    "mlm": "ptls MLM",
    "transformer": "our Transformer",
    "embedding": "**embedding**",
    "embedding_evening": "embedding + evening",
    "supervised": "supervised",
}
HEAD_NAMES = {"linear": "logistic regression", "lightgbm": "LightGBM"}
QUESTIONS = (
    "embedding − best rival embedding",
    "embedding − best embedding of others",
    "embedding − page counts",
    "embedding − evening",
    "embedding and evening − evening",
    "first 32 − all 64",
    "int8 − float32",
)


def values(rows: list[Row], head: str, metric_of: dict[str, str]) -> str:
    """Rows are tasks, columns methods."""
    found = {(r["task"], r["method"]): r["value"] for r in rows if _is(r, head, metric_of)}
    lines = [["", *METHODS.values()]]
    for task, metric in metric_of.items():
        cells = [_number(found.get((task, method))) for method in METHODS]
        lines.append([f"{task}, {metric.replace('_', ' ')}", *cells])
    return _table(lines)


def _is(row: Row, head: str, metric_of: dict[str, str]) -> bool:
    return row["metric"] == metric_of[row["task"]] and row["head"] in (head, "own")


def verdicts(differences: list[Row]) -> str:
    """Of each question and head: certainly better, not different, certainly worse; all metrics."""
    lines = [["", "head", "better", "neither", "worse", "where it is worse"]]
    for question in QUESTIONS:
        for head in HEADS:
            own = [r for r in differences if r["what"] == question and r["head"] == head]
            own = [r for r in own if r["low"] is not None]
            better, worse = [r for r in own if r["low"] > 0], [r for r in own if r["high"] < 0]
            counts = [str(n) for n in (len(better), len(own) - len(better) - len(worse), len(worse))]
            lines.append([question, HEAD_NAMES[head], *counts, "; ".join(map(_difference, worse))])
    return _table(lines)


def _difference(row: Row) -> str:
    metric = row["metric"].replace("_", " ")
    return f"{row['task']}, {metric} {row['value']:+.4f} ({row['low']:+.4f} … {row['high']:+.4f})"


def visitors(rows: list[Row], task: str) -> str:
    """One vector for a visitor's sessions so far, by half-life, beside the last session alone."""
    methods = ["embedding", *dict.fromkeys(r["method"] for r in rows if "visitor" in r["method"])]
    columns = [(head, metric) for head in HEADS for metric in ("auc", "log_loss")]
    found = {(r["method"], r["head"], r["metric"]): r for r in rows if r["task"] == task}
    lines = [["", *(f"{HEAD_NAMES[head]}, {metric.replace('_', ' ')}" for head, metric in columns)]]
    for method in methods:
        name = "last session" if method == "embedding" else method.replace("_", " ")
        lines.append([name, *(_interval(found[method, *column]) for column in columns)])
    return _table(lines)


def shares(differences: list[Row], task: str) -> str:
    """Of the oracle's gain over no features at all."""
    own = [r for r in differences if r["task"] == task and "share of oracle" in r["what"]]
    found = {(r["what"].partition(":")[0], r["head"], r["metric"]): r for r in own}
    columns = list(dict.fromkeys((h, m) for _, h, m in found if h in HEADS))
    lines = [["", *(f"{HEAD_NAMES[head]}, {metric.replace('_', ' ')}" for head, metric in columns)]]
    for method, name in METHODS.items():
        if any((method, *column) in found for column in columns):
            lines.append([name, *(_interval(found.get((method, *column))) for column in columns)])
    return _table(lines)


def retrained(rows: list[Row], task: str) -> str:
    """A head of the old embeddings on those of a new encoder."""
    methods = ["embedding", "retrained_not_aligned", "retrained_orthogonal", "retrained_aligned"]
    found = {(r["method"], r["head"], r["metric"]): r for r in rows if r["task"] == task}
    columns = list(dict.fromkeys((h, m) for _, h, m in found if h in HEADS))
    lines = [["", *(f"{HEAD_NAMES[head]}, {metric.replace('_', ' ')}" for head, metric in columns)]]
    for method in methods:
        lines.append([method.replace("_", " "), *(_interval(found.get((method, *c))) for c in columns)])
    return _table(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(row: Row | None) -> str:
    return "–" if row is None else f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def _table(lines: Iterable[list[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *body])


def main() -> None:
    found = json.loads((RESULTS / "quality.json").read_text(encoding="utf-8"))
    rows, differences = found["rows"], found["differences"]
    decisive: dict[str, str] = {}
    for row in rows:  # a task's first metric is the one that decides
        if row["metric"] not in LESS:
            decisive.setdefault(row["task"], row["metric"])
    losses = dict.fromkeys(decisive, "log_loss")
    for head in HEADS:
        for metrics in (decisive, losses):
            print(f"\n{HEAD_NAMES[head]}\n\n{values(rows, head, metrics)}")
    print(f"\n{verdicts(differences)}")
    print(f"\n{visitors(rows, 'SimBank: conversion')}")
    for task in ("SimBank: conversion", "SimBank: tile"):
        print(f"\n{task}\n\n{shares(differences, task)}")
    print(f"\n{retrained(rows, 'SimBank: intent')}")


if __name__ == "__main__":
    main()
