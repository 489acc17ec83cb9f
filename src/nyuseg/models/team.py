"""The processes that work on one network together, as torchrun starts them; usually one alone."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import is_asked, stop_if_asked

Item = TypeVar("Item")
# One of them writes out-of-fold masks, or pools, while the others wait.
PATIENCE = timedelta(hours=12)


class Team:
    """This process among `size` of them, numbered from 0. Alone, nothing is exchanged."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of some items; parts follow one another and differ by one at most."""
        first, end = (len(items) * (self.rank + k) // self.size for k in (0, 1))
        return items[first:end]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place; all call it with tensors of one shape."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def join(self, part: torch.Tensor) -> torch.Tensor:
        """What all processes have of a share, one after the other: [n,...] of each to [N,...]."""
        if self.size == 1:
            return part
        lengths = [torch.zeros(1, dtype=torch.int64, device=part.device) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.full_like(lengths[0], len(part)))
        longest = max(int(length) for length in lengths)
        padded = part.new_zeros(longest, *part.shape[1:])
        padded[: len(part)] = part
        found = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(found, padded)
        return torch.cat([one[: int(n)] for one, n in zip(found, lengths, strict=True)])

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            distributed.barrier()

    def stop_if_asked(self, device: torch.device) -> None:
        """As signals.stop_if_asked, at the same place in all processes when one was asked."""
        if self.size > 1:
            if not int(self.sum(torch.tensor([int(is_asked())], device=device))):
                return
            self.wait()
            if not is_asked():
                raise UserError("another process of this training was told to stop")
        stop_if_asked()


ALONE = Team()


def team_device() -> torch.device:
    """This process's device: its own GPU among this machine's, or the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def join_team() -> Team:
    """The team that torchrun's variables name; alone without them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if not distributed.is_initialized():
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        distributed.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    return Team(distributed.get_rank(), size)
