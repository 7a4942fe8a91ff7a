"""What the service does, apart from HTTP: score a session, keep live ones, answer for an account, forget."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from clickintent.config import Config
from clickintent.encoder import visitor_embeddings
from clickintent.errors import ClickintentError
from clickintent.events import clean
from clickintent.serve import live
from clickintent.serve.incoming import something
from clickintent.serve.live import Session, Stored
from clickintent.serve.model import Model, Models
from clickintent.serve.scorer import Scored, Scorer
from clickintent.serve.state import Store
from clickintent.serve.wire import (
    AccountAnswer,
    AccountIntent,
    EventsAnswer,
    EventsRequest,
    Evidence,
    ForgetAnswer,
    IdentifyAnswer,
    IdentifyRequest,
    Intent,
    LiveSession,
    Refusal,
    ScoreAnswer,
    ScoreRequest,
    SentEvent,
    Supporting,
    TaxonomyAnswer,
    TaxonomyIntent,
    Versions,
)
from clickintent.taxonomy.occlusion import supports

LATE = "too late: older than serve.late_hours"
NO_ID = "visitor_id or event_id says nothing"
TOO_MANY = "more events than serve.max_events_per_visitor"

_SECOND, _DAY = 1_000_000, 86_400_000_000
_INTENTS, _SESSIONS, _EVENTS = 5, 3, 3  # of an account: intents, sessions that show one, events in a session
_LOOKED_AT = 200  # sessions of an account, the latest


class InvalidError(ClickintentError):
    """A request that is well formed and cannot be done.

    Attributes:
        field: where in the body.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NotFoundError(ClickintentError):
    """Nothing is known of what was asked for."""


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass
class Service:
    """See the module.

    Attributes:
        counts: what became of events sent: ``accepted``, ``duplicate``, ``refused``.
        reasons: why events were refused.
    """

    config: Config
    models: Models
    store: Store
    scorer: Scorer
    clock: Callable[[], int] = now_us
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    async def score(self, request: ScoreRequest) -> ScoreAnswer:
        """Score one session; nothing of it is kept.

        Raises:
            InvalidError: if no event can be used, or they are not in the order of time.
            BusyError: if too many wait.
        """
        model = self.models.current
        latest = self.clock() + round(self.config.serve.future_minutes * 60 * _SECOND)
        events, refused, before = [], [], clean.EARLIEST
        for index, event in enumerate(request.events):
            kept = model.gate.keep(event, latest)
            if isinstance(kept, str):
                refused.append(Refusal(index, kept))
                continue
            if event.ts < before:
                raise InvalidError("events must be in the order of time", f"events[{index}].ts")
            before = event.ts
            events.append(live.event(event.ts, kept))
        if not events:
            raise InvalidError(f"no event can be used; the first: {refused[0].reason}", "events[0]")
        (scored,) = await self.scorer.score([events], model)
        intents, abstained = _intents(scored, request.intents)
        embedding = scored.embedding.tolist() if request.embedding else None
        return ScoreAnswer(intents, abstained, _versions(model), embedding, refused)

    async def append(self, request: EventsRequest) -> EventsAnswer:
        """Keep events, and score the sessions that their visitors are in.

        Raises:
            BusyError: if the store cannot take them; nothing is kept.
        """
        model, now = self.models.current, self.clock()
        latest = now + round(self.config.serve.future_minutes * 60 * _SECOND)
        earliest = now - round(self.config.serve.late_hours * 3600 * _SECOND)
        refused: list[Refusal] = []
        stored: list[Stored] = []
        places: list[int] = []
        for index, event in enumerate(request.events):
            found = _stored(event, model, earliest, latest)
            if isinstance(found, str):
                refused.append(Refusal(index, found))
            else:
                stored.append(found)
                places.append(index)
        first: dict[int, int] = {}
        for place, one in zip(places, stored, strict=True):
            first.setdefault(one.visitor, place)
        counts: Counter[str] = Counter()
        current: list[tuple[int, Session]] = []
        if stored:
            appended = await self.store.append(stored)
            for place, outcome in zip(places, appended.outcomes, strict=True):
                if outcome in ("forgotten", "too many"):
                    refused.append(Refusal(place, clean.FORGOTTEN if outcome == "forgotten" else TOO_MANY))
                else:
                    counts[outcome] += 1
            for visitor, place in first.items():
                found_sessions = live.sessions(appended.visitors[visitor], self.config.sessions)
                session = live.current(found_sessions, self.config.sessions.channel)
                if session is not None:
                    current.append((place, session))
        refused.sort(key=lambda refusal: refusal.index)
        self.counts.update(counts)
        self.counts["refused"] += len(refused)
        self.reasons.update(refusal.reason for refusal in refused)
        scored = await self.scorer.score([session.events for _, session in current], model)
        return EventsAnswer(
            accepted=counts["accepted"],
            duplicates=counts["duplicate"],
            refused=refused,
            sessions=[
                _live(place, session, one, request.intents)
                for (place, session), one in zip(current, scored, strict=True)
            ],
            versions=_versions(model),
        )

    async def identify(self, request: IdentifyRequest) -> IdentifyAnswer:
        """Tie a visitor to an account as of now.

        Raises:
            InvalidError: if an id says nothing.
        """
        visitor = self._code(request.visitor_id, "visitor_id")
        account = self._code(request.account_id, "account_id")
        return IdentifyAnswer(await self.store.link(visitor, account, self.clock()))

    async def sessions_of(self, account: int) -> list[tuple[Session, str]]:
        """The sessions that are an account's as of now, on the scored channel, and how that is known."""
        found = []
        for visitor in await self.store.visitors(account):
            links = await self.store.accounts(visitor)
            for session in live.sessions(await self.store.events(visitor), self.config.sessions):
                owner = live.owner(session, links)
                if owner.account == account and session.channel == self.config.sessions.channel:
                    found.append((session, owner.link))
        return sorted(found, key=lambda one: one[0].end)[-_LOOKED_AT:]

    async def account(self, raw: str) -> AccountAnswer:
        """What an account's visitors wanted lately, with the sessions and events that say so.

        Raises:
            NotFoundError: if nobody is tied to it.
            InvalidError: if the id says nothing.
        """
        account, model, now = self._code(raw, "id"), self.models.current, self.clock()
        if not await self.store.visitors(account):
            raise NotFoundError("no visitor is tied to this account.")
        owned = await self.sessions_of(account)
        if not owned:
            return AccountAnswer(now, 0, None, None, [], _versions(model))
        sessions = [session for session, _ in owned]
        scored = await self.scorer.score([session.events for session in sessions], model)
        half_life = self.config.serve.half_life_days
        ends = pa.array([session.end for session in sessions], pa.int64())
        table = pa.table({"account_id": pa.array(["it"] * len(sessions)), "end": ends})
        embeddings = np.stack([one.embedding for one in scored])
        vector = visitor_embeddings(table, embeddings, key="account_id", half_life_days=half_life)
        age = (now - ends.to_numpy()) / _DAY
        weight = np.exp2(-(age - age.min()) / half_life)
        probabilities = np.stack([one.probabilities for one in scored])
        intents = await asyncio.to_thread(_account_intents, model, owned, probabilities, weight)
        return AccountAnswer(
            as_of=now,
            sessions=len(sessions),
            last=sessions[-1].end,
            embedding=vector["embedding"][0].as_py(),
            intents=intents,
            versions=_versions(model),
        )

    async def forget_visitor(self, raw: str) -> ForgetAnswer:
        """Remove a visitor, and refuse what comes of it later.

        Raises:
            InvalidError: if the id says nothing.
        """
        found = await self.store.forget(visitors=[self._code(raw, "id")], account=None)
        return ForgetAnswer(found.events, found.links)

    async def forget_account(self, raw: str) -> ForgetAnswer:
        """Remove an account with the visitors that are tied to no other; of shared ones, its own events.

        Raises:
            InvalidError: if the id says nothing.
        """
        account = self._code(raw, "id")
        own = [v for v in await self.store.visitors(account) if len(await self.store.accounts(v)) == 1]
        found = await self.store.forget(visitors=own, account=account)
        return ForgetAnswer(found.events, found.links)

    def taxonomy(self) -> TaxonomyAnswer:
        """The taxonomy in use."""
        found = self.models.current.taxonomy
        return TaxonomyAnswer(
            version=found.version,
            source=found.source,
            approved=found.is_approved,
            approved_by=found.approved_by,
            intents=[
                TaxonomyIntent(i.id, i.name, i.area, i.definition, list(i.includes), list(i.excludes))
                for i in found.intents
            ],
        )

    async def expire(self) -> int:
        """Remove what is older than ``serve.keep_days``."""
        return await self.store.expire(self.clock() - round(self.config.serve.keep_days * _DAY))

    def _code(self, raw: str, where: str) -> int:
        code = self.models.current.gate.visitor(raw)
        if code is None:
            raise InvalidError(f"{where} says nothing", where)
        return code


def _stored(event: SentEvent, model: Model, earliest: int, latest: int) -> Stored | str:
    gate = model.gate
    visitor = gate.visitor(event.visitor_id)
    code = gate.event(event.visitor_id, event.event_id)
    if visitor is None or code is None:
        return NO_ID
    kept = gate.keep(event, latest)
    if isinstance(kept, str):
        return kept
    if event.ts < earliest:
        return LATE
    key = something(event.session_key)
    return Stored(
        visitor=visitor,
        event=code,
        ts=event.ts,
        sequence=event.sequence,
        channel=event.channel,
        session_key=0 if key is None else gate.keys.identifier(key),
        account=None if event.account_id is None else gate.visitor(event.account_id),
        event_type=kept.event_type,
        page=kept.page,
        title=kept.title,
        text=kept.text,
    )


def _versions(model: Model) -> Versions:
    return Versions(model.encoder.version, model.taxonomy.version)


def _intents(scored: Scored, most: int) -> tuple[list[Intent], bool]:
    model = scored.model
    intents = [
        Intent(id_, *model.names.get(id_, (id_, None)), confidence, confidence >= model.sure)
        for id_, confidence in model.best(scored.probabilities, most)
    ]
    return intents, not intents[0].sure


def _live(index: int, session: Session, scored: Scored, most: int) -> LiveSession:
    intents, abstained = _intents(scored, most)
    return LiveSession(
        index, session.session_id, session.start, session.end, len(session.stored), intents, abstained
    )


def _account_intents(
    model: Model, owned: Sequence[tuple[Session, str]], probabilities: np.ndarray, weight: np.ndarray
) -> list[AccountIntent]:
    """The likeliest intents of an account, each with the sessions that show it most, and their events."""
    together = (weight[:, None] * probabilities).sum(axis=0) / weight.sum()
    answer = []
    for id_, confidence in model.best(together, _INTENTS):
        column = model.intent_ids.index(id_)
        strength = weight * probabilities[:, column]
        evidence: list[Evidence] = []
        for row in np.argsort(-strength, kind="stable")[:_SESSIONS].tolist():
            session, link = owned[row]
            if probabilities[row, column] < model.sure and evidence:
                continue
            evidence.append(
                Evidence(
                    session.session_id,
                    session.end,
                    float(probabilities[row, column]),
                    link,
                    _supporting(model, session, column),
                )
            )
        name, area = model.names.get(id_, (id_, None))
        sure = bool(confidence >= model.sure)
        answer.append(AccountIntent(id_, name, area, confidence, sure, evidence))
    return answer


def _supporting(model: Model, session: Session, column: int) -> list[Supporting]:
    last = model.encoder.config.max_events
    skipped = max(len(session.stored) - last, 0)
    stored = session.stored[skipped:]
    shares = supports(session.events[skipped:], column, lambda variants: model.score(variants)[1])
    order = np.argsort(-shares, kind="stable")[:_EVENTS].tolist()
    return [
        Supporting(skipped + i, stored[i].page, stored[i].title, float(shares[i]))
        for i in order
        if shares[i] > 0
    ]
