"""The session model rebuilt for inference: the same function, with far less to compute per event.

What an event's page, type and hour of the week put into the fusing MLP is a fixed function of one small
number, so each becomes a row of a table; dwell and gap go through one set of operations together; attention
or a GRU is one operation. Only the event encoder and the blocks are replaced: positions, pooling and
projection are the trained model's own code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.encoder.features import CALENDAR_TABLE
from clickintent.encoder.model import Block, EventEncoder, Quantiles, RecurrentBlock, SessionModel

#: A missing number, far below every quantile; and where its own "bin" begins, counted downwards.
_MISSING, _NOT_KNOWN = -1e9, -1e8
#: Where a bin begins that a number never reaches.
_NEVER = 1e9


class FoldedNumbers(nn.Module):
    """Several ``Quantiles`` and the LayerNorms behind them at once, the norms without scale and shift."""

    low: Tensor
    scale: Tensor

    def __init__(self, parts: Sequence[Quantiles]) -> None:
        super().__init__()
        lows = [cast(Tensor, part.low) for part in parts]
        bins, width = max(len(low) for low in lows), parts[0].linear.out_features
        low = torch.full((len(parts), bins + 1), _NEVER)
        scale = torch.zeros(len(parts), bins + 1)
        low[:, -1], scale[:, -1] = _NOT_KNOWN, -1.0
        weight = torch.zeros(len(parts), width, len(parts), bins + 1)
        for i, part in enumerate(parts):
            own = len(lows[i])
            low[i, :own], scale[i, :own] = lows[i], cast(Tensor, part.scale)
            weight[i, :, i, :own] = part.linear.weight[:, :own]
            weight[i, :, i, -1] = part.linear.weight[:, own]
        self.register_buffer("low", low)
        self.register_buffer("scale", scale)
        self.width = width
        self.linear = _linear(
            weight.flatten(2).flatten(0, 1), torch.cat([part.linear.bias for part in parts])
        )

    def forward(self, values: Tensor) -> Tensor:
        """(N, n), NaN where missing → (N, n · width)."""
        known = torch.where(values.isnan(), _MISSING, values).unsqueeze(-1)
        reach = ((known - self.low) * self.scale).clamp(0.0, 1.0)
        vectors = F.gelu(self.linear(reach.flatten(1)))
        return F.layer_norm(vectors.reshape(-1, values.shape[1], self.width), (self.width,)).flatten(1)


class FoldedEvents(nn.Module):
    """``EventEncoder`` with other inputs; the first layer of its fusing MLP is spread over the parts."""

    page: Tensor
    event_type: Tensor
    hour: Tensor

    def __init__(self, events: EventEncoder) -> None:
        super().__init__()
        first, last = cast(nn.Linear, events.fuse[0]), events.fuse[-1]
        norms = [cast(nn.LayerNorm, norm) for norm in events.norms]
        slices = torch.split(first.weight, [norm.normalized_shape[0] for norm in norms], dim=1)
        page, event_type, text, dwell, gap, calendar = zip(norms, slices, strict=True)

        def table(values: Tensor, part: tuple[nn.LayerNorm, Tensor]) -> Tensor:
            norm, weight = part
            return F.linear(norm(values), weight)

        clock = F.gelu(events.calendar(torch.from_numpy(CALENDAR_TABLE)))
        self.register_buffer("page", table(events.page.weight, page))
        self.register_buffer("event_type", table(events.event_type.weight, event_type))
        self.register_buffer("hour", table(clock, calendar))
        self.numbers = FoldedNumbers([events.dwell, events.gap])
        self.text_dim = text[1].shape[1]
        # The scale and shift of these norms go into the linear layer behind them.
        rest = (text, dwell, gap)
        weight = torch.cat([weight * norm.weight for norm, weight in rest], dim=1)
        self.rest = _linear(weight, first.bias + sum(weight @ norm.bias for norm, weight in rest))
        self.out = last

    def forward(self, page: Tensor, event_type: Tensor, numeric: tuple[Tensor, ...], text: Tensor) -> Tensor:
        """(B, L) each, text (B, L, text_dim) → (B, L, width).

        Args:
            numeric: log dwell and log gap, NaN where missing, and the hour of the week.
        """
        dwell, gap, hour = (part.flatten() for part in numeric)
        numbers = self.numbers(torch.stack([dwell, gap], dim=1))
        words = F.layer_norm(text.reshape(-1, self.text_dim), (self.text_dim,))
        fused = self.rest(torch.cat([words, numbers], dim=1))
        fused = fused + F.embedding(page.flatten(), self.page) + F.embedding(hour, self.hour)
        fused = F.gelu(fused + F.embedding(event_type.flatten(), self.event_type))
        out: Tensor = self.out(fused).reshape(*page.shape, -1)
        return out


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    return layer


class FoldedBlock(nn.Module):
    """``Block`` without dropout, its attention as the one operation ``Attention`` of ONNX."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        block = self.block
        batch, length, width = x.shape
        flat = x.reshape(-1, width)
        q, k, v = (
            part.reshape(batch, length, width)
            for part in block.qkv(block.attention_norm(flat)).chunk(3, dim=1)
        )
        mask = mask.expand(batch, 1, length, length)
        mixed = torch.onnx.ops.attention(q, k, v, mask, q_num_heads=block.heads, kv_num_heads=block.heads)[0]
        flat = flat + block.out(mixed.reshape(-1, width))
        out: Tensor = (flat + block.mlp(flat)).reshape(batch, length, width)
        return out


class FoldedRecurrentBlock(nn.Module):
    """``RecurrentBlock`` without dropout, its GRU as the one operation ``GRU`` of ONNX.

    Of torch's own the exporter makes, at times, one that takes sessions of a single length. Can be exported,
    but not run in torch.
    """

    weight: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(self, block: RecurrentBlock) -> None:
        super().__init__()
        self.norm = block.norm
        self.width = block.gru.hidden_size

        def reordered(values: Tensor) -> Tensor:
            """The gates in the order of ONNX (update, reset, new), and its axis for directions."""
            reset, update, new = values.detach().chunk(3)
            return torch.cat([update, reset, new]).unsqueeze(0)

        weight, recurrent, bias, recurrent_bias = (reordered(p) for p in block.gru.parameters())
        self.register_buffer("weight", weight)
        self.register_buffer("recurrent", recurrent)
        self.register_buffer("bias", torch.cat([bias, recurrent_bias], dim=1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - called as Block is
        batch, length, width = x.shape
        hidden: Tensor = torch.onnx.ops.symbolic(
            "GRU",
            (self.norm(x).transpose(0, 1), self.weight, self.recurrent, self.bias),
            {"hidden_size": self.width, "linear_before_reset": 1},
            dtype=x.dtype,
            shape=(length, 1, batch, width),
        )
        return x + hidden.squeeze(1).transpose(0, 1)


class FoldedModel(nn.Module):
    """A trained session model as it is exported; see ``forward`` for its inputs."""

    def __init__(self, model: SessionModel) -> None:
        super().__init__()
        with torch.no_grad():
            self.model = copy.deepcopy(model).eval()
            self.model.events = FoldedEvents(self.model.events)  # type: ignore[assignment]
            for i, block in enumerate(self.model.blocks):
                if isinstance(block, Block):
                    self.model.blocks[i] = FoldedBlock(block)
                elif isinstance(block, RecurrentBlock):
                    self.model.blocks[i] = FoldedRecurrentBlock(block)

    def forward(
        self,
        page: Tensor,
        event_type: Tensor,
        hour_of_week: Tensor,
        text: Tensor,
        log_dwell: Tensor,
        log_gap: Tensor,
        lengths: Tensor,
        texts: Tensor,
    ) -> Tensor:
        """(B, dim) embeddings.

        Args:
            page: (B, L) ids. event_type: (B, L) ids. hour_of_week: (B, L), 0 = Monday 00:00 UTC.
            text: (B, L), rows of ``texts``. log_dwell, log_gap: (B, L) float32, ln(1 + s), NaN where missing.
            lengths: (B,), from 1 to max_events; what stands after a session's end has no effect.
            texts: (T, text_dim) float32.
        """
        numeric = (log_dwell, log_gap, hour_of_week)
        _, embedding = self.model.hidden(page, event_type, numeric, F.embedding(text, texts), lengths)  # type: ignore[arg-type]
        return embedding
