"""Multi-label annotation of sessions with confidences, by keywords or by asking a language model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
from pydantic import BaseModel

from clickintent.config import Config
from clickintent.errors import LanguageModelError
from clickintent.progress import progress, say
from clickintent.taxonomy import keyword_labels
from clickintent.taxonomy.annotation import Annotation, annotation_of, labels_table
from clickintent.taxonomy.backends import open_model
from clickintent.taxonomy.content import shorten
from clickintent.taxonomy.generate import as_data, described
from clickintent.taxonomy.llm import InvalidAnswerError, LanguageModel, in_threads
from clickintent.taxonomy.narrate import Narrative, narratives
from clickintent.taxonomy.prompts import prompt
from clickintent.taxonomy.support import supporting
from clickintent.taxonomy.taxonomy import Taxonomy

_GIVE_UP_AFTER = 3  # unusable answers, if there was no usable one before them
_UNSUPPORTED = 0.5  # of an answer's labels may be without support; an answer with more is not used
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


def annotate(
    sessions: pa.Table,
    taxonomy: Taxonomy,
    config: Config,
    cache: Path,
    *,
    site: frozenset[str] | None = None,
    give_up: bool = True,
) -> Annotation:
    """Label sessions with the intents of ``taxonomy``, by the configured backend.

    Args:
        sessions: table of the sessions schema.
        cache: folder for the answers of the language model.
        site: see ``narrate``; that of all the labelled sessions, if these are some of them.
        give_up: raise if no answer at all is usable; or else leave the sessions unanswered.

    Raises:
        LanguageModelError: if the endpoint cannot be used, or gives no usable answer at all.
    """
    if config.llm.backend == "keywords":
        table = keyword_labels.annotate(sessions, taxonomy, min_confidence=config.labels.min_confidence)
        ids = sessions["session_id"].to_pylist()
        return annotation_of(table, ids, ["none_of_these"] * len(ids), "keywords", {})
    with open_model(config, cache) as model:
        return annotate_with(model, sessions, taxonomy, config, site=site, give_up=give_up)


def annotate_with(
    model: LanguageModel,
    sessions: pa.Table,
    taxonomy: Taxonomy,
    config: Config,
    *,
    site: frozenset[str] | None = None,
    give_up: bool = True,
) -> Annotation:
    """Label sessions with a language model, in minibatches and threads; arguments as of ``annotate``.

    Sessions that an answer leaves out, and all of an unusable answer, are asked once more in smaller
    minibatches; what then has no valid answer is unanswered. Sessions with a label whose evidence is in
    none of their events are shown once again, with the labels in question; one that is not supported then
    either is dropped and counted.
    """
    told = list(narratives(sessions, site=site))
    distinct = {narrative.text: narrative for narrative in told}
    answers = _Answers(taxonomy, distinct)
    size, threads = config.taxonomy.minibatch, model.concurrency
    ask = partial(_Asker, model, taxonomy, config.llm.prompts)
    with progress("annotate", len(distinct), "distinct sessions") as advance:
        for round_ in range(2):
            todo = [text for text in distinct if text not in answers.found]
            batches = _batches(todo, max(1, size if round_ == 0 else math.ceil(size / 4)))
            for index, result in in_threads(ask(), batches, threads):
                answers.take(batches[index], result)
                advance(len(answers.found))
    if distinct and not answers.found and give_up:
        answers.give_up()
    batches = _batches(answers.unsupported(), size)
    for index, result in in_threads(ask(answers), batches, threads):
        answers.correct(batches[index], result)
    answers.drop_unsupported()
    rows, states = [], []
    for session_id, narrative in zip(sessions["session_id"].to_pylist(), told, strict=True):
        found = answers.found.get(narrative.text)
        states.append("unanswered" if found is None else answers.state(narrative.text))
        for intent, confidence, quote in found or ():
            if confidence >= config.labels.min_confidence:
                rows.append((session_id, intent, confidence, *_support(quote, narrative)))
    table = labels_table(rows, "llm", taxonomy.version)
    extra = {
        "model": model.name,
        "distinct_sessions": len(distinct),
        "correction": answers.correction,
        "dropped": dict(sorted(answers.dropped.items())),
        "usage": model.usage.as_dict(),
    }
    labelled = annotation_of(table, sessions["session_id"].to_pylist(), states, "llm", extra)
    lost = sessions.num_rows - len(labelled.answered)
    if lost:
        say(f"  [yellow]{lost:,} sessions got no valid answer[/]", markup=True)
    return labelled


_Found = tuple[tuple[str, float, str], ...]  # intent id, confidence, the model's quote


class _Asker:
    """One request, as a function of the batch; about labels without support if ``answers`` are given."""

    def __init__(
        self,
        model: LanguageModel,
        taxonomy: Taxonomy,
        prompts: Path | None,
        answers: _Answers | None = None,
    ) -> None:
        self._model, self._described, self._prompts = model, described(taxonomy.intents), prompts
        self._answers = answers

    def __call__(self, batch: Sequence[str]) -> Labels:
        sessions = as_data(batch)
        user = prompt("annotate", self._prompts, taxonomy=self._described, sessions=sessions)
        if self._answers is not None:
            questioned = [
                f"- session {n}: {', '.join(self._answers.unsupported_of(text))}"
                for n, text in enumerate(batch, 1)
            ]
            user = prompt("correct", self._prompts, questioned="\n".join(questioned), task=user)
        return self._model.complete(prompt("system", self._prompts), user, Labels)


class _Answers:
    """Valid answers by narrative, and what had to be dropped."""

    def __init__(self, taxonomy: Taxonomy, narratives: Mapping[str, Narrative]) -> None:
        self.found: dict[str, _Found] = {}
        self.dropped: Counter[str] = Counter()
        #: labels = supported + taken_back + dropped; ``added`` are others that the second answer gave.
        self.correction = dict.fromkeys(
            ("sessions", "labels", "supported", "taken_back", "dropped", "added"), 0
        )
        self._narratives = narratives
        self._lost: set[str] = set()  # narratives whose only labels had no support
        self._reason: InvalidAnswerError | None = None
        self._ids = frozenset(taxonomy.intent_ids)

    def take(self, batch: Sequence[str], result: Labels | InvalidAnswerError) -> None:
        """Keep the valid answers to a first request."""
        if isinstance(result, InvalidAnswerError):
            self._reason = result
        self.found.update(self._read(batch, result))
        if not self.found and self.dropped["unusable_answers"] >= _GIVE_UP_AFTER:
            self.give_up()

    def unsupported(self) -> list[str]:
        """Narratives with a label whose quote is not in them."""
        return [text for text in self.found if self.unsupported_of(text)]

    def unsupported_of(self, text: str) -> list[str]:
        """The intents of such labels."""
        return [intent for intent, _, quote in self.found[text] if not self._supported(quote, text)]

    def correct(self, batch: Sequence[str], result: Labels | InvalidAnswerError) -> None:
        """Put what the second answer says in place of the labels without support; the others stay."""
        answered = self._read(batch, result)
        for text in batch:
            questioned = self.unsupported_of(text)
            self.correction["sessions"] += 1
            self.correction["labels"] += len(questioned)
            if text not in answered:
                continue
            kept = {label[0]: label for label in self.found[text] if label[0] not in questioned}
            again = {
                label[0]: label
                for label in answered[text]
                if label[0] in questioned or self._supported(label[2], text)
            }
            self.found[text] = _by_confidence([*(again | kept).values()])
            self.correction["taken_back"] += len(set(questioned) - set(again))
            self.correction["supported"] += len(set(questioned) & set(again) - {*self.unsupported_of(text)})
            self.correction["added"] += len(set(again) - set(questioned) - set(kept))

    def drop_unsupported(self) -> None:
        """Drop the labels that are without support still."""
        for text in self.unsupported():
            supported = tuple(label for label in self.found[text] if self._supported(label[2], text))
            self.correction["dropped"] += len(self.found[text]) - len(supported)
            self.found[text] = supported
            if not supported:
                self._lost.add(text)

    def state(self, text: str) -> str:
        """Of a narrative that was answered and has no label."""
        return "unsupported" if text in self._lost else "none_of_these"

    def give_up(self) -> NoReturn:
        counts = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in sorted(self.dropped.items()))
        raise LanguageModelError(
            f"labelling stopped without one usable answer ({counts or 'all were empty'}). "
            + str(self._reason or "See how the model answers; another one may do better.")
        ) from self._reason

    def _read(self, batch: Sequence[str], result: Labels | InvalidAnswerError) -> dict[str, _Found]:
        """The valid answers by narrative; what is not valid is counted."""
        if isinstance(result, InvalidAnswerError):
            self.dropped["unusable_answers"] += 1
            return {}
        if self._is_made_up(batch, result):
            self.dropped["answers_without_support"] += 1
            return {}
        found: dict[str, _Found] = {}
        for answer in result.sessions:
            if not 1 <= answer.session <= len(batch) or batch[answer.session - 1] in found:
                self.dropped["unknown_sessions"] += 1
                continue
            labels = self._labels(answer.intents)
            if labels or not answer.intents:  # all labels invalid is not "none of these"
                found[batch[answer.session - 1]] = labels
        return found

    def _labels(self, labels: Sequence[Label]) -> _Found:
        best: dict[str, tuple[str, float, str]] = {}
        for label in labels:
            if label.intent not in self._ids:
                self.dropped["unknown_intents"] += 1
            elif not 0.0 <= label.confidence <= 1.0:  # also NaN
                self.dropped["confidences_out_of_range"] += 1
            elif label.intent not in best or best[label.intent][1] < label.confidence:
                best[label.intent] = (label.intent, label.confidence, label.evidence)
        return _by_confidence(list(best.values()))

    def _is_made_up(self, batch: Sequence[str], answer: Labels) -> bool:
        """Whether most evidence of an answer is in none of the sessions that it is given for: the answer of
        a model that did what one of the sessions told it, or mixed the sessions up.
        """
        found = [
            self._supported(label.evidence, batch[session.session - 1])
            for session in answer.sessions
            if 1 <= session.session <= len(batch)
            for label in session.intents
        ]
        return len(found) >= _ENOUGH_LABELS and found.count(False) > _UNSUPPORTED * len(found)

    def _supported(self, quote: str, text: str) -> bool:
        return _support(quote, self._narratives[text])[0] is not None


def _by_confidence(labels: Sequence[tuple[str, float, str]]) -> _Found:
    return tuple(sorted(labels, key=lambda found: -found[1]))


def _support(quote: str, narrative: Narrative) -> tuple[str | None, list[int]]:
    """The evidence in the session's own words, and the events that it is found in.

    Of a quote from the session's origin, no event; of one that is nowhere, no words either.
    """
    events = supporting(quote, narrative.steps)
    if events:
        return shorten(narrative.steps[events[0]], _EVIDENCE_LENGTH), list(events)
    if supporting(quote, [narrative.origin]):
        return shorten(narrative.origin.removesuffix(" · "), _EVIDENCE_LENGTH), []
    return None, []


def _batches(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [texts[at : at + size] for at in range(0, len(texts), size)]
