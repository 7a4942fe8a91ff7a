"""Page and event text → vectors, by one of three ways (``EncoderConfig.text``).

``hashed`` (no download): the mean of learned vectors of hashed words and character trigrams, as in fastText
(Bojanowski et al. 2017). A folder: a sentence-transformers model's fixed vectors, then a learned projection.
``none``: no text. Each distinct text is encoded once. At inference this is numpy alone; only a folder's model
needs its package, and only for texts that were not there in training.
"""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clickintent.encoder.features import Floats, Ints
from clickintent.errors import ArtifactError, ConfigError, require

_WORD = re.compile(r"\w+")
_MAX_CHARACTERS = 2000
_CACHED_TEXTS = 100_000
_CACHED_WORDS = 50_000

Tensors = dict[str, npt.NDArray[np.generic]]


def ngrams(text: str, buckets: int) -> list[int]:
    """Bucket ids of the words and character trigrams of a text: the same on every machine and run."""
    ids: list[int] = []
    for word in _WORD.findall(text[:_MAX_CHARACTERS].lower()):
        ids.extend(_of_word(word, buckets))
    return ids


@lru_cache(maxsize=_CACHED_WORDS)
def _of_word(word: str, buckets: int) -> tuple[int, ...]:
    bounded = f"<{word}>"
    trigrams = [bounded[i : i + 3] for i in range(len(bounded) - 2)] if len(bounded) > 3 else []
    return tuple(zlib.crc32(gram.encode()) % buckets for gram in (bounded, *trigrams))


def ngram_table(texts: Sequence[str], buckets: int) -> tuple[Ints, Ints]:
    """Flat bucket ids of all texts, and the offset of each text among them, (n + 1,)."""
    lists = [ngrams(text, buckets) for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])]).astype(np.int64)
    return np.array([i for ids in lists for i in ids], dtype=np.int64), offsets


def sentence_vectors(folder: str, texts: Sequence[str]) -> Floats:
    """(n, d) vectors of a sentence-transformers model on disk; the empty text is the zero vector.

    They are rounded a little differently beside other texts: the model works on padded batches.

    Raises:
        ConfigError: if the folder is not there or holds no such model.
        MissingDependencyError: if sentence-transformers is not installed.
    """
    model = _sentence_model(folder)
    vectors: Floats = model.encode(
        list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
    ).astype(np.float32)
    vectors[[not text for text in texts]] = 0.0
    return vectors


@lru_cache(maxsize=1)
def _sentence_model(folder: str) -> Any:
    if not Path(folder).is_dir():
        raise ConfigError(
            f"encoder.text: {folder!r} is not a folder. Give 'none', 'hashed', or the folder of a "
            "sentence-transformers model (models are not downloaded)."
        )
    library = require("sentence_transformers", "text")
    try:
        with redirect_stderr(io.StringIO()):  # it draws progress bars of its own
            return library.SentenceTransformer(folder, device="cpu", local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"encoder.text: {folder} holds no sentence-transformers model: {error}") from error


def text_key(text: str) -> int:
    """A stable 63-bit number for a text: saved encoders hold no text of visitors."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


#: Texts → (n, text_dim) at inference.
TextVectors = Callable[[Sequence[str]], Floats]


class NoText:
    """Zeros."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def __call__(self, texts: Sequence[str]) -> Floats:
        return np.zeros((len(texts), self._dim), dtype=np.float32)

    def tensors(self) -> Tensors:
        return {"none": np.zeros((1, self._dim), dtype=np.float32)}


class HashedText:
    """Mean of the rows of a learned (buckets, dim) table."""

    def __init__(self, table: Floats) -> None:
        self._table = table

    def __call__(self, texts: Sequence[str]) -> Floats:
        ids, offsets = ngram_table(texts, len(self._table))
        counts = np.diff(offsets)
        vectors = np.zeros((len(texts), self._table.shape[1]), dtype=np.float32)
        some = np.flatnonzero(counts)
        if len(some):
            sums = np.add.reduceat(self._table[ids], offsets[:-1][some], axis=0)
            vectors[some] = sums / counts[some, None]
        return vectors


class SentenceText:
    """Projected vectors of the texts seen in training; the model itself is loaded for others."""

    def __init__(
        self,
        folder: str,
        keys: Ints,
        vectors: Floats,
        weight: Floats,
        bias: Floats,
    ) -> None:
        order = np.argsort(keys)
        self._folder = folder
        self._keys, self._vectors = keys[order], vectors[order]
        self._weight, self._bias = weight, bias

    def __call__(self, texts: Sequence[str]) -> Floats:
        keys = np.array([text_key(text) for text in texts], dtype=np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        vectors: Floats = self._vectors[at].copy()
        new = np.flatnonzero(self._keys[at] != keys)
        if len(new):
            raw = sentence_vectors(self._folder, [texts[i] for i in new.tolist()])
            vectors[new] = raw @ self._weight.T + self._bias
        return vectors


class CachedText:
    """Remembers the vectors of the texts last asked for, at most 100,000: some 40 MB.

    In two halves: when the newer one is full, the older one is dropped, and what is still asked for moves
    over. Several threads may call: each works on rows that it holds, and what one loses is computed again.
    """

    def __init__(self, source: TextVectors) -> None:
        self._source = source
        self._newer: dict[str, npt.NDArray[np.float32]] = {}
        self._older: dict[str, npt.NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def __call__(self, texts: Sequence[str]) -> Floats:
        newer, older = self._newer, self._older
        rows = {text: newer.get(text) for text in texts}
        missed = [text for text, row in rows.items() if row is None]
        if missed:
            found = {text: older[text] for text in missed if text in older}
            new = [text for text in missed if text not in found]
            if new:  # copied, because a view of one vector would keep all those made with it
                found.update((text, row.copy()) for text, row in zip(new, self._source(new), strict=True))
            rows.update(found)
            half = _CACHED_TEXTS // 2
            if len(newer) + len(found) > half:
                self._newer, self._older = dict(islice(found.items(), half)), newer
            else:
                newer.update(found)
        return np.concatenate([rows[text] for text in texts]).reshape(len(texts), -1)


def from_tensors(mode: str, dim: int, tensors: Tensors, where: str) -> TextVectors:
    """The text encoder saved as ``tensors``.

    Raises:
        ArtifactError: if tensors are missing or have a wrong shape; names ``where``.
    """

    def get(name: str, *shape: int | None) -> Floats:
        found = tensors.get(name)
        if found is None or len(found.shape) != len(shape):
            raise ArtifactError(
                f"{where}: no tensor {name!r} of {len(shape)} dimensions. Save the encoder anew."
            )
        if any(want not in (None, have) for want, have in zip(shape, found.shape, strict=True)):
            raise ArtifactError(f"{where}: tensor {name!r} has shape {found.shape}, not {shape}.")
        return found.astype(np.float32)

    if mode == "none":
        return NoText(dim)
    if mode == "hashed":
        return CachedText(HashedText(get("ngrams", None, dim)))
    vectors = get("vectors", None, dim)
    keys = tensors.get("keys")
    if keys is None or keys.shape != (len(vectors),):
        raise ArtifactError(f"{where}: the tensors 'keys' and 'vectors' do not fit. Save the encoder anew.")
    source = SentenceText(mode, keys.astype(np.int64), vectors, get("weight", dim, None), get("bias", dim))
    return CachedText(source)
