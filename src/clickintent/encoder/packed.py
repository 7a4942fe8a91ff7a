"""Transformer blocks without padding: a batch's events in one row, each attends to its own session alone.

On CUDA, attention is torch's ``varlen_attn`` (FlashAttention-2, Dao 2023), which takes half precision only
and never computes what is padded. Anywhere else the attention pads, so that everything around it can be
checked without a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clickintent.config import EncoderConfig
from clickintent.encoder.features import Ints

# What the kernel asks for: the generation Ampere, and heads of whole groups of eight numbers.
_CAPABILITY = (8, 0)
_HEAD_STEP, _HEAD_MOST = 8, 256


class Packing(NamedTuple):
    """Where the N events of B padded sessions are."""

    places: Tensor  # (N,) int64, in the batch flattened to (B · L,)
    offsets: Tensor  # (B + 1,) int32, of the sessions among the N events
    longest: int  # L

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, …) → (N, …)."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, packed: Tensor) -> Tensor:
        """(N, …) → (B, L, …), zeros where no event is."""
        sessions = self.offsets.shape[0] - 1
        empty = packed.new_zeros(sessions * self.longest, *packed.shape[1:])
        return empty.index_copy(0, self.places, packed).reshape(sessions, self.longest, *packed.shape[1:])


def packing_of(lengths: Ints, longest: int, device: torch.device) -> Packing:
    """Made on the host, because a device that is asked where its events are must first finish all its work.

    Args:
        lengths: (B,), from 1 to ``longest``, the padded length.
    """
    places = np.flatnonzero(np.arange(longest) < lengths[:, None])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return Packing(torch.from_numpy(places).to(device), torch.from_numpy(offsets).to(device), longest)


def attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """Each event to all of its session; all are (N, heads, numbers of a head)."""
    if _has_kernel(query):
        from torch.nn.attention.varlen import varlen_attn

        offsets, longest = packing.offsets, packing.longest
        mixed = varlen_attn(query, key, value, offsets, offsets, longest, longest)
        assert isinstance(mixed, Tensor)  # without return_aux it is
        return mixed
    q, k, v = (packing.pad(part).transpose(1, 2) for part in (query, key, value))
    mask = packing.pad(torch.ones_like(packing.places, dtype=torch.bool))[:, None, None]
    return packing.pack(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2))


def _has_kernel(query: Tensor) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def can_pack(config: EncoderConfig) -> bool:
    """Whether training on ``config.device`` gains by it: whether there is a kernel for it."""
    if config.device != "cuda" or config.cell != "transformer":
        return False
    head = config.width // config.heads
    try:
        import torch.nn.attention.varlen
    except ImportError:
        return False
    fits = head % _HEAD_STEP == 0 and head <= _HEAD_MOST
    return fits and torch.version.hip is None and torch.cuda.get_device_capability() >= _CAPABILITY
