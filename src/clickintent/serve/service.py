"""What the service does, apart from HTTP: score a session, keep live ones, answer for an account, forget."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from clickintent.config import Config, SessionsConfig
from clickintent.errors import ClickintentError
from clickintent.events import clean
from clickintent.serve import live
from clickintent.serve.incoming import something
from clickintent.serve.live import Session, Stored
from clickintent.serve.model import Model, Models
from clickintent.serve.scorer import Scored, Scorer
from clickintent.serve.state import BusyError, Store
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
from clickintent.taxonomy.occlusion import shares, variants

LATE = "too late: older than serve.late_hours"
NO_ID = "visitor_id or event_id says nothing"
TOO_MANY = "more events than serve.max_events_per_visitor"

_SECOND, _DAY = 1_000_000, 86_400_000_000
_INTENTS, _SESSIONS, _EVENTS = 3, 2, 3  # of an account: intents, sessions that show one, events in a session
_SESSIONS_AT_MOST, _VISITORS_AT_MOST = 200, 100  # of an account, that are looked at


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
    _followed: frozenset[int] | None = None

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
            BusyError: if the store cannot take them (all); sending them again does no harm.
        """
        model, now = self.models.current, self.clock()
        latest = now + round(self.config.serve.future_minutes * 60 * _SECOND)
        earliest = now - round(self.config.serve.late_hours * 3600 * _SECOND)
        refused: list[Refusal] = []
        stored: list[Stored] = []
        places: list[int] = []
        for index, event in enumerate(request.events):
            found = _stored(event, index, model, earliest, latest)
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
        last = model.encoder.config.max_events
        try:
            scored = await self.scorer.score([session.events(last) for _, session in current], model)
        except BusyError:  # what was accepted is stored: to send it again would only add to the load
            current, scored, is_scored = [], [], False
        else:
            is_scored = True
        return EventsAnswer(
            accepted=counts["accepted"],
            duplicates=counts["duplicate"],
            refused=refused,
            sessions=[
                _live(place, session, one, request.intents)
                for (place, session), one in zip(current, scored, strict=True)
            ],
            versions=_versions(model),
            scored=is_scored,
        )

    async def identify(self, request: IdentifyRequest) -> IdentifyAnswer:
        """Tie a visitor to an account as of now.

        Raises:
            InvalidError: if an id says nothing, or there is no consent.
        """
        if not self.models.current.gate.agrees(request.consent):
            raise InvalidError(clean.NO_CONSENT, "consent")
        visitor = self._code(request.visitor_id, "visitor_id")
        account = self._code(request.account_id, "account_id")
        if {visitor, account} & self.models.current.forgotten:
            return IdentifyAnswer(False)
        return IdentifyAnswer(await self.store.link(visitor, account, self.clock()))

    async def _sessions(self, account: int, visitors: Sequence[int]) -> list[tuple[Session, str]]:
        """The sessions that are an account's as of now, on the scored channel, and how that is known."""
        found = []
        for visitor in visitors:
            links = await self.store.accounts(visitor)
            for session in live.sessions(await self.store.events(visitor), self.config.sessions):
                owner = live.owner(session, links)
                if owner.account == account and session.channel == self.config.sessions.channel:
                    found.append((session, owner.link))
        return sorted(found, key=lambda one: one[0].end)[-_SESSIONS_AT_MOST:]

    async def account(self, raw: str) -> AccountAnswer:
        """What an account's visitors wanted lately, with the sessions and events that say so.

        Raises:
            NotFoundError: if nobody is tied to it.
            InvalidError: if the id says nothing.
        """
        account, model, now = self._code(raw, "id"), self.models.current, self.clock()
        visitors = await self.store.visitors(account)
        if not visitors:
            raise NotFoundError("no visitor is tied to this account.")
        if len(visitors) > _VISITORS_AT_MOST:
            raise InvalidError(
                f"{len(visitors):,} visitors are tied to this account: it is no person's.", "id"
            )
        owned = await self._sessions(account, visitors)
        if not owned:
            return AccountAnswer(now, 0, None, None, [], _versions(model))
        sessions, last = [session for session, _ in owned], model.encoder.config.max_events
        scored = await self.scorer.score([session.events(last) for session in sessions], model)
        half_life = self.config.serve.half_life_days
        ends = np.array([session.end for session in sessions])
        weight = np.exp2((ends - ends.max()) / _DAY / half_life)  # as ``visitor_embeddings``
        vector = weight @ np.stack([one.embedding for one in scored]) / weight.sum()
        probabilities = np.stack([one.probabilities for one in scored])
        intents = await self._account_intents(model, owned, probabilities, weight)
        return AccountAnswer(
            as_of=now,
            sessions=len(sessions),
            last=sessions[-1].end,
            embedding=vector.tolist(),
            intents=intents,
            versions=_versions(model),
        )

    async def _account_intents(
        self,
        model: Model,
        owned: Sequence[tuple[Session, str]],
        probabilities: np.ndarray,
        weight: np.ndarray,
    ) -> list[AccountIntent]:
        """The likeliest intents of an account, each with the sessions that show it most, and their events."""
        together = (weight[:, None] * probabilities).sum(axis=0) / weight.sum()
        best = model.best(together, _INTENTS)
        columns = [model.intent_ids.index(id_) for id_, _ in best]
        shown = [_showing(weight, probabilities[:, column], model.sure) for column in columns]
        rested: dict[int, np.ndarray] = {}  # session → shares of its events, for all intents
        last = model.encoder.config.max_events
        for row in {row for rows in shown for row in rows}:
            without = await self.scorer.score(variants(owned[row][0].events(last)[-last:]), model)
            rested[row] = shares(probabilities[row], np.stack([one.probabilities for one in without]))
        answer = []
        for (id_, confidence), column, rows in zip(best, columns, shown, strict=True):
            evidence = [
                Evidence(
                    owned[row][0].session_id,
                    owned[row][0].end,
                    float(probabilities[row, column]),
                    owned[row][1],
                    _supporting(owned[row][0], rested[row][:, column]),
                )
                for row in rows
            ]
            name, area = model.names.get(id_, (id_, None))
            sure = bool(confidence >= model.sure)
            answer.append(AccountIntent(id_, name, area, confidence, sure, evidence))
        return answer

    async def forget_visitor(self, raw: str) -> ForgetAnswer:
        """Remove a visitor, and refuse what comes of it later.

        Raises:
            InvalidError: if the id says nothing.
        """
        found = [await self.store.forget_visitor(code) for code in self._codes(raw)]
        return ForgetAnswer(sum(one.events for one in found), sum(one.links for one in found))

    async def forget_account(self, raw: str) -> ForgetAnswer:
        """Remove an account with the visitors that are tied to no other; of shared ones, the sessions that
        are its, and its events in others (as ``events.forget`` does in batch).

        Raises:
            InvalidError: if the id says nothing.
        """
        found = [
            await self.store.forget_account(code, partial(_belonging, code, self.config.sessions))
            for code in self._codes(raw)
        ]
        return ForgetAnswer(sum(one.events for one in found), sum(one.links for one in found))

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

    async def follow(self) -> None:
        """Remove what is kept of people whom ``clickintent forget`` has removed from the workspace."""
        forgotten, starts = self.models.current.forgotten, self._followed is None
        followed = set(self._followed or ())
        for code in sorted(forgotten - followed):
            # Whoever is new may be in a request that was let in before: the store must refuse it. When the
            # service starts there is none, and most have long gone.
            if not starts or await self.store.visitors(code):
                await self.store.forget_account(code, partial(_belonging, code, self.config.sessions))
            if not starts or await self.store.events(code) or await self.store.accounts(code):
                await self.store.forget_visitor(code)
            followed.add(code)
        self._followed = frozenset(followed)

    async def expire(self) -> int:
        """Remove what is older than ``serve.keep_days``."""
        return await self.store.expire(self.clock() - round(self.config.serve.keep_days * _DAY))

    def _codes(self, raw: str) -> list[int]:
        self._code(raw, "id")
        return self.models.current.gate.keys.given(raw)

    def _code(self, raw: str, where: str) -> int:
        code = self.models.current.gate.visitor(raw)
        if code is None:
            raise InvalidError(f"{where} says nothing", where)
        return code


def _belonging(
    account: int, config: SessionsConfig, stored: Sequence[Stored], links: Mapping[int, int]
) -> set[int] | None:
    """Which of a visitor's events go with an account; None: all, with the visitor."""
    if set(links) <= {account}:
        return None
    mine = {event.event for event in stored if event.account == account}
    for session in live.sessions(stored, config):
        if live.owner(session, links).account == account:
            mine |= {event.event for event in session.stored}
    return mine


def _stored(event: SentEvent, index: int, model: Model, earliest: int, latest: int) -> Stored | str:
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
    account = None if event.account_id is None else gate.visitor(event.account_id)
    if visitor in model.forgotten or account in model.forgotten:
        return clean.FORGOTTEN
    return Stored(
        visitor=visitor,
        event=code,
        ts=event.ts,
        sequence=index if event.sequence is None else event.sequence,
        channel=event.channel,
        session_key=0 if key is None else gate.keys.identifier(key),
        account=account,
        event_type=kept.event_type,
        page=kept.page,
        title=kept.title,
        text=kept.text,
    )


def _versions(model: Model) -> Versions:
    return Versions(model.encoder.version, model.student, model.taxonomy.version)


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


def _showing(weight: np.ndarray, probability: np.ndarray, sure: float) -> list[int]:
    """The sessions that show an intent most, recent ones first; the first even if it is not sure."""
    order = np.argsort(-weight * probability, kind="stable")[:_SESSIONS].tolist()
    return [row for n, row in enumerate(order) if n == 0 or probability[row] >= sure]


def _supporting(session: Session, share: np.ndarray) -> list[Supporting]:
    skipped = len(session.stored) - len(share)
    order = np.argsort(-share, kind="stable")[:_EVENTS].tolist()
    found = [(skipped + i, session.stored[skipped + i], float(share[i])) for i in order if share[i] > 0]
    return [Supporting(position, stored.page, stored.title, value) for position, stored, value in found]
