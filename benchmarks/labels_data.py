"""SimBank for ``labels.py``: sessions, the frozen encoder's embeddings, the truth, and teachers.

The encoder, and every student, learns from sessions that ended before the split; all figures are of
sessions that start after it. The truth is in the teachers and in the figures, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

import labels_reader
from clickintent import SessionEncoder, ingest, simulate
from clickintent.config import Config, load_config
from clickintent.downstream.truth import shown_intents

IDS = labels_reader.IDS
WRONG, BLUR = 0.15, 1.0  # the noisy teacher: share of sessions, and noise in log-odds
_SURE = 0.9  # what a teacher says of what it knows
_SILENT = 0.2  # confidence below which a noisy teacher says nothing, as labels.min_confidence


@dataclass(frozen=True)
class LabelData:
    """One simulated bank of n sessions whose truth is known, in the order of the table."""

    seed: int
    config: Config
    encoder: SessionEncoder
    sessions: pa.Table
    embeddings: np.ndarray  # (n, dim)
    truth: np.ndarray  # (n, 35) 0 or 1: the intents that show
    main: np.ndarray  # (n,) the intent that it is mostly about
    past: np.ndarray  # rows
    test: np.ndarray
    readers: dict[str, np.ndarray]  # posterior probabilities (n, 35), see labels_reader

    @property
    def visitors(self) -> np.ndarray:
        """Of the test rows, as numbers."""
        code = self.sessions["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        found: np.ndarray = code[self.test]
        return found


def load(work: Path, seed: int, n: int) -> LabelData:
    """Simulate, ingest, train the encoder and embed; what is there already is not done again."""
    folder = work / f"simbank-{n}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "bank" / "clickintent.toml").exists():
        text = f'workspace = "ws"\nseed = {seed}\n[simbank]\nout = "bank"\nsessions = {n}\n'
        (folder / "simulate.toml").write_text(text)
        simulate(load_config(folder / "simulate.toml"))
    config = load_config(folder / "bank" / "clickintent.toml").model_copy(update={"seed": seed})
    ingest(config)
    table = ds.dataset(config.workspace / "sessions").to_table()
    sessions = table.filter(pc.and_(pc.equal(table["channel"], "web"), pc.invert(table["is_bot"])))
    at = int(np.quantile(sessions["start"].to_numpy(), 0.7))
    encoder = _encoder(folder / "encoder", sessions.filter(pc.less(sessions["end"], at)), seed)
    folder_truth = config.evaluate.truth
    assert folder_truth is not None
    shown = shown_intents(folder_truth, sessions)
    known = shown.is_valid()
    sessions, shown = sessions.filter(known), shown.filter(known)
    count = pc.list_value_length(shown).to_numpy()
    intent = pc.index_in(shown.flatten(), value_set=pa.array(IDS)).to_numpy()
    truth = np.zeros((sessions.num_rows, len(IDS)), np.float32)
    truth[np.repeat(np.arange(len(truth)), count), intent] = 1.0
    readers = {
        name: labels_reader.posterior(sessions, folder_truth, at, sees_campaigns=sees)
        for name, sees in (("reader", True), ("reader_of_events", False))
    }
    return LabelData(
        seed=seed,
        config=config,
        encoder=encoder,
        sessions=sessions,
        embeddings=encoder.embed(sessions),
        truth=truth,
        main=intent[np.cumsum(count) - count],
        past=np.flatnonzero(sessions["end"].to_numpy() < at),
        test=np.flatnonzero(sessions["start"].to_numpy() >= at),
        readers=readers,
    )


def _encoder(folder: Path, past: pa.Table, seed: int) -> SessionEncoder:
    if not folder.exists():
        SessionEncoder(seed=seed).fit(past).save(folder)
    return SessionEncoder.load(folder)


def noisy(confidences: np.ndarray, seed: int) -> np.ndarray:
    """A worse teacher: 15 % of the sessions have the labels of another session, all confidences are blurred,
    and what is then below 0.2 is not said.
    """
    rng = np.random.default_rng(seed)
    found = confidences.copy()
    wrong = np.flatnonzero(rng.random(len(found)) < WRONG)
    found[wrong] = confidences[rng.integers(0, len(found), len(wrong))]
    clipped = np.clip(found, 0.02, _SURE)
    odds = np.log(clipped / (1 - clipped)) + BLUR * rng.standard_normal(found.shape)
    found = 1 / (1 + np.exp(-odds))
    return np.where(found < _SILENT, 0.0, found).astype(np.float32)
