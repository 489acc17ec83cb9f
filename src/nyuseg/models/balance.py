"""Rare classes in balance: what a network says of each class, against how common the class is.

A network that learns from all pixels alike says a class that is rare in them too rarely for the
mIoU, which counts all classes alike. Logit adjustment (Menon et al., ICLR 2021) divides each
probability by a power of the class's share of the training pixels: a constant in each logit, which
is kept as the bias of the last layer. So nothing that predicts knows of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

HEAD = "segmentation_head."


def class_offsets(inverse_shares: np.ndarray | None, power: float) -> torch.Tensor | None:
    """What is added to the logits, float32 [13]: `power` times the logarithm of each class's
    inverse share of the training pixels, float [13], 0 for a class without pixels; None for a power
    of 0."""
    if not power:
        return None
    assert inverse_shares is not None  # See TrainingSet.
    found = np.log(inverse_shares, out=np.zeros(len(inverse_shares)), where=inverse_shares > 0)
    return torch.from_numpy(power * found).float()


def add_offsets(
    state: Mapping[str, torch.Tensor], offsets: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The weights of a network whose logits are larger by `offsets`, [13]."""
    name = _bias_name(state)
    return {**state, name: state[name] + offsets.to(state[name])}


@contextmanager
def balanced(network: nn.Module, offsets: torch.Tensor | None) -> Iterator[None]:
    """Within the `with` block, a network's logits are larger by `offsets`; then its weights are, to
    the bit, what they were."""
    if offsets is None:
        yield
        return
    name = _bias_name(network.state_dict())
    bias = network.get_parameter(name)
    before = bias.detach().clone()
    try:
        bias.data += offsets.to(bias)
        yield
    finally:
        bias.data.copy_(before)


def _bias_name(names: Iterable[str]) -> str:
    return [name for name in names if name.startswith(HEAD) and name.endswith("bias")][-1]
