"""Depthwise convolutions that compute in float32: only where it pays, and only more exact."""

import copy

import pytest
import torch
from timm.layers import create_conv2d
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.models.depthwise import InFloat32, use_float32
from nyuseg.models.network import build_model

CPU = torch.device("cpu")


def depthwise(kernel: int, stride: int, padding: str = "") -> nn.Conv2d:
    return create_conv2d(6, 6, kernel, stride=stride, padding=padding, depthwise=True)


# "same" is TensorFlow's padding, one side more than the other: a class of timm's own.
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("padding", ["", "same"])
def test_under_autocast_it_is_the_float32_result_rounded_once(kernel, stride, padding) -> None:
    torch.manual_seed(0)
    conv = depthwise(kernel, stride, padding)
    x = torch.randn(2, 6, 9, 12).bfloat16().requires_grad_()
    exact = conv(x.float())
    slope = torch.randn_like(exact).bfloat16()
    wanted = torch.autograd.grad(exact, [x, conv.weight], slope.float())
    use_float32(conv)
    assert isinstance(conv, InFloat32)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())
    gradients = torch.autograd.grad(found, [x, conv.weight], slope)
    assert torch.equal(gradients[0], wanted[0].bfloat16())
    assert torch.allclose(gradients[1], wanted[1])


def test_a_prediction_and_float32_are_as_before() -> None:
    torch.manual_seed(0)
    conv = depthwise(5, 1)
    fast = copy.deepcopy(conv)
    use_float32(fast)
    x = torch.randn(2, 6, 9, 12)
    assert torch.equal(fast(x), conv(x))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), conv(x))


def test_an_encoders_dilation_but_not_the_wide_ones_of_a_pyramid() -> None:
    model = Model(encoder="tu-tf_efficientnet_lite0", encoder_weights=None)
    network = build_model(model, Data(size=(64, 96)))
    changed = {m.dilation for m in network.modules() if isinstance(m, InFloat32)}
    assert changed == {(1, 1), (2, 2)}


def test_an_encoder_keeps_its_names_and_other_convolutions_stay() -> None:
    model = Model(encoder="tu-tf_efficientnet_lite0", encoder_weights=None)
    network = build_model(model, Data(size=(64, 96)))
    changed = {n: m for n, m in network.named_modules() if isinstance(m, InFloat32)}
    assert "encoder.model.blocks.1.0.conv_dw" in changed  # Stride 2.
    assert "encoder.model.blocks.0.0.conv_dw" not in changed  # 3x3, stride 1.
    assert not any(name.startswith("decoder") for name in changed)
    assert {f"{name}.weight" for name in changed} <= set(network.state_dict())
    assert not [m for m in changed.values() if m.groups == 1]
