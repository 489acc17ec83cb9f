"""Widely dilated depthwise convolutions on a processor, ten times faster than its library's.

DeepLab's pooling pyramid convolves 2048 channels with dilations of 12, 24 and 36 on a grid of
30x40. That is hardly any arithmetic, but PyTorch's CPU library has no fast kernel for it: forward
and backward took a fifth of a training step. As a sum over the kernel's taps, each a shifted
product, they take a fortieth; taps that fall outside the grid cost nothing. With the dilations of
2 and 4 that an encoder has, the library is faster.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

WIDE = 5  # Smallest dilation at which shifted products are worth it, by measurement.
Window = tuple[slice, slice, slice, slice]
# What a convolution that is replaced and the one in its place have in common.
SAME = ("in_channels", "out_channels", "kernel_size", "padding", "dilation", "groups")


class AtrousDepthwise(nn.Conv2d):
    """A depthwise convolution that keeps its input's size. On a GPU: nn.Conv2d as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        return ShiftedProducts.apply(x, self.weight, self.dilation)


class ShiftedProducts(torch.autograd.Function):
    """x [N,C,H,W], weight [C,1,k,k] (k odd), dilation (rows, columns) -> [N,C,H,W] of x's dtype.

    Sums are in float32, as in the library's kernels.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, dilation: tuple[int, int]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        source = x.float()
        result = torch.zeros_like(source)
        for i, j, inner, shifted in _taps(x.shape, weight.shape, dilation):
            result[inner].addcmul_(source[shifted], _factor(weight, i, j))
        return result.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        source, gradient = x.float(), gradient.float()
        to_x, to_weight = torch.zeros_like(source), torch.zeros_like(weight, dtype=torch.float32)
        for i, j, inner, shifted in _taps(x.shape, weight.shape, ctx.dilation):
            to_x[shifted].addcmul_(gradient[inner], _factor(weight, i, j))
            to_weight[:, 0, i, j] = (gradient[inner] * source[shifted]).sum((0, 2, 3))
        return to_x.to(x.dtype), to_weight.to(weight.dtype), None


def _factor(weight: torch.Tensor, i: int, j: int) -> torch.Tensor:
    return weight[:, 0, i, j].float().view(-1, 1, 1)


def _taps(
    shape: torch.Size, kernel: torch.Size, dilation: tuple[int, int]
) -> Iterator[tuple[int, int, Window, Window]]:
    """The kernel's taps that reach into the grid: (row, column, where it adds to, where from)."""
    everything = slice(None)
    for i in range(kernel[2]):
        for j in range(kernel[3]):
            offsets = (i - kernel[2] // 2) * dilation[0], (j - kernel[3] // 2) * dilation[1]
            if all(abs(o) < n for o, n in zip(offsets, shape[2:], strict=True)):
                spans = [_span(o, n) for o, n in zip(offsets, shape[2:], strict=True)]
                inner, shifted = zip(*spans, strict=True)
                yield i, j, (everything, everything, *inner), (everything, everything, *shifted)


def _span(offset: int, length: int) -> tuple[slice, slice]:
    """Positions p of 0..length-1 for which p + offset lies there too, and those p + offset."""
    first, last = max(0, -offset), min(length, length - offset)
    return slice(first, last), slice(first + offset, last + offset)


def use_atrous(network: nn.Module) -> None:
    """Replace each widely dilated depthwise convolution that keeps its input's size, in place.

    Names, shapes and values of the weights stay; so do results, up to the order of a sum.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and _is_atrous(child):
                same: dict[str, Any] = {key: getattr(child, key) for key in SAME}
                fast = AtrousDepthwise(**same, bias=False, device="meta")
                fast.weight = child.weight
                fast.train(child.training)
                setattr(parent, name, fast)


def _is_atrous(conv: nn.Conv2d) -> bool:
    keeps_size = all(
        padding == dilation * (size // 2) and size % 2
        for padding, dilation, size in zip(
            conv.padding, conv.dilation, conv.kernel_size, strict=True
        )
    )
    depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
    plain = conv.stride == (1, 1) and conv.padding_mode == "zeros" and conv.bias is None
    return depthwise and plain and max(conv.dilation) >= WIDE and keeps_size
