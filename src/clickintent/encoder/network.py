"""Everything that is trained, as one module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.config import EncoderConfig
from clickintent.encoder.features import Batch, FeatureSpace
from clickintent.encoder.model import SessionModel
from clickintent.encoder.objectives import Heads, Targets, total
from clickintent.encoder.packed import packing_of
from clickintent.encoder.text_modules import Prepared, text_module


class Network(nn.Module):
    """Text, session model, and the heads of the objectives."""

    def __init__(self, config: EncoderConfig, space: FeatureSpace, texts: Sequence[str] = ()) -> None:
        """Args as in ``text_modules.text_module``, which says what is raised."""
        super().__init__()
        self.space = space
        self.text = text_module(config, texts)
        self.session = SessionModel(config, space)
        self.heads = Heads(config, space)
        self.packed = False  # whether the Transformer blocks leave out what is padded; see packed.can_pack

    @property
    def device(self) -> torch.device:
        return self.session.project.weight.device

    def hidden(self, batch: Batch, texts: Prepared) -> tuple[Tensor, Tensor]:
        """Vectors of the events (B, L, width) and of the sessions (B, dim).

        Args:
            texts: what ``self.text`` prepared of the texts that ``batch.text`` counts.
        """
        distinct, index = np.unique(batch.text, return_inverse=True)
        device = self.device
        # As an embedding, not an index: adding up the gradients of an index is not deterministic on CPU.
        vectors = F.embedding(
            torch.from_numpy(index.reshape(batch.text.shape)).to(device),
            self.text(texts, torch.from_numpy(distinct)).to(device),
        )
        return self.session.hidden(
            torch.from_numpy(batch.page).to(device),
            torch.from_numpy(batch.event_type).to(device),
            torch.from_numpy(batch.numeric).to(device),
            vectors,
            torch.from_numpy(batch.lengths).to(device),
            packing_of(batch.lengths, batch.page.shape[1], device) if self.packed else None,
        )

    def forward(self, batch: Batch, texts: Prepared, answers: Targets) -> dict[str, Tensor]:
        """The mean of each loss that has an answer, and the weighted sum of all as ``loss``."""
        x, embedding = self.hidden(batch, texts)
        losses = self.heads.losses(self.session, x, embedding, answers, self.space)
        return {"loss": total(losses), **{name: loss / n for name, (loss, n) in losses.items() if n}}
