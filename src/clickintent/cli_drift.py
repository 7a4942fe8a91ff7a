"""What ``clickintent drift`` prints."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from clickintent.workspace import Metrics

_MEASURES = {"psi": "PSI", "js": "Jensen-Shannon", "mmd": "MMD²"}


def print_drift(found: Metrics) -> None:
    """The section ``drift`` of the metrics: a table, and the verdict as the last line."""
    windows = (
        f"{found['current_sessions']:,} sessions from {_time(found['current_from'])} to "
        f"{_time(found['current_to'])}, beside {found['reference_sessions']:,} before "
        f"{_time(found['trained_until'])}"
    )
    if found["verdict"] == "too_few":
        sys.stdout.write(
            f"too few sessions to tell: {windows}. Each side needs {found['min_sessions']:,} at hours of the "
            "week that both have (drift.min_sessions).\n"
        )
        return
    sys.stdout.write(f"{windows}\n")
    table = Table("what", "measure", box=box.SIMPLE_HEAD)
    for title in ("value", "alarm level"):
        table.add_column(title, justify="right")
    for name, measure in found["measures"].items():
        is_alarm = name in found["alarms"]
        table.add_row(
            name.replace("_", " "),
            _MEASURES[measure["measure"]],
            f"{measure['value']:.4f}",
            f"{measure['alarm']:.4f}{' !' if is_alarm else '  '}",
            style="bold" if is_alarm else None,
        )
    Console().print(table)
    if found["new_pages"]:
        sys.stdout.write(
            f"{found['new_pages']:,} pages were not seen in training; they are "
            f"{found['new_page_share']:.1%} of the events\n"
        )
    alarms = ", ".join(found["alarms"])
    sys.stdout.write(f"drift: {alarms}\n" if alarms else "no drift\n")


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ")
