"""Dilated depthwise convolutions as shifted products: the same numbers as the library's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.models.atrous import AtrousDepthwise, use_atrous
from nyuseg.models.network import build_model


def convolution(channels: int, kernel: int, dilation: tuple[int, int]) -> nn.Conv2d:
    padding = tuple(d * (kernel // 2) for d in dilation)
    return nn.Conv2d(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False
    )


# Dilations below, at and beyond the grid's height or width, and different ones in each direction.
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [(5, 5), (7, 7), (30, 30), (2, 6), (9, 2)])
@pytest.mark.parametrize("size", [(7, 11), (1, 9)])
def test_output_and_gradients_are_the_librarys(kernel, dilation, size) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(convolution(5, kernel, dilation))
    x = torch.randn(2, 5, *size, requires_grad=True)
    expected = network(x)
    slope = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, network[0].weight], slope)
    use_atrous(network)
    assert isinstance(network[0], AtrousDepthwise)
    found = network(x)
    assert torch.allclose(found, expected, atol=1e-5)
    gradients = torch.autograd.grad(found, [x, network[0].weight], slope)
    for one, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_sums_are_in_float32_and_the_memory_format_stays() -> None:
    torch.manual_seed(0)
    conv = convolution(64, 3, (5, 5))
    x = torch.randn(2, 64, 10, 12).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.float(), conv.weight, padding=5, dilation=5, groups=64)
    network = nn.Sequential(conv)
    use_atrous(network)
    found = network(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Nothing but the last rounding to 8 bits is lost.
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 4},
        {"groups": 8, "dilation": 1, "padding": 1},
        {"groups": 8, "stride": 2},
        {"groups": 8, "padding": 1},
        {"groups": 8, "padding": 4, "dilation": 4},
        {"groups": 8, "padding_mode": "reflect"},
        {"groups": 8, "bias": True},
    ],
)
def test_other_convolutions_are_left_alone(options) -> None:
    usual = {"padding": 6, "dilation": 6, "bias": False}
    network = nn.Sequential(nn.Conv2d(8, 8, 3, **(usual | options)))
    use_atrous(network)
    assert type(network[0]) is nn.Conv2d


def test_deeplab_uses_it_under_the_same_names() -> None:
    network = build_model(Model(encoder="tu-test_resnet", encoder_weights=None), Data())
    names = [n for n, module in network.named_modules() if isinstance(module, AtrousDepthwise)]
    assert names == [f"decoder.aspp.0.convs.{i}.0.0" for i in (1, 2, 3)]
    assert {f"{name}.weight" for name in names} <= set(network.state_dict())
    assert all(p.device.type == "cpu" for p in network.parameters())
