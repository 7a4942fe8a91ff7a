"""What a killed training needs to go on exactly where it was: weights, optimizer, position. No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clickintent.encoder.network import Network
from clickintent.workspace import atomically

NAME = "encoder-training.safetensors"


@dataclass
class Position:
    """Where training stands: the batches before ``batch`` of ``chunk`` of ``epoch`` are done."""

    epoch: int = 0
    chunk: int = 0
    batch: int = 0
    finished: bool = False
    seconds: float = 0.0
    sessions: int = 0  # trained on so far, one counted as often as it was
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's losses
    counts: dict[str, int] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)  # the mean losses of each

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(loss.detach())
            self.counts[name] = self.counts.get(name, 0) + 1


def save(
    path: Path, key: str, network: Network, optimizer: torch.optim.Optimizer, position: Position
) -> None:
    """Write a checkpoint atomically, in place of the last one."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": tensor for name, tensor in state.items()})
    metadata = {"key": key, "position": json.dumps(vars(position))}
    with atomically(path) as temporary:
        save_file({name: t.contiguous().clone() for name, t in tensors.items()}, temporary, metadata)


def read(path: Path, key: str) -> tuple[Position, dict[str, Tensor]] | None:
    """A checkpoint of the same ``key``; None where there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return None
    return Position(**json.loads(metadata["position"])), tensors


def restore(tensors: dict[str, Tensor], network: Network, optimizer: torch.optim.Optimizer) -> None:
    """Put the weights and the optimizer's state in place."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, field_name = name.split(".")
            state.setdefault(int(index), {})[field_name] = tensor
    prefix = "network."
    network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
