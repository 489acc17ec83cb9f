"""The processes that work on one network together, as torchrun starts them; usually one alone."""

import os
import platform
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from nyuseg.models.device import gpu_count, pick_device
from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import is_asked, stop_if_asked

Item = TypeVar("Item")
VARIABLES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
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

    def agree(self, answer: bool) -> bool:
        """The first process's answer, in all of them."""
        if self.size == 1:
            return answer
        return bool(self.sum(torch.tensor([int(answer and self.is_first)])))

    def one_first(self, make: Callable[[], Item]) -> Item:
        """What a function makes: the first process's before the others', which find it done."""
        if not self.is_first:
            self.wait()
        found = make()
        if self.is_first:
            self.wait()
        return found

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            distributed.barrier()

    def stop_if_asked(self) -> None:
        """As signals.stop_if_asked, at the same place in all processes when one was asked.

        The question goes round between the processors, so that no GPU is waited for.
        """
        if self.size > 1:
            if not int(self.sum(torch.tensor([int(is_asked())]))):
                return
            self.wait()
            if not is_asked():
                raise UserError("another process of this training was told to stop")
        stop_if_asked()

    def leave(self) -> None:
        """Take leave of the others, at the end."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()


ALONE = Team()


def team_device() -> torch.device:
    """This process's device: its own GPU among this machine's, or the processor."""
    first = pick_device()  # Which sets torch up for it.
    return torch.device("cuda", torch.cuda.current_device()) if first.type == "cuda" else first


def join_team() -> Team:
    """The team that torchrun's variables name; alone without them.

    Raises UserError where some of them are missing, or a machine has fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE={size} is set but not {', '.join(missing)}: start by torchrun, or unset it"
        )
    if not distributed.is_initialized():
        gpus, place = gpu_count(), int(os.environ["LOCAL_RANK"])
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if gpus and gpus not in (1, *range(here, gpus + 1)):
            raise UserError(f"{here} processes for {gpus} GPUs; start fewer by --nproc-per-node")
        if gpus:
            torch.cuda.set_device(place if gpus > 1 else 0)
        # Questions and answers go round between processors, gradients between GPUs.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
        if gpus:
            _require_own_gpus(Team(distributed.get_rank(), size), here)
    return Team(distributed.get_rank(), size)


def _require_own_gpus(team: Team, here: int) -> None:
    """Raise UserError, in all processes, when two have one GPU: each may see but one, its own."""
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    marks = torch.zeros(team.size, dtype=torch.int64)
    marks[team.rank] = zlib.crc32(f"{platform.node()} {uuid}".encode())
    if len(team.sum(marks).unique()) < team.size:
        raise UserError(
            f"{here} processes and not a GPU for each on {platform.node()}; start fewer by "
            "--nproc-per-node"
        )
