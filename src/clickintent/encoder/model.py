"""The session encoder in torch: events → a GRU or a Transformer → pooling → 64 numbers.

Every part of an event (page, type, text, dwell, gap, calendar) becomes a vector of its own with its own
LayerNorm (essential in Transformers4Rec, de Souza Pereira Moreira et al. 2021); an MLP fuses them. Dwell and
gap are spread over their training quantiles (piecewise-linear encoding, Gorishniy et al. 2022), because a
single scalar does not survive into 64 numbers beside a page. Attention is bidirectional: what must stay
hidden is cut off before the model, never by a causal mask.

What is pooled is the mean of the events before the blocks (a bag of pages, as TF-IDF has it), their mean
after them (the paper's pooling), and the last event after them. The bag raised the rank of the embedding and
what it tells about intents, the last event what it tells about the next page: see docs/benchmarks.md. With
the three, one layer of a GRU tells as much as a Transformer of two, in less time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.config import EncoderConfig
from clickintent.encoder.features import CALENDAR, DWELL, GAP, NO_DWELL, NO_GAP, FeatureSpace
from clickintent.encoder.packed import Packing, attention

_TYPE_WIDTH = 16
_NUMBER_WIDTH = 24


class Quantiles(nn.Module):
    """A number and whether it is missing → how far it reaches into each quantile bin → a vector."""

    def __init__(self, edges: tuple[float, ...], width: int) -> None:
        super().__init__()
        low, high = torch.tensor(edges[:-1]), torch.tensor(edges[1:])
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("scale", 1.0 / (high - low), persistent=False)
        self.linear = nn.Linear(len(edges), width)

    def spread(self, value: Tensor, missing: Tensor) -> Tensor:
        """(…) → (…, bins + 1), each in [0, 1]; zeros and a flag where missing."""
        reach = ((value.unsqueeze(-1) - self.low) * self.scale).clamp(0.0, 1.0)  # type: ignore[operator]
        flag = missing.unsqueeze(-1)
        return torch.cat([reach * (1.0 - flag), flag], dim=-1)

    def forward(self, value: Tensor, missing: Tensor) -> Tensor:
        return F.gelu(self.linear(self.spread(value, missing)))


class EventEncoder(nn.Module):
    """The parts of an event, normalised, concatenated, fused: (B, L, …) → (B, L, width)."""

    def __init__(self, config: EncoderConfig, space: FeatureSpace) -> None:
        super().__init__()
        self.page = nn.Embedding(len(space.pages), config.width)
        self.event_type = nn.Embedding(len(space.event_types), _TYPE_WIDTH)
        self.dwell = Quantiles(space.dwell_edges, _NUMBER_WIDTH)
        self.gap = Quantiles(space.gap_edges, _NUMBER_WIDTH)
        self.calendar = nn.Linear(CALENDAR.stop - CALENDAR.start, _NUMBER_WIDTH)
        widths = [config.width, _TYPE_WIDTH, config.text_dim, *[_NUMBER_WIDTH] * 3]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.fuse = nn.Sequential(
            nn.Linear(sum(widths), 2 * config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * config.width, config.width),
        )

    def forward(self, page: Tensor, event_type: Tensor, numeric: Tensor, text: Tensor) -> Tensor:
        parts = [
            self.page(page),
            self.event_type(event_type),
            text,
            self.dwell(numeric[..., DWELL], numeric[..., NO_DWELL]),
            self.gap(numeric[..., GAP], numeric[..., NO_GAP]),
            F.gelu(self.calendar(numeric[..., CALENDAR])),
        ]
        normed = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
        fused: Tensor = self.fuse(torch.cat(normed, dim=-1))
        return fused


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, width); mask (B, 1, 1, L), True where an event is."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self._after_attention(x, mixed.transpose(1, 2).reshape(batch, length, width))

    def packed(self, x: Tensor, packing: Packing) -> Tensor:
        """The same of events without padding: x (N, width)."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.unbind(1)
        return self._after_attention(x, attention(q, k, v, packing).flatten(1))

    def _after_attention(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.out(mixed))
        out: Tensor = x + self.dropout(self.mlp(x))
        return out


class RecurrentBlock(nn.Module):
    """A GRU with a skip connection in place of a Transformer block: no mask, it reads from left to right."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - called as Block is
        out: Tensor = x + self.dropout(self.gru(self.norm(x))[0])
        return out


class SessionModel(nn.Module):
    """Padded events → session embedding."""

    def __init__(self, config: EncoderConfig, space: FeatureSpace) -> None:
        super().__init__()
        self.events = EventEncoder(config, space)
        # Two positions, from the window's start and from its end: the last page matters as such. Both are
        # counted inside the visible window, so neither tells how long the whole session was.
        self.from_start = nn.Embedding(config.max_events, config.width)
        self.from_end = nn.Embedding(config.max_events, config.width)
        self.blocks = nn.ModuleList(
            RecurrentBlock(config.width, config.dropout)
            if config.cell == "gru"
            else Block(config.width, config.heads, config.dropout)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.bag_norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(3 * config.width, config.dim)
        for table in (self.events.page, self.events.event_type, self.from_start, self.from_end):
            nn.init.normal_(table.weight, std=0.1)

    def hidden(
        self,
        page: Tensor,
        event_type: Tensor,
        numeric: Tensor,
        text: Tensor,
        lengths: Tensor,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One vector per event (B, L, width), and the session embedding (B, dim).

        Args:
            page: (B, L) int64. event_type: (B, L) int64. numeric: (B, L, NUMERIC_WIDTH) float32.
            text: (B, L, text_dim) float32. lengths: (B,) int64, from 1 to max_events.
            packing: of these lengths; with it, Transformer blocks do not compute what is padded.
        """
        steps = torch.arange(page.shape[1], device=page.device).unsqueeze(0)
        inside = steps < lengths.unsqueeze(1)
        left = (lengths.unsqueeze(1) - 1 - steps).clamp(min=0)
        x = self.events(page, event_type, numeric, text) + self.from_start(steps) + self.from_end(left)
        share = (inside / lengths.unsqueeze(1)).to(x.dtype).unsqueeze(-1)
        bag = self.bag_norm((x * share).sum(dim=1))
        if packing is None:
            mask = inside.unsqueeze(1).unsqueeze(1)
            for block in self.blocks:
                x = block(x, mask)
        else:
            x = packing.pack(x)
            for block in self.blocks:
                x = block.packed(x, packing)  # type: ignore[operator]
            x = packing.pad(x)
        x = self.norm(x)
        mean = (x * share).sum(dim=1)
        end = (lengths - 1).unsqueeze(1).unsqueeze(2).expand(-1, 1, x.shape[2])
        last = x.gather(1, end.long()).squeeze(1)
        return x, self.project(torch.cat([bag, mean, last], dim=1))

    def forward(
        self, page: Tensor, event_type: Tensor, numeric: Tensor, text: Tensor, lengths: Tensor
    ) -> Tensor:
        return self.hidden(page, event_type, numeric, text, lengths)[1]
