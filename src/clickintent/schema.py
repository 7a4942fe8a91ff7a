"""The canonical tables, as Arrow schemas.

Time is int64 microseconds since 1970 UTC everywhere, because timestamps with zones do not travel
between engines unchanged. No raw URL, IP address or user-agent string is part of any table.
"""

from __future__ import annotations

import pyarrow as pa

from clickintent.errors import MissingColumnsError

EMBEDDING_DIM = 64


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


#: One row per action of a visitor, private and checked.
EVENTS = pa.schema(
    [
        _required("event_id", pa.string()),
        _required("visitor_id", pa.string()),  # cookie or device
        pa.field("account_id", pa.string()),
        _required("ts", pa.int64()),  # µs since 1970 UTC
        _required("channel", pa.string()),  # web | app
        _required("event_type", pa.string()),
        _required("page", pa.string()),  # path template, or screen name
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),  # search term or element text, redacted
        pa.field("referrer", pa.string()),  # host only
        pa.field("campaign", pa.string()),
        pa.field("device", pa.string()),
        pa.field("country", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("session_key", pa.string()),  # the source's own session number, where it has one
        _required("source", pa.string()),
    ]
)

#: One row per page template.
PAGES = pa.schema(
    [
        _required("page", pa.string()),
        pa.field("title", pa.string()),  # the most frequent
        pa.field("text", pa.string()),
        _required("n_events", pa.int64()),
        _required("n_visitors", pa.int64()),
    ]
)

#: One event inside a session, in the order of time.
SESSION_EVENT = pa.struct(
    [
        pa.field("ts", pa.int64()),
        pa.field("event_type", pa.string()),
        pa.field("page", pa.string()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("dwell_s", pa.float64()),  # until the next event; null for the last one
        pa.field("gap_s", pa.float64()),  # since the previous event; null for the first one
        pa.field("value", pa.float64()),
    ]
)

ACCOUNT_LINKS = ("in_session", "before", "after", "ambiguous", "none")

#: One row per session. ``account_linked_at`` is when the link to the account became known: whoever uses
#: the link at time t must first ask ``account_linked_at <= t``.
SESSIONS = pa.schema(
    [
        _required("session_id", pa.string()),
        _required("visitor_id", pa.string()),
        pa.field("account_id", pa.string()),
        _required("account_link", pa.string()),  # one of ACCOUNT_LINKS
        pa.field("account_linked_at", pa.int64()),
        _required("channel", pa.string()),
        _required("start", pa.int64()),
        _required("end", pa.int64()),
        _required("n_events", pa.int64()),
        _required("is_bot", pa.bool_()),
        pa.field("bot_reason", pa.string()),
        pa.field("referrer", pa.string()),
        pa.field("campaign", pa.string()),
        pa.field("device", pa.string()),
        pa.field("country", pa.string()),
        _required("events", pa.list_(SESSION_EVENT)),
    ]
)

#: Rows that could not be used. ``position`` is the row number in the source file, from 0. The row's
#: content is not kept, because a broken row is where personal data hides.
QUARANTINE = pa.schema(
    [
        _required("source", pa.string()),
        _required("file", pa.string()),
        _required("position", pa.int64()),
        _required("reason", pa.string()),
    ]
)

#: Which account was seen in which session, and since when. Together with the sessions it says whose a session
#: was as of any time: ``clickintent.link_as_of``.
LINKS = pa.schema(
    [
        _required("session_id", pa.string()),
        _required("visitor_id", pa.string()),
        _required("account_id", pa.string()),
        _required("known_at", pa.int64()),  # µs since 1970 UTC: the account's first event in the session
    ]
)

#: Cookies and devices with their accounts: one row per visitor and account that were seen together.
IDENTITIES = pa.schema(
    [
        _required("visitor_id", pa.string()),
        _required("account_id", pa.string()),
        _required("known_at", pa.int64()),
        _required("last_at", pa.int64()),  # the latest ``known_at`` of their sessions
        _required("component", pa.string()),  # visitors and accounts that hang together, by any path
        _required("is_shared", pa.bool_()),  # the visitor has several accounts: a shared device
    ]
)

#: What became of the rows of every file: read = events + duplicates + quarantined.
FILES = pa.schema(
    [
        _required("source", pa.string()),
        _required("file", pa.string()),
        *(_required(name, pa.int64()) for name in ("read", "events", "duplicates", "quarantined")),
    ]
)

#: One row per session and intent.
LABELS = pa.schema(
    [
        _required("session_id", pa.string()),
        _required("intent_id", pa.string()),
        _required("confidence", pa.float32()),
        _required("source", pa.string()),  # llm | keywords | student | human
        _required("taxonomy_version", pa.int64()),
        pa.field("evidence", pa.string()),  # in the session's own words, redacted
        #: Places of the events that support the label, from 0, ascending. Empty: where the session came from
        #: does (its referrer or campaign). Null: nobody said, as of a student's labels.
        pa.field("supporting_events", pa.list_(pa.int64())),
    ]
)

#: What became of a session that was to be labelled. Only with ``labelled`` and ``none_of_these`` is it known
#: what it shows.
LABEL_STATES = (
    "labelled",
    "none_of_these",  # answered: no intent of the taxonomy, or none of at least ``labels.min_confidence``
    "unsupported",  # answered, twice, with intents for which the session holds no evidence
    "unanswered",
)

#: One row per session that was to be labelled. In a workspace there is a column ``weight`` too: how many
#: sessions each one that was answered stands for.
ANNOTATED = pa.schema(
    [
        _required("session_id", pa.string()),
        _required("state", pa.string()),  # one of LABEL_STATES
    ]
)


def embeddings(dim: int = EMBEDDING_DIM, encoder: str | None = None) -> pa.Schema:
    """Schema of the embeddings table: ``session_id`` and ``dim`` float32 values.

    Args:
        encoder: the version in whose space they are, which goes into the metadata.
    """
    return pa.schema(
        [
            _required("session_id", pa.string()),
            _required("embedding", pa.list_(pa.float32(), dim)),
        ],
        metadata={"encoder": encoder} if encoder else None,
    )


def conform(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Return ``table`` with exactly the columns, order and types of ``schema``; nullable ones may be absent.

    Raises:
        MissingColumnsError: if a column that must not be null is absent.
    """
    missing = [f.name for f in schema if not f.nullable and f.name not in table.column_names]
    if missing:
        raise MissingColumnsError(where, missing, table.column_names)
    columns = [
        table[f.name].cast(f.type)
        if f.name in table.column_names
        else pa.chunked_array([pa.nulls(table.num_rows, f.type)])
        for f in schema
    ]
    return pa.table(columns, schema=schema)
