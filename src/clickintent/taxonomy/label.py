"""Multi-label annotation of sessions with confidences: what it would cost, and doing it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from clickintent import schema
from clickintent.config import Config
from clickintent.errors import DataError, LanguageModelError
from clickintent.progress import progress, say
from clickintent.taxonomy import keywords
from clickintent.taxonomy.backends import open_model
from clickintent.taxonomy.content import fold, shorten
from clickintent.taxonomy.generate import as_data, described
from clickintent.taxonomy.llm import InvalidAnswerError, LanguageModel, in_threads
from clickintent.taxonomy.narrate import narrate
from clickintent.taxonomy.prompts import prompt
from clickintent.taxonomy.taxonomy import Taxonomy

_GIVE_UP_AFTER = 3  # unusable answers, if there was no usable one before them
_UNSUPPORTED = 0.5  # of an answer's labels may be without evidence; an answer with more is not used
_ENOUGH_LABELS = 4  # in an answer, to judge it by their evidence
_EVIDENCE_LENGTH = 160


class Label(BaseModel):
    """One intent of one session, as the model writes it."""

    intent: str
    confidence: float
    evidence: str


class SessionLabels(BaseModel):
    """All intents of one session; ``session`` is its number in the prompt."""

    session: int
    intents: list[Label]


class Labels(BaseModel):
    """Answer to a minibatch of sessions."""

    sessions: list[SessionLabels]


@dataclass(frozen=True)
class Annotation:
    """``labels`` (LABELS schema), the ids of the sessions that got a valid answer (which may be "none of
    these"), and counts. Sessions of the input that are not in ``answered`` could not be labelled.
    """

    labels: pa.Table
    answered: list[str]
    metrics: dict[str, Any]


def annotate(sessions: pa.Table, taxonomy: Taxonomy, config: Config, cache: Path) -> Annotation:
    """Label sessions with the intents of ``taxonomy``, by the configured backend.

    Args:
        sessions: table of the sessions schema.
        cache: folder for the answers of the language model.

    Raises:
        LanguageModelError: if the endpoint cannot be used, or gives no usable answer at all.
    """
    if config.llm.backend == "keywords":
        table = keywords.annotate(sessions, taxonomy, min_confidence=config.labels.min_confidence)
        return _annotation(table, sessions["session_id"].to_pylist(), sessions.num_rows, "keywords", {})
    with open_model(config, cache) as model:
        return annotate_with(model, sessions, taxonomy, config)


def annotate_with(model: LanguageModel, sessions: pa.Table, taxonomy: Taxonomy, config: Config) -> Annotation:
    """Label sessions with a language model, in minibatches and threads.

    Sessions that an answer leaves out, and all of an unusable answer, are asked once more in smaller
    minibatches; what then has no valid answer is reported as unanswered.
    """
    narratives = narrate(sessions)
    texts = list(dict.fromkeys(narratives))
    answers = _Answers(taxonomy)
    size = config.taxonomy.minibatch
    with progress("annotate", len(texts), "distinct sessions") as advance:
        for round_ in range(2):
            todo = [text for text in texts if text not in answers.found]
            batches = _batches(todo, max(1, size if round_ == 0 else math.ceil(size / 4)))
            work = _Asker(model, taxonomy, config.llm.prompts)
            for index, result in in_threads(work, batches, model.concurrency):
                answers.take(batches[index], result)
                advance(len(answers.found))
    if texts and not answers.found:
        answers.give_up()
    rows = [
        (session_id, *label)
        for session_id, text in zip(sessions["session_id"].to_pylist(), narratives, strict=True)
        for label in answers.found.get(text, ())
        if label[1] >= config.labels.min_confidence
    ]
    table = _labels_table(rows, "llm", taxonomy.version)
    answered = [
        session_id
        for session_id, text in zip(sessions["session_id"].to_pylist(), narratives, strict=True)
        if text in answers.found
    ]
    if len(answered) < sessions.num_rows:
        say(f"  [yellow]{sessions.num_rows - len(answered):,} sessions got no valid answer[/]")
    extra = {
        "model": model.name,
        "distinct_sessions": len(texts),
        "dropped": dict(sorted(answers.dropped.items())),
        "usage": model.usage.as_dict(),
    }
    return _annotation(table, answered, sessions.num_rows, "llm", extra)


def soft_targets(labels: pa.Table, session_ids: Sequence[str], intent_ids: Sequence[str]) -> np.ndarray:
    """Confidences as a matrix (n sessions, k intents), float32; 0 where there is no label.

    Labels of other sessions are ignored; of one session and intent the highest confidence counts.

    Raises:
        DataError: if a label is of an intent that ``intent_ids`` lacks.
    """
    targets = np.zeros((len(session_ids), len(intent_ids)), np.float32)
    rows = pc.index_in(labels["session_id"], value_set=pa.array(session_ids, pa.string()))
    columns = pc.index_in(labels["intent_id"], value_set=pa.array(intent_ids, pa.string()))
    if columns.null_count:
        unknown = labels["intent_id"].filter(columns.is_null()).unique().to_pylist()
        raise DataError(
            f"labels of {', '.join(map(repr, unknown[:3]))}, which is not in the taxonomy (it has "
            f"{len(intent_ids)} intents). Run 'clickintent label' again."
        )
    mine = rows.is_valid().to_numpy(zero_copy_only=False)
    row = pc.fill_null(rows, 0).to_numpy()[mine]
    np.maximum.at(targets, (row, columns.to_numpy()[mine]), labels["confidence"].to_numpy()[mine])
    return targets


_Found = tuple[tuple[str, float, str | None], ...]  # intent id, confidence, evidence


class _Asker:
    """One request, as a function of the batch."""

    def __init__(self, model: LanguageModel, taxonomy: Taxonomy, prompts: Path | None) -> None:
        self._model, self._described, self._prompts = model, described(taxonomy.intents), prompts

    def __call__(self, batch: Sequence[str]) -> Labels:
        sessions = as_data(batch)
        user = prompt("annotate", self._prompts, taxonomy=self._described, sessions=sessions)
        return self._model.complete(prompt("system", self._prompts), user, Labels)


class _Answers:
    """Valid answers by narrative, and what had to be dropped."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.found: dict[str, _Found] = {}
        self.dropped: Counter[str] = Counter()
        self._reason: InvalidAnswerError | None = None
        self._ids = frozenset(taxonomy.intent_ids)

    def take(self, batch: Sequence[str], result: Labels | InvalidAnswerError) -> None:
        if isinstance(result, InvalidAnswerError):
            self.dropped["unusable_answers"] += 1
            self._reason = result
            if not self.found and self.dropped["unusable_answers"] >= _GIVE_UP_AFTER:
                self.give_up()
            return
        if _is_made_up(result, batch):
            self.dropped["answers_without_support"] += 1
            return
        seen: set[int] = set()
        for answer in result.sessions:
            if not 1 <= answer.session <= len(batch) or answer.session in seen:
                self.dropped["unknown_sessions"] += 1
                continue
            seen.add(answer.session)
            text = batch[answer.session - 1]
            labels = self._labels(answer.intents, text)
            if labels or not answer.intents:  # all labels invalid is not "none of these"
                self.found[text] = labels

    def give_up(self) -> NoReturn:
        counts = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in sorted(self.dropped.items()))
        raise LanguageModelError(
            f"labelling stopped without one usable answer ({counts or 'all were empty'}). "
            + str(self._reason or "See how the model answers; another one may do better.")
        ) from self._reason

    def _labels(self, labels: Sequence[Label], text: str) -> _Found:
        best: dict[str, tuple[str, float, str | None]] = {}
        for label in labels:
            if label.intent not in self._ids:
                self.dropped["unknown_intents"] += 1
            elif not 0.0 <= label.confidence <= 1.0:  # also NaN
                self.dropped["confidences_out_of_range"] += 1
            elif label.intent not in best or best[label.intent][1] < label.confidence:
                best[label.intent] = (label.intent, label.confidence, self._evidence(label.evidence, text))
        return tuple(sorted(best.values(), key=lambda found: -found[1]))

    def _evidence(self, quote: str, text: str) -> str | None:
        """A quote counts only if it stands in the session."""
        if _stands_in(quote, text):
            return shorten(" ".join(quote.split()), _EVIDENCE_LENGTH)
        self.dropped["evidence_not_in_session"] += 1
        return None


def _is_made_up(answer: Labels, batch: Sequence[str]) -> bool:
    """Whether most evidence of an answer stands in none of the sessions that it is given for: the answer of a
    model that did what one of the sessions told it, or mixed the sessions up.
    """
    found = [
        _stands_in(label.evidence, batch[session.session - 1])
        for session in answer.sessions
        if 1 <= session.session <= len(batch)
        for label in session.intents
    ]
    return len(found) >= _ENOUGH_LABELS and found.count(False) > _UNSUPPORTED * len(found)


def _stands_in(quote: str, text: str) -> bool:
    return bool(fold(quote)) and fold(quote) in fold(text)


def _batches(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [texts[at : at + size] for at in range(0, len(texts), size)]


def _labels_table(rows: Sequence[tuple[str, str, float, str | None]], source: str, version: int) -> pa.Table:
    n = len(rows)
    return pa.table(
        [
            pa.array([row[0] for row in rows], pa.string()),
            pa.array([row[1] for row in rows], pa.string()),
            pa.array([row[2] for row in rows], pa.float32()),
            pa.array([source] * n, pa.string()),
            pa.array([version] * n, pa.int64()),
            pa.array([row[3] for row in rows], pa.string()),
        ],
        schema=schema.LABELS,
    )


def _annotation(
    table: pa.Table, answered: list[str], n: int, source: str, extra: dict[str, Any]
) -> Annotation:
    labelled = len(table["session_id"].unique())
    metrics = {
        "source": source,
        "sessions": n,
        "answered": len(answered),
        "unanswered": n - len(answered),
        "labelled": labelled,
        "none_of_these": len(answered) - labelled,
        "labels": table.num_rows,
        "labels_per_labelled_session": round(table.num_rows / labelled, 3) if labelled else 0.0,
        "mean_confidence": pc.mean(table["confidence"]).as_py() if table.num_rows else None,
        **extra,
    }
    return Annotation(table, answered, metrics)
