"""Several processes that train one encoder together, as ``torchrun`` starts them; usually there is one.

Where there is one, torch is not loaded for its sake.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from clickintent.errors import require

if TYPE_CHECKING:
    from torch import Tensor

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
        from torch import distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def most(self, number: int) -> int:
        """The largest of the numbers."""
        if self.size == 1:
            return number
        import torch
        from torch import distributed as dist

        tensor = torch.tensor(number)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor)

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over the processes, per entry."""
        if self.size == 1:
            return numbers
        from torch import distributed as dist

        found = numbers.clone()
        dist.all_reduce(found)
        return found


ALONE = Team()


@contextmanager
def team() -> Iterator[Team]:
    """Join the processes that ``torchrun`` started with this one; alone where there are none.

    A process group that is there already is used, and left as it is.
    """
    # Threads that spin while they wait make training many times slower on a machine that has other work.
    # Read when torch loads; has no effect where it was imported before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    is_launched = "TORCHELASTIC_RUN_ID" in os.environ  # by torchrun
    if not is_launched and "torch.distributed" not in sys.modules:
        yield ALONE
        return
    require("torch", "train")
    from torch import distributed as dist

    if dist.is_available() and dist.is_initialized():
        yield Team(dist.get_rank(), dist.get_world_size())
    elif not is_launched:
        yield ALONE
    else:
        dist.init_process_group("gloo")
        try:
            yield Team(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
