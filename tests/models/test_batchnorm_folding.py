"""Networks for inference: BatchNorm folded into convolutions, weights put in without a detour."""

import pytest
import timm
import torch
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.models.batchnorm_folding import find_pairs, fold_batchnorm
from nyuseg.models.network import build_model, load_network


def sections(encoder: str, decoder: str) -> tuple[Model, Data]:
    model = {"encoder": encoder, "decoder": decoder, "encoder_weights": None}
    return Model.model_validate(model), Data(size=(64, 96))


def lived_in(network: nn.Module) -> nn.Module:
    """With statistics and weights as training leaves them: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.uniform_(-0.2, 0.2, generator=generator)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.6, 1.4, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("encoder", "decoder", "left"),
    [
        ("resnet18", "deeplabv3plus", 0),
        ("tu-test_efficientnet", "unet", 0),  # Its BatchNorm holds the activation, too.
        ("tu-test_convnext", "upernet", 0),
        ("mit_b0", "fpn", 0),  # Computes while it is built: no skeleton without memory.
        ("densenet121", "unet", 62),  # BatchNorm before the convolution: not to be folded.
    ],
)
@torch.no_grad()
def test_a_loaded_network_answers_as_the_trained_one(encoder: str, decoder: str, left: int) -> None:
    settings = sections(encoder, decoder)
    trained = lived_in(build_model(*settings))
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    image = torch.randn(2, 4, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = trained(image)
    loaded = load_network(*settings, state)
    assert norms(trained) > 0 or encoder == "mit_b0"
    assert norms(loaded) == left
    for key, found in loaded(image).items():
        assert torch.allclose(found, expected[key], rtol=1e-4, atol=1e-4 * expected[key].std())
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, state[name])  # What was given is not changed.


@torch.no_grad()
def test_half_precision_weights_become_float32_and_networks_share_nothing() -> None:
    settings = sections("resnet18", "unet")
    states = [build_model(*settings).half().state_dict() for _ in range(2)]
    one, two = (load_network(*settings, state) for state in states)
    assert {p.dtype for p in one.parameters()} == {torch.float32}
    image = torch.randn(1, 4, 64, 96)
    before = two(image)["logits"]
    for tensor in one.parameters():
        tensor.zero_()
    assert torch.equal(two(image)["logits"], before)


def test_weights_of_another_network_do_not_fit() -> None:
    state = build_model(*sections("resnet18", "unet")).state_dict()
    for encoder in ("resnet34", "mit_b0"):
        with pytest.raises(RuntimeError):
            load_network(*sections(encoder, "unet"), state)


class Tangled(nn.Module):
    """`seen` is read by a BatchNorm and by the sum; `twice` has two inputs: neither may fold."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.twice, self.plain = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.a, self.b, self.c = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        seen = self.seen(image)
        other = self.b(self.twice(self.a(seen) + seen))
        return self.c(self.plain(torch.relu(self.twice(other))))


@torch.no_grad()
def test_only_a_convolution_that_one_batchnorm_alone_reads_is_folded() -> None:
    network = lived_in(Tangled())
    image = torch.randn(2, 4, 9, 7)
    expected = network(image)
    pairs = find_pairs(network, image)
    assert pairs == (("plain", "c"),)
    fold_batchnorm(network, pairs)
    assert torch.allclose(network(image), expected, atol=1e-5)


@torch.no_grad()
def test_timms_batchnorm_keeps_its_activation() -> None:
    network = lived_in(timm.create_model("test_efficientnet"))
    image = torch.randn(1, 3, 64, 96)
    expected = network(image)
    fold_batchnorm(network, find_pairs(network, image))
    assert norms(network) == 0
    assert torch.allclose(network(image), expected, atol=1e-5)
