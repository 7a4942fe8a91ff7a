"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from clickintent.taxonomy import Taxonomy


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows. Whatever is missing or empty is left out, or said in a line.

    Attributes:
        title: of the report.
        metrics: the content of ``metrics.json``; any section may be missing.
        sessions: all sessions; the columns ``session_id``, ``start``, ``account_link``, ``is_bot`` are used.
        top_intents: ``session_id``, ``intent_id``, ``confidence``: the most confident intent of each session
            that models see.
        taxonomy: names and definitions of those intents.
        map_points: ``session_id``, ``x``, ``y``, ``intent_id``, ``confidence``, ``narrative`` (redacted).
        outcomes: ``session_id``, ``outcome`` ("none" included) of the sessions whose outcome is known.
        made_at: when; shown in UTC.
        versions: of the packages, and whatever else tells one run from another.
    """

    title: str
    metrics: Mapping[str, Any]
    sessions: pa.Table
    top_intents: pa.Table
    taxonomy: Taxonomy | None
    map_points: pa.Table
    outcomes: pa.Table | None
    made_at: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
