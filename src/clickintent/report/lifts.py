"""Intents against what was taken afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clickintent.report.views import Intent, Sessions

_PRODUCTS = 14
_FEW = 5  # conversions, seen or expected: below this a ratio says nothing


@dataclass(frozen=True)
class Cell:
    """One intent and one product."""

    intent: Intent
    product: str
    sessions: int  # with this intent and a known outcome
    taken: int
    rate: float
    lift: float | None  # rate over the rate of all sessions; None if too few to tell


@dataclass(frozen=True)
class Grid:
    intents: tuple[Intent, ...]  # rows, so that intents of one product stand together
    products: tuple[str, ...]  # columns, the most taken first
    cells: tuple[Cell, ...]
    left_out: int  # products taken too rarely to get a column


def products_taken(sessions: Sessions) -> dict[str, int]:
    """How many sessions with a known outcome led to each product, most first."""
    names, counts = np.unique(sessions.outcome.astype(str), return_counts=True)
    found = {str(n): int(c) for n, c in zip(names, counts, strict=True) if n not in ("", "none")}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def grid(sessions: Sessions, found: Sequence[Intent]) -> Grid | None:
    """Conversion rates by intent and product against the rate of all; None if nothing was taken."""
    taken = products_taken(sessions)
    known = sessions.outcome != ""
    rows = [i for i in found if i.known]
    if not taken or not rows:
        return None
    products = [p for p, n in taken.items() if n >= _FEW][:_PRODUCTS] or list(taken)[:1]
    total = int(known.sum())
    index = {intent_id: i for i, intent_id in enumerate(sessions.intent_ids)}
    cells: dict[str, list[Cell]] = {}
    for intent in rows:
        outcome = sessions.outcome[known & (sessions.intent == index[intent.id])]
        cells[intent.id] = [_cell(intent, p, outcome, taken[p] / total) for p in products]

    def place(intent: Intent) -> tuple[int, float]:
        lifts = [c.lift or 0.0 for c in cells[intent.id]]
        best = int(np.argmax(lifts))
        return (best, -lifts[best]) if lifts[best] > 1 else (len(products), -float(intent.known))

    rows.sort(key=place)
    return Grid(
        tuple(rows),
        tuple(products),
        tuple(cell for intent in rows for cell in cells[intent.id]),
        len(taken) - len(products),
    )


def _cell(intent: Intent, product: str, outcome: np.ndarray, overall: float) -> Cell:
    n, taken = len(outcome), int((outcome == product).sum())
    enough = max(taken, n * overall) >= _FEW
    return Cell(intent, product, n, taken, taken / n, taken / n / overall if enough else None)
