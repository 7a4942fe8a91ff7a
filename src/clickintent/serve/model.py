"""What a workspace knows, ready to score: encoder, student, taxonomy, and what may be read.

A ``Model`` never changes. ``Models`` holds the one in use and puts another in its place when the workspace
has a new one that can be loaded; whoever is being served keeps the one that it began with.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clickintent.config import Config
from clickintent.encoder import SessionEncoder
from clickintent.encoder.single import Event
from clickintent.errors import ArtifactError, ClickintentError
from clickintent.events import store
from clickintent.events.coding import keys
from clickintent.progress import say
from clickintent.serve.incoming import Gate, Published
from clickintent.taxonomy import IntentGraph, IntentLabeler, Taxonomy

_TAXONOMY = "taxonomy.yaml"
#: What a model is made of. ``ingest`` writes the last three.
_PARTS = (
    "encoder/encoder.json",
    _TAXONOMY,
    "student/student.json",
    "student/intents.onnx",
    "pages.parquet",
    ".ingest/values.parquet",
    ".ingest/manifest.json",
)


@dataclass(frozen=True)
class Model:
    """One version of everything.

    Attributes:
        names: intent id → name and area.
        sure: from there on a label is given; with ``labels.min_precision`` the student's cutoff for it.
    """

    encoder: SessionEncoder
    graph: IntentGraph
    taxonomy: Taxonomy
    names: dict[str, tuple[str, str | None]]
    sure: float
    gate: Gate
    forgotten: frozenset[int]  # codes of whom ``clickintent forget`` has removed from the workspace
    student: str  # a hash of the graph
    stamp: str

    @property
    def intent_ids(self) -> tuple[str, ...]:
        return self.graph.intent_ids

    def score(self, sessions: Sequence[Sequence[Event]]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (n, dim) and calibrated probabilities (n, k), float32."""
        return self.graph.label_few(sessions)

    def best(self, probabilities: np.ndarray, most: int) -> list[tuple[str, float]]:
        """The likeliest intents of (k,) probabilities, at most so many."""
        order = np.argsort(-probabilities, kind="stable")[:most]
        return [(self.intent_ids[i], float(probabilities[i])) for i in order.tolist()]


def load_model(config: Config, before: Model | None = None) -> Model:
    """Read the artifacts of a workspace; needs no torch.

    Args:
        before: the model that was read last. Where nothing but the taxonomy changed, as it does with each
            decision of a review, the rest is taken from it.

    Raises:
        ArtifactError: if one is missing, damaged, or does not fit the others; says which, and what to run.
        ConfigError: if ids are hashed and the environment holds no key.
    """
    stamp, workspace = stamp_of(config.workspace), config.workspace
    if before is not None and _rest(before.stamp) == _rest(stamp):
        taxonomy = Taxonomy.load(workspace / _TAXONOMY)
        return replace(before, taxonomy=taxonomy, names=_names(taxonomy), stamp=stamp)
    secret = keys(config.privacy)
    encoder = SessionEncoder.load(workspace / "encoder")
    graph_file = workspace / "student" / "intents.onnx"
    graph = IntentGraph(graph_file, encoder)
    student = IntentLabeler.load(workspace / "student")
    taxonomy = Taxonomy.load(workspace / _TAXONOMY)
    if student.intent_ids != graph.intent_ids:
        raise ArtifactError(
            f"{workspace}/student: student.json and intents.onnx are of two trainings. Run 'clickintent "
            "distill' again."
        )
    wanted = config.labels.min_precision
    model = Model(
        encoder=encoder,
        graph=graph,
        taxonomy=taxonomy,
        names=_names(taxonomy),
        sure=max(student.cutoff(wanted), config.labels.min_confidence) if wanted else graph.threshold,
        gate=Gate(config.privacy, secret, Published.load(workspace)),
        forgotten=frozenset(store.load(workspace).forgotten),
        student=hashlib.sha256(graph_file.read_bytes()).hexdigest()[:12],
        stamp=stamp,
    )
    model.score([[{"ts": 0, "event_type": "page_view", "page": "/"}]])  # the first call takes longer
    return model


def _names(taxonomy: Taxonomy) -> dict[str, tuple[str, str | None]]:
    """Name and area by id; a student may know intents that have been retired since."""
    names: dict[str, tuple[str, str | None]] = {old.id: (old.name, None) for old in taxonomy.retired}
    return names | {intent.id: (intent.name, intent.area) for intent in taxonomy.intents}


def _rest(stamp: str) -> list[str]:
    """A stamp without the taxonomy's."""
    return [line for line in stamp.splitlines() if not line.startswith(f"{_TAXONOMY} ")]


def stamp_of(workspace: Path) -> str:
    """Changes when a file that a model is made of does."""
    stamps = []
    for part in _PARTS:
        with suppress(OSError):  # load_model says better what is missing
            found = (workspace / part).stat()
            stamps.append(f"{part} {found.st_mtime_ns} {found.st_size} {found.st_ino}")
    return "\n".join(stamps)


class Models:
    """The model in use, and where there is one, its shadow: another workspace's, which scores along.

    Attributes:
        reloads, failures: how often another one took its place, or could not be loaded.
        problem: why the workspace's newest could not be loaded; None if it was.
    """

    def __init__(self, config: Config, shadow: Config | None = None) -> None:
        """
        Raises:
            ArtifactError, ConfigError: as ``load_model``.
        """
        self._config, self._shadow_config = config, shadow
        self.current = load_model(config)
        self.shadow = load_model(shadow) if shadow else None
        self.reloads = self.failures = 0
        self.problem: str | None = None
        self._seen = self.current.stamp
        self._refused = self._shadow_refused = ""  # stamps of what could not be loaded: not tried twice

    async def look(self) -> None:
        """Load what is new in the workspaces, if it did not change since the last look."""
        stamp = await asyncio.to_thread(stamp_of, self._config.workspace)
        if stamp == self._seen and stamp not in (self.current.stamp, self._refused):
            await self.reload()
        self._seen = stamp
        if self._shadow_config and self.shadow:
            stamp = await asyncio.to_thread(stamp_of, self._shadow_config.workspace)
            if stamp not in (self.shadow.stamp, self._shadow_refused):
                try:
                    self.shadow = await asyncio.to_thread(load_model, self._shadow_config)
                except ClickintentError as error:
                    self._shadow_refused = stamp
                    say(f"the shadow's new model cannot be used, its old one stays: {error}")

    async def reload(self) -> None:
        """Load the workspace's artifacts; where that fails, the model in use stays."""
        stamp = await asyncio.to_thread(stamp_of, self._config.workspace)
        try:
            self.current = await asyncio.to_thread(load_model, self._config, self.current)
        except ClickintentError as error:
            self.failures += 1
            self.problem, self._refused = str(error), stamp
            say(f"the new model cannot be used, the old one stays: {error}")
        else:
            self.reloads += 1
            self.problem = None
            say(f"model: encoder {self.current.encoder.version}, taxonomy {self.current.taxonomy.version}")
