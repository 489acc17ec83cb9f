"""Activation checkpointing: less memory for more arithmetic, with the same result."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nyuseg.utils.errors import UserError

Contexts = tuple[AbstractContextManager[object], AbstractContextManager[object]]


def recompute_blocks(network: nn.Module) -> int:
    """Make each repeated block of a network forget its activations and compute them again when
    the gradient needs them; returns how many blocks that are.

    A block is a child of a list of children of one class (the bottlenecks of a ResNet's stage,
    the blocks of a transformer), and of several within each other the innermost. Chen et al. 2016,
    arXiv 1604.06174. Raises UserError when there is none.
    """
    lists = [m for m in network.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    blocks = [block for parent in lists if _repeats(parent) for block in parent]
    outer = {id(b) for b in blocks if any(m is not b and m in blocks for m in b.modules())}
    blocks = [block for block in blocks if id(block) not in outer]
    if not blocks:
        raise UserError(
            "compute.checkpointing: this encoder has no repeated blocks; use compute.accumulate"
        )
    for block in blocks:
        block.__class__ = _recomputing(type(block))  # type: ignore[arg-type]
    return len(blocks)


def _repeats(parent: nn.Sequential | nn.ModuleList) -> bool:
    kinds = {type(child) for child in parent}
    return len(parent) > 1 and len(kinds) == 1 and all(any(c.children()) for c in parent)


@cache
def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of blocks, like another class of them, that are computed again.

    A function put into a block instead would refer to it, and so keep its memory on a GPU until
    Python looks for such circles.
    """

    def forward(block: nn.Module, *inputs: Any, **options: Any) -> Any:
        once = partial(kind.forward, block)
        if not block.training:
            return once(*inputs, **options)
        if not torch.compiler.is_compiling():  # What is compiled counts a batch once by itself.
            options["context_fn"] = partial(_contexts, block)
        return checkpoint(once, *inputs, use_reentrant=False, **options)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _contexts(block: nn.Module) -> Contexts:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second forward pass must not count the batch twice in BatchNorm's running mean."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:  # Counted on a copy: torch's synced one insists.
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, momentum, tracked in before:
            norm.momentum, norm.num_batches_tracked = momentum, tracked
