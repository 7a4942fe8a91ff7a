"""The three ways from text to vectors (see ``text``) while they are trained.

The sessions are not all in memory, and neither are their texts: each chunk of sessions brings its own. What
can be made of them without the weights is made beforehand, in the thread that prepares the chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clickintent.config import EncoderConfig
from clickintent.encoder.features import Ints
from clickintent.encoder.text import NoText, Tensors, ngrams, sentence_vectors, text_key

_CACHED_TEXTS = 200_000

#: What ``prepare`` makes of the texts of a chunk.
Prepared = tuple[Tensor, ...]


class TextModule(nn.Module, ABC):
    """Texts → (n, text_dim)."""

    @abstractmethod
    def prepare(self, texts: Sequence[str]) -> Prepared:
        """What needs no weights. Not called by two threads at once."""

    @abstractmethod
    def forward(self, prepared: Prepared, texts: Tensor) -> Tensor:
        """Of the texts of that index."""

    @abstractmethod
    def tensors(self) -> Tensors:
        """What the text encoder needs at inference; see ``text.from_tensors``."""


def text_module(config: EncoderConfig, frequent: Sequence[str]) -> TextModule:
    """Of the configured way.

    Args:
        frequent: the texts whose vectors are kept, if they come from a sentence model.

    Raises:
        ConfigError: if there is no such model.
        MissingDependencyError: if sentence-transformers is needed and not installed.
    """
    if config.text == "none":
        return NoTextModule(config.text_dim)
    if config.text == "hashed":
        return HashedTextModule(config.text_buckets, config.text_dim)
    return SentenceTextModule(config.text, frequent, config.text_dim)


class HashedTextModule(TextModule):
    """Learned mean of hashed n-grams."""

    def __init__(self, buckets: int, dim: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(buckets, dim, mode="mean")
        nn.init.normal_(self.table.weight, std=0.1)
        self._known: dict[str, Ints] = {}

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Flat bucket ids, and the offset of each text among them (n + 1,)."""
        if len(self._known) > _CACHED_TEXTS:
            self._known.clear()
        for text in texts:
            if text not in self._known:
                self._known[text] = np.array(ngrams(text, self.table.num_embeddings), dtype=np.int64)
        ids = [self._known[text] for text in texts]
        offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
        return torch.from_numpy(np.concatenate(ids)), torch.from_numpy(offsets)

    def forward(self, prepared: Prepared, texts: Tensor) -> Tensor:
        ids, offsets = prepared
        starts, ends = offsets[texts], offsets[texts + 1]
        lengths = ends - starts
        bags = torch.cumsum(lengths, 0) - lengths
        flat = torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - bags, lengths)
        device = self.table.weight.device
        vectors: Tensor = self.table(ids[flat].to(device), bags.to(device))
        return vectors

    def tensors(self) -> Tensors:
        return {"ngrams": self.table.weight.detach().numpy().copy()}


class SentenceTextModule(TextModule):
    """Learned projection of a sentence model's fixed vectors."""

    def __init__(self, folder: str, frequent: Sequence[str], dim: int) -> None:
        super().__init__()
        self._folder = folder
        self._at = {text: i for i, text in enumerate(frequent)}
        self._vectors = sentence_vectors(folder, frequent)
        self.project = nn.Linear(self._vectors.shape[1], dim)

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """(n, d) vectors; those of rare texts are made anew each time."""
        at = np.array([self._at.get(text, -1) for text in texts], dtype=np.int64)
        vectors = self._vectors[at]
        new = np.flatnonzero(at < 0)
        if len(new):
            vectors[new] = sentence_vectors(self._folder, [texts[i] for i in new.tolist()])
        return (torch.from_numpy(vectors),)

    def forward(self, prepared: Prepared, texts: Tensor) -> Tensor:
        projected: Tensor = self.project(prepared[0][texts].to(self.project.weight.device))
        return projected

    def tensors(self) -> Tensors:
        with torch.inference_mode():
            vectors = self.project(torch.from_numpy(self._vectors))
        return {
            "keys": np.array([text_key(text) for text in self._at], dtype=np.int64),
            "vectors": vectors.numpy().copy(),
            "weight": self.project.weight.detach().numpy().copy(),
            "bias": self.project.bias.detach().numpy().copy(),
        }


class NoTextModule(TextModule):
    """Zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._dim = dim

    def prepare(self, texts: Sequence[str]) -> Prepared:  # noqa: ARG002
        return ()

    def forward(self, prepared: Prepared, texts: Tensor) -> Tensor:  # noqa: ARG002
        return torch.zeros(len(texts), self._dim)

    def tensors(self) -> Tensors:
        return NoText(self._dim).tensors()
