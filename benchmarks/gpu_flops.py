"""How much arithmetic a training step is, and how much a device can do, for ``gpu.py``."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clickintent.encoder.batches import Cuts
from clickintent.encoder.chunks import Chunk
from clickintent.encoder.features import FeatureSpace, Ints, pad
from clickintent.encoder.network import Network
from clickintent.encoder.objectives import Masks, targets

#: Dense bfloat16 FLOP/s by the data sheets of NVIDIA; the first name that is part of the device's counts.
DATA_SHEETS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "A100": 312e12,
}

#: Lengths that are counted. The rest follows: FLOP are a quadratic function of a session's events.
_COUNTED = (1, 4, 16)
_SESSIONS = 16


def flops_by_length(network: Network, chunk: Chunk, space: FeatureSpace, longest: int) -> Ints:
    """(longest + 1,): FLOP of forward and backward for one session of so many visible events.

    Counted by ``FlopCounterMode`` on batches of sessions of one length, so without padding. As usual only
    matrix products count. The heads for masked events are left out (some 2 %): nothing is masked here.
    """
    found = [_counted(network, chunk, space, length) for length in _COUNTED]
    fitted = np.polyfit(_COUNTED, found, 2)
    return np.round(np.polyval(fitted, np.arange(longest + 1))).astype(np.int64)


def _counted(network: Network, chunk: Chunk, space: FeatureSpace, length: int) -> float:
    offsets = chunk.events.offsets
    rows = np.flatnonzero(chunk.events.lengths >= length)[:_SESSIONS]
    cuts = Cuts(offsets[rows], offsets[rows] + length, offsets[rows + 1])
    batch = pad(chunk.events, cuts.starts, cuts.lengths)
    masks = Masks(*np.zeros((5, *batch.page.shape), dtype=bool))
    answers = targets(chunk.events, chunk.following, cuts, batch, masks, space)
    # of the backends of attention, this one consists of matrix products that are counted on any device
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(batch, chunk.texts, answers)["loss"].backward()
    network.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(rows)


def measured_peak(device: str, size: int) -> float:
    """FLOP/s of the product of two square bfloat16 matrices, the best of several tries."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = np.inf
    for _ in range(10):  # the first ones warm up
        if device == "cuda":
            torch.cuda.synchronize()
        before = time.perf_counter()
        for _ in range(5):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - before)
    return 5 * 2 * size**3 / best


def data_sheet_peak(name: str) -> float | None:
    """Of a device by its name, as torch has it; None if not known."""
    return next((peak for part, peak in DATA_SHEETS.items() if part in name), None)
