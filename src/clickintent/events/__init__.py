"""Raw clickstream → private events → sessions. See ``ingest``."""

from clickintent.events.ingest import OUTPUTS, IngestResult, ingest
from clickintent.events.prefix import events_before, first_events

__all__ = ["OUTPUTS", "IngestResult", "events_before", "first_events", "ingest"]
