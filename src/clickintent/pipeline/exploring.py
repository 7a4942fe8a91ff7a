"""The stage ``explore``: the folder ``explorer/``, a complete static site."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent._version import __version__
from clickintent.config import AccountConversion, Config, InSessionConversion
from clickintent.errors import ArtifactError, EmptyInputError
from clickintent.explorer import details, folder, points, shown, support
from clickintent.explorer.details import Counts, Labels
from clickintent.explorer.folder import Export
from clickintent.explorer.layout import lay_out
from clickintent.explorer.overview import overview
from clickintent.explorer.review import review_document
from clickintent.explorer.sessions import COLUMNS, NONE, Read, Sessions, columns, read
from clickintent.pipeline import contract
from clickintent.pipeline.inputs import embedding_matrix, load_encoder, model_dataset, needed
from clickintent.pipeline.known import account_outcomes_of, outcome_name, outside_files, top_intents
from clickintent.pipeline.reviewing import PROPOSALS
from clickintent.taxonomy import IntentLabeler, Taxonomy
from clickintent.taxonomy.content import site_names, title_of
from clickintent.workspace import Metrics, Workspace, atomically, file_fingerprint, fingerprint

NAME = "explorer"
_BATCH = 20_000  # sessions read at once
_DRIFT = "drift.json"


def explore(workspace: Workspace, config: Config, force: bool) -> Metrics:
    def work() -> Metrics:
        made = _Making(workspace, config, fingerprint(*made_from)[:12])
        export = made.export()
        with atomically(workspace.path(NAME)) as temporary:
            folder.write(export, temporary)
            made.clock.lap("write")
            size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        return {
            "explorer": {
                "sessions": made.sessions.n,
                "shown": len(made.shown),
                "bytes": size,
                "seconds": {name: round(spent, 2) for name, spent in made.clock.spent.items()},
            }
        }

    beside = [contract.TAXONOMY, contract.HISTORY, PROPOSALS, _DRIFT, "labels", "embeddings"]
    made_from = [
        __version__,
        config.explore,
        config.report.title,
        config.seed,
        config.privacy.min_people,
        config.labels.min_precision,
        config.labels.min_confidence,
        config.sessions.channel,
        config.conversion,
        [file_fingerprint(path) for path in outside_files(config)],
        *(file_fingerprint(path) for name in beside if (path := workspace.path(name)).exists()),
        file_fingerprint(folder.PAGE),
        *(workspace.record(stage) for stage in ("ingest", "embed", "taxonomy", "label", "distill")),
    ]
    outputs = [f"{NAME}/index.html", f"{NAME}/data/overview.json"]
    return workspace.stage("explore", work, made_from=made_from, outputs=outputs, force=force)


@dataclass
class _Clock:
    """Seconds by step."""

    spent: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._since
        self._since = now


@dataclass
class _Making:
    """What the export is made of, each part once."""

    workspace: Workspace
    config: Config
    run: str  # the same for the same inputs
    clock: _Clock = field(default_factory=_Clock)

    def export(self) -> Export:
        individual, least = self.config.explore.sessions, self.config.privacy.min_people
        counts = self.counts
        pages, kinds = counts.visits.pages, []
        told = [
            details.detail(counts, i, self.named.get(id_)) for i, id_ in enumerate(counts.sessions.intent_ids)
        ]
        self.clock.lap("details")
        used = [page for one in told for page in details.pages_in(one)]
        labels = shown.LABELS.empty_table()
        outcomes: list[str | None] = []
        own = counts.visits.take(self.shown) if individual else None
        if own is not None:
            used += np.unique(own.page).tolist()
            kinds = shown.event_types(self.reading.events)
            labels = self._shown_labels(told)
            names = np.array([*counts.sessions.outcomes, None], dtype=object)
            outcomes = names[counts.sessions.outcome[self.shown]].tolist()
        number = shown.numbers_of(counts.visits, np.asarray(used, np.int64))
        listed = [pages[place] for place in np.argsort(number)[(number < 0).sum() :].tolist()]
        site = site_names(title for _, title in pages)
        point_columns, binaries = self._points()
        about = {
            "title": self.config.report.title,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": self._versions(),
            "outcome": _in_words(self.config),
            "shown": len(self.shown),
            "points": point_columns,
            "shard": self.config.explore.shard,
        }
        documents = {
            "pages.json": {
                "pages": [{"page": p, "title": title_of(t, site) if t else None} for p, t in listed],
                "types": kinds,
            },
            "review.json": review_document(self.workspace, self.config),
        }
        self.clock.lap("overview")
        drift = self.workspace.path(_DRIFT)
        if drift.exists():
            documents[_DRIFT] = _enough(json.loads(drift.read_text(encoding="utf-8")), least)
        return Export(
            run=self.run,
            overview=overview(
                counts.sessions, self.taxonomy, about, min_people=least, sure=self._sure_from()
            ),
            documents=documents,
            intents={
                id_: details.renumbered(one, lambda page: int(number[page]))
                for id_, one in zip(counts.sessions.intent_ids, told, strict=True)
            },
            shards=shown.shards(
                self.reading.table.take(pa.array(self.shown)),
                self.reading.events,
                number[own.page],
                outcomes,
                labels,
                kinds,
                self.config.explore.shard,
            )
            if own is not None
            else (),
            binaries=binaries,
        )

    @cached_property
    def reading(self) -> Read:
        dataset, keep = model_dataset(self.workspace, self.config, "explore")
        n = dataset.count_rows(filter=keep)
        if n == 0:
            raise EmptyInputError(
                f"explore: no session of channel {self.config.sessions.channel!r} that is not a bot; "
                "see the sections 'events' and 'sessions' of metrics.json, and sessions.channel."
            )
        batches = dataset.to_batches([*COLUMNS, "events"], filter=keep, batch_size=_BATCH)
        outcome = self.config.conversion
        found = read(
            (batch for batch in batches if batch.num_rows),
            n,
            self.config.explore.max_sessions if self.config.explore.sessions else 0,
            outcome if isinstance(outcome, InSessionConversion) else None,
            seed=self.config.seed,
        )
        self.clock.lap("read")
        return found

    @property
    def shown(self) -> np.ndarray:
        return self.reading.shown

    @cached_property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.load(needed(self.workspace, contract.TAXONOMY, "explore", "taxonomy draft"))

    @cached_property
    def named(self) -> dict[str, Any]:
        return {intent.id: intent for intent in self.taxonomy.intents}

    @cached_property
    def student(self) -> pa.Table:
        return pq.read_table(needed(self.workspace, "labels/student.parquet", "explore", "distill"))

    @cached_property
    def labeler(self) -> IntentLabeler | None:
        path = self.workspace.path("student")
        return IntentLabeler.load(path) if path.exists() else None

    def _sure_from(self) -> float | None:
        """From there on an intent is given where sessions are scored (``serve.model``)."""
        labels, student = self.config.labels, self.labeler
        if student is None:
            return None
        wanted = labels.min_precision
        return max(student.cutoff(wanted), labels.min_confidence) if wanted else student.threshold

    @cached_property
    def teacher(self) -> pa.Table | None:
        path = self.workspace.path("labels/teacher.parquet")
        return pq.read_table(path) if path.exists() else None

    @cached_property
    def sessions(self) -> Sessions:
        table = self.reading.table
        outcome, names = self._outcomes(table)
        ids = self.taxonomy.intent_ids
        by_account = isinstance(self.config.conversion, AccountConversion)
        found = columns(table, top_intents(self.student), ids, outcome, names, by_account=by_account)
        self.clock.lap("labels")
        return found

    def _outcomes(self, table: pa.Table) -> tuple[np.ndarray, tuple[str, ...]]:
        """Of each session, the place of what followed, −1 where it is not known."""
        none, unknown = NONE, np.full(table.num_rows, -1, np.int64)
        match self.config.conversion:
            case InSessionConversion() as outcome:
                before, reached = self.reading.before, self.reading.reached
                assert before is not None
                assert reached is not None
                return np.where(before > 0, reached.astype(np.int64), -1), (none, outcome_name(outcome))
            case AccountConversion() as outcome:
                found = account_outcomes_of(self.config, outcome, table)
                if found is None:
                    return unknown, (none,)
                names = (none, *sorted(set(found["outcome"].unique().to_pylist()) - {none}))
                at = pc.index_in(table["session_id"], value_set=found["session_id"].combine_chunks())
                place = pc.index_in(found["outcome"].take(at), value_set=pa.array(names, pa.string()))
                return pc.fill_null(place, -1).to_numpy().astype(np.int64), names
        return unknown, (none,)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(n, dim) of all sessions."""
        stored = ds.dataset(needed(self.workspace, "embeddings", "explore", "embed")).to_table()
        at = pc.index_in(self.reading.table["session_id"], value_set=stored["session_id"].combine_chunks())
        if at.null_count:
            raise ArtifactError(
                f"explore: {at.null_count:,} sessions have no embedding; run 'clickintent embed' again."
            )
        found: np.ndarray = embedding_matrix(stored)[at.to_numpy()]
        self.clock.lap("embeddings")
        return found

    @cached_property
    def counts(self) -> Counts:
        sessions, ids = self.sessions, self.reading.table["session_id"].combine_chunks()
        teacher = np.full(sessions.n, -1, np.int64)
        if self.teacher is not None:
            row, intent = _places(top_intents(self.teacher), ids, sessions.intent_ids)
            teacher[row] = intent
        return Counts(
            sessions=sessions,
            visits=self.reading.visits,
            embeddings=self.embeddings,
            labels=Labels(_places(self.student, ids, sessions.intent_ids), teacher),
            shown=self.shown,
            min_people=self.config.privacy.min_people,
            seed=self.config.seed,
        )

    def _points(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        individual = self.config.explore.sessions
        vectors = self.embeddings[self.shown]
        xy = np.zeros((0, 2), np.float32)
        if individual:
            xy, _ = lay_out(vectors, self.config.explore.landmarks, seed=self.config.seed)
        self.clock.lap("layout")
        table = self.reading.table.select(["session_id", "n_events"]).take(pa.array(self.shown))
        columns, names = points.columns_of(
            self.sessions,
            self.shown,
            xy,
            table["n_events"].to_numpy(),
            min_people=self.config.privacy.min_people,
        )
        raw, described = points.pack(
            columns, names if individual else {}, vectors.shape[1] if individual else None
        )
        binaries = {
            "points.bin": raw,
            "ids.bin": points.ids(table["session_id"].to_pylist()),
            "vectors.bin": points.quantized(vectors),
        }
        self.clock.lap("points")
        return described, binaries if individual else {}

    def _shown_labels(self, told: Sequence[dict[str, Any]]) -> pa.Table:
        """The labels of the shown sessions; of some, the student's with the events that they rest on."""
        ids = self.reading.table["session_id"].combine_chunks().take(pa.array(self.shown))
        names = self.sessions.intent_ids
        found = shown.labels_of(self.student, ids, names)
        self.clock.lap("labels")
        found = shown.with_events(found, self._supported(told, found))
        self.clock.lap("support")
        if self.teacher is not None:
            found = shown.in_order(found, shown.labels_of(self.teacher, ids, names))
        self.clock.lap("labels")
        return found

    def _supported(self, told: Sequence[dict[str, Any]], labels: pa.Table) -> dict[int, tuple[int, ...]]:
        """The events behind the student's most confident labels of some sessions, by the labels' places."""
        most, student = self.config.explore.supported, self.labeler
        if not most or student is None or not self.workspace.path("encoder").exists():
            return {}
        encoder = load_encoder(self.workspace, "explore")
        rows, places = shown.surest(labels)
        place = dict(zip(rows.tolist(), places.tolist(), strict=True))
        listed = [row for one in told for row in (*one["surest"], *one["some"])]  # what people open first
        others = np.random.default_rng(self.config.seed).permutation(rows)
        chosen = [row for row in dict.fromkeys([*listed, *others.tolist()]) if row in place][:most]
        column = {id_: i for i, id_ in enumerate(student.intent_ids)}
        intent = labels["intent"].to_numpy()
        top = {row: self.sessions.intent_ids[intent[place[row]]] for row in chosen}
        found = support.supported(
            self.reading.events,
            {row: column[id_] for row, id_ in top.items() if id_ in column},
            lambda some: student.predict_proba(encoder.embed(some, workers=1)),
            encoder.config.max_events,
        )
        return {place[row]: events for row, events in found.items()}

    def _versions(self) -> dict[str, str]:
        found = {"clickintent": __version__, "taxonomy": str(self.taxonomy.version)}
        metadata = ds.dataset(self.workspace.path("embeddings")).schema.metadata or {}
        if b"encoder" in metadata:
            found["encoder"] = metadata[b"encoder"].decode()
        weights = self.workspace.path("student/student.safetensors")
        if weights.exists():
            found["student"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        return found


def _places(labels: pa.Table, ids: pa.Array, intent_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row and intent of each label that is of one of the sessions and of one of the intents."""
    row = pc.fill_null(pc.index_in(labels["session_id"], value_set=ids), -1).to_numpy()
    intent = pc.fill_null(
        pc.index_in(labels["intent_id"], value_set=pa.array(intent_ids, pa.string())), -1
    ).to_numpy()
    mine = (row >= 0) & (intent >= 0)
    return row[mine].astype(np.int64), intent[mine].astype(np.int64)


def _enough(drift: dict[str, Any], least: int) -> dict[str, Any]:
    """The same without pages that few sessions saw."""
    if "new_pages" not in drift:
        return drift
    return {**drift, "new_pages": [row for row in drift["new_pages"] if row["sessions"] >= least]}


def _in_words(config: Config) -> str | None:
    match config.conversion:
        case InSessionConversion(page=page) if page is not None:
            return f"the session reaches {page}"
        case InSessionConversion() as outcome:
            return f"an event {outcome.event_type} in the session"
        case AccountConversion() as outcome:
            return f"its account takes a product within {outcome.horizon_days:g} days"
    return None
