"""What is sent and answered, as msgspec structs: they check requests, and OpenAPI is made of them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from clickintent.serve.incoming import Event

MOST_SCORED, MOST_SENT = 1_000, 500  # events in one request

Identifier = Annotated[str, Meta(min_length=1, max_length=512)]


class ScoreRequest(Struct, forbid_unknown_fields=True):
    """The events of one session, in the order of time."""

    events: Annotated[list[Event], Meta(min_length=1, max_length=MOST_SCORED)]
    intents: Annotated[int, Meta(ge=1, le=100)] = 3  # at most so many in the answer
    embedding: bool = True  # whether to answer it


class Intent(Struct):
    """How likely it is, calibrated: of those with about 0.8, about 80 % are there, as the teacher sees it."""

    id: str
    name: str
    area: str | None
    confidence: float
    #: Sure enough to be used: at least the student's threshold, or what ``labels.min_precision`` asks for.
    sure: bool


class Versions(Struct):
    """What made the answer. The student's is a hash of its file; the taxonomy's tells of the names."""

    encoder: str
    student: str
    taxonomy: int


class Refusal(Struct):
    """An event that was not used, and why."""

    index: int  # in the request, from 0
    reason: str


class ScoreAnswer(Struct, omit_defaults=True):
    intents: list[Intent]  # the likeliest first
    abstained: bool  # none of all intents is sure
    versions: Versions
    embedding: list[float] | None = None
    refused: list[Refusal] = []


class SentEvent(Event, forbid_unknown_fields=True, kw_only=True):
    """An event of a live session. Sent again with the same ids it counts once."""

    event_id: Identifier  # unique within the visitor
    visitor_id: Identifier
    account_id: Identifier | None = None
    channel: Literal["web", "app"] = "web"
    session_key: Annotated[str, Meta(max_length=512)] | None = (
        None  # the source's own session number, for sessions.boundary = "source"
    )
    #: Decides among events of one time; where it is not given, their order in the request does.
    sequence: Annotated[int, Meta(ge=-(2**53), le=2**53)] | None = None


class EventsRequest(Struct, forbid_unknown_fields=True):
    """Events in any order, of one visitor or of many."""

    events: Annotated[list[SentEvent], Meta(min_length=1, max_length=MOST_SENT)]
    intents: Annotated[int, Meta(ge=1, le=100)] = 3


class LiveSession(Struct):
    """The session that a visitor is in, from all events that have come so far."""

    index: int  # of the first event in the request that is its visitor's
    session_id: str
    start: int  # µs
    end: int
    n_events: int
    intents: list[Intent]
    abstained: bool


class EventsAnswer(Struct):
    """accepted + duplicates + refused = events sent. What is accepted is on the disk."""

    accepted: int
    duplicates: int
    refused: list[Refusal]
    sessions: list[
        LiveSession
    ]  # one per visitor of the request who has a session on the channel that is scored
    versions: Versions
    scored: bool = True  # false: too busy to score; everything else is as it says


class IdentifyRequest(Struct, forbid_unknown_fields=True):
    """The visitor has logged in. Known from now on; sessions are linked by the rules of batch."""

    visitor_id: Identifier
    account_id: Identifier
    consent: Annotated[str, Meta(max_length=128)] | None = None  # as of an event


class IdentifyAnswer(Struct):
    linked: bool  # false: one of the two asked to be forgotten


class Supporting(Struct):
    """An event without which the intent would be less likely."""

    position: int  # in the session, from 0
    page: str
    title: str | None
    share: float  # of the confidence that is lost without it


class Evidence(Struct):
    """A session that shows the intent."""

    session_id: str
    end: int  # µs
    confidence: float
    link: str  # how it is known to be the account's: in_session, before, after
    events: list[Supporting]


class AccountIntent(Struct):
    id: str
    name: str
    area: str | None
    confidence: float  # mean over sessions; a session's weight halves with every serve.half_life_days
    sure: bool
    evidence: list[Evidence]  # the sessions that show it most, weighted by how recent they are


class AccountAnswer(Struct):
    as_of: int  # µs
    sessions: int  # of the account that are still kept
    last: int | None  # the end of the latest, µs
    embedding: list[float] | None  # of the visitor: mean over sessions, weighted in the same way
    intents: list[AccountIntent]
    versions: Versions


class ForgetAnswer(Struct):
    events: int
    links: int


class TaxonomyIntent(Struct):
    id: str
    name: str
    area: str | None
    definition: str
    includes: list[str]
    excludes: list[str]


class TaxonomyAnswer(Struct):
    version: int
    source: str
    approved: bool  # as it reads now
    approved_by: str | None
    intents: list[TaxonomyIntent]


class ReviewIntent(Struct):
    id: str
    name: str
    definition: str
    area: str | None
    includes: list[str]
    excludes: list[str]
    examples: list[str]  # redacted narratives
    sessions: int | None  # labelled with it by the teacher; null: none
    is_approved: bool  # as it reads now
    approved_by: str | None


class Proposed(Struct):
    """An intent that may be added."""

    id: str
    name: str
    definition: str
    sessions: int
    examples: list[str]


class RetiredIntent(Struct):
    id: str
    name: str
    into: list[str]  # what took its place


class Decided(Struct):
    """A line of the history."""

    at: str  # ISO 8601, UTC
    by: str
    action: str
    version: int  # of the taxonomy that it made
    intent: str | None
    what: str | None
    why: str | None


class Review(Struct):
    """The taxonomy as people decide on it: as it stands in the workspace, which may be ahead of the model."""

    version: int
    digest: str  # to be given with a decision
    approved_by: str | None  # of the whole, as it reads now
    approved_at: str | None
    intents: list[ReviewIntent]
    proposals: list[Proposed]
    retired: list[RetiredIntent]
    history: list[Decided]  # the latest first


_Words = Annotated[str, Meta(min_length=1, max_length=4_000)]


class NewPart(Struct, forbid_unknown_fields=True):
    """One of the intents that an intent is split into."""

    name: _Words
    definition: _Words


class NewDecision(Struct, forbid_unknown_fields=True):
    """One decision on one intent or proposal, or, to approve all, on the whole taxonomy."""

    digest: Annotated[str, Meta(max_length=100)]  # of the review that was looked at
    by: Annotated[str, Meta(min_length=1, max_length=200)]  # who decides; stands in the history
    action: Literal[
        "approve",
        "rename",
        "redefine",
        "move",
        "merge",
        "split",
        "reject",
        "accept",
        "dismiss",
        "approve_all",
    ]
    intent: _Words | None = None  # id
    #: New name, definition or area; the id to merge into; the name to accept under, where it is another one.
    value: _Words | None = None
    parts: Annotated[list[NewPart], Meta(max_length=50)] | None = None
    why: Annotated[str, Meta(max_length=4_000)] | None = None


class Status(Struct):
    status: str
    versions: Versions | None = None
    problem: str | None = None


class Problem(Struct, omit_defaults=True):
    """Why a request was not done."""

    code: str
    message: str
    field: str | None = None  # where in the body, such as events[3].ts


def encode(value: object) -> bytes:
    return msgspec.json.encode(value)
