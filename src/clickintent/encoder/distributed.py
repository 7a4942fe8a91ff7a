"""Several processes that train one encoder together, as ``torchrun`` starts them; usually there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """This process among those that train together. Every method must be called by all of them."""

    rank: int = 0
    size: int = 1

    def same(self, value: T) -> T:
        """The value that the first process gave."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def most(self, number: int) -> int:
        """The largest of the numbers."""
        return int(self._reduced(torch.tensor(number), dist.ReduceOp.MAX))

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over the processes, per entry."""
        return self._reduced(numbers.clone(), dist.ReduceOp.SUM)

    def _reduced(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size > 1:
            dist.all_reduce(tensor, op=how)
        return tensor


ALONE = Team()


@contextmanager
def team() -> Iterator[Team]:
    """Join the processes that ``torchrun`` started with this one; alone where there are none.

    A process group that is there already is used, and left as it is.
    """
    if dist.is_initialized():
        yield Team(dist.get_rank(), dist.get_world_size())
    elif not dist.is_torchelastic_launched():
        yield ALONE
    else:
        dist.init_process_group("gloo")
        try:
            yield Team(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
