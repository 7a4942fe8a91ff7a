"""Raw clickstream → private events → sessions. See ``ingest``."""

from clickintent.events.forget import Forgotten, forget
from clickintent.events.identity import identities, link_as_of
from clickintent.events.ingest import OUTPUTS, IngestResult, ingest
from clickintent.events.inspect import Inspection, inspect
from clickintent.events.prefix import events_before, first_events

__all__ = [
    "OUTPUTS",
    "Forgotten",
    "IngestResult",
    "Inspection",
    "events_before",
    "first_events",
    "forget",
    "identities",
    "ingest",
    "inspect",
    "link_as_of",
]
