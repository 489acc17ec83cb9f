"""BatchNorm over the images of all processes, which makes a batch what it is on one device."""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import convert_sync_batchnorm
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def sync_batchnorm(network: nn.Module, device: torch.device) -> nn.Module:
    """Make each BatchNorm of a network, in place, count all processes' images in training.

    On GPUs it is torch's SyncBatchNorm, by timm's conversion, which knows timm's own layers. Torch
    has none for processors.
    """
    if device.type == "cuda":
        found: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return found
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
    return network


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as each of them adds to the loss."""

    @staticmethod
    def forward(_: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _sum_of_all(values: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _SumOfAll.apply(values)
    return total


def _forward(self: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    if self.training:
        y = _normalise(self, x)
    else:
        y = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
    # timm's layers go on with a dropout and an activation.
    for name in ("drop", "act"):
        if name in self._modules:
            y = self._modules[name](y)  # type: ignore[misc]
    return y


def _normalise(norm: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    """Ioffe & Szegedy 2015, with mean and variance over all processes; x: [N,C,...]."""
    places = [0, *range(2, x.ndim)]
    exact = x if x.dtype == torch.float64 else x.float()
    count = exact.new_full((1,), x.numel() // x.shape[1])
    sums = torch.cat([exact.sum(places), count])
    total = _sum_of_all(sums)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    mean = total[:-1] / total[-1]
    centred = exact - mean.view(shape)
    # In two passes: the difference of two large sums would lose digits.
    variance = _sum_of_all(centred.square().sum(places)) / total[-1]
    if norm.track_running_stats:
        assert norm.num_batches_tracked is not None
        assert norm.running_mean is not None and norm.running_var is not None
        norm.num_batches_tracked.add_(1)
        rate = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        unbiased = variance.detach() * (total[-1] / (total[-1] - 1)).detach()
        norm.running_mean.lerp_(mean.detach(), rate)
        norm.running_var.lerp_(unbiased, rate)
    y = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    return y.to(x.dtype)
