"""From each method's estimates to one table of results: intervals, paired differences, share of the gain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from clickintent.downstream.metrics import Estimate

BASELINE = "page_counts"

Estimates = dict[str, Estimate]  # metric → estimate


def compare(
    methods: Mapping[str, Estimates],
    *,
    floor: str,
    ceiling: Estimates | None = None,
    gains: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """Results by method.

    Each holds every metric as ``{"value", "low", "high"}`` and, on the same resamples:
    ``difference`` and ``change_percent`` (against page counts; for log loss, less is better) and, if there
    is an oracle, ``share_of_gain`` for the metrics ``gains``: (method − floor) / (oracle − floor), None
    where oracle and floor do not differ for certain.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, estimates in methods.items():
        result: dict[str, Any] = {metric: e.interval() for metric, e in estimates.items()}
        if name != BASELINE and BASELINE in methods:
            against = methods[BASELINE]
            result["difference"] = {m: e.minus(against[m]).interval() for m, e in estimates.items()}
            result["change_percent"] = {
                m: e.percent_over(against[m]).interval() for m, e in estimates.items()
            }
        if ceiling is not None and name != floor:
            result["share_of_gain"] = {
                m: estimates[m].share_of_gain(methods[floor][m], ceiling[m]).interval() for m in gains
            }
        results[name] = result
    return results
