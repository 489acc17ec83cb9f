"""What every network keeps to, whichever decoder and encoder it is made of."""

from pathlib import Path

import pytest
import torch
from release_facts import release_facts
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.models.network import build_model
from nyuseg.models.release import open_release, release_weights
from nyuseg.models.tensors import read_tensors

DECODERS = ("deeplabv3plus", "fpn", "upernet", "unet")
# A ResNet of this library and of timm, inverted residuals, a ConvNet with layer norms, and two
# transformers of four scales; timm's cannot be dilated, so DeepLab does not take it.
ENCODERS = ("resnet18", "tu-test_resnet", "tu-test_efficientnet", "tu-test_convnext", "mit_b0")
PAIRS = [(encoder, decoder) for encoder in ENCODERS for decoder in DECODERS]
PAIRS += [("tu-pvt_v2_b0", decoder) for decoder in DECODERS[1:]]
PAIRS += [("tu-test_vit", "dpt"), ("tu-test_vit3", "dpt")]  # Plain transformers.
SIZE = (32, 96)


def sections(
    encoder: str, decoder: str, channels: tuple[str, ...] = ("rgb", "inverse_depth")
) -> tuple[Model, Data]:
    model = Model.model_validate({"encoder": encoder, "decoder": decoder, "encoder_weights": None})
    return model, Data.model_validate({"channels": channels, "size": SIZE})


def images(count: int, channels: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, channels, *SIZE, generator=generator)


@pytest.fixture(scope="module", params=PAIRS, ids="+".join)
def built(request: pytest.FixtureRequest) -> tuple[tuple[Model, Data], nn.Module]:
    """The sections of a pair and its network, in which no scale, shift or statistic is 0 or 1."""
    torch.manual_seed(2)
    options = sections(*request.param)
    return options, unlike_new(build_model(*options))


@torch.no_grad()
def unlike_new(network: nn.Module) -> nn.Module:
    """The network with every scale, shift and statistic drawn from 0.5..1.5."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 1:
            tensor.copy_(torch.empty_like(tensor).uniform_(0.5, 1.5))
    return network


def test_answers_have_stride_4_and_every_weight_learns(built) -> None:
    network = built[1].train()
    network.zero_grad(set_to_none=True)
    output = network(images(2))
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        "logits": (2, 13, 8, 24),
        "depth": (2, 1, 8, 24),
    }
    assert all(value.isfinite().all() for value in output.values())
    sum(value.square().mean() for value in output.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A shift before a BatchNorm has none to give; a matrix always has.
        assert parameter.ndim == 1 or parameter.grad.any(), name


@torch.no_grad()
def test_an_answer_is_the_same_again_and_in_other_company(built) -> None:
    network = built[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = images(3)
    first, second, alone = network(batch), network(batch), network(batch[1:2])
    for key, value in first.items():
        assert torch.equal(value, second[key])
        assert torch.allclose(value[1:2], alone[key], rtol=1e-3, atol=1e-3 * value.std())
        assert not torch.allclose(value[0], value[1], rtol=1e-2)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@torch.no_grad()
def test_release_weights_bring_back_the_same_bits(built, tmp_path: Path) -> None:
    options, network = built
    state = network.eval().state_dict()
    files = FoldFiles(tmp_path)
    release_weights(files, state, release_facts())
    stored = read_tensors(files.weights)
    assert stored.keys() == state.keys()
    for name, value in state.items():
        assert stored[name].dtype == value.dtype and torch.equal(stored[name], value), name
    batch = images(2)
    trained = network(batch)
    first, second = (open_release(files, *options)(batch) for _ in range(2))
    for key, value in trained.items():
        assert torch.equal(first[key], second[key])
        # Folding BatchNorm rounds.
        assert torch.allclose(first[key], value, rtol=1e-3, atol=1e-3 * value.std())


@torch.no_grad()
def test_release_weights_hold_an_encoder_that_uses_weights_in_several_places(
    tmp_path: Path,
) -> None:
    options = sections("tu-coat_lite_tiny", "unet")
    network = build_model(*options).eval()
    state = network.state_dict()
    assert len({value.data_ptr() for value in state.values()}) < len(state) - 9
    files = FoldFiles(tmp_path)
    release_weights(files, state, release_facts())
    opened, batch = open_release(files, *options), images(1)
    for key, value in network(batch).items():
        assert torch.allclose(opened(batch)[key], value, rtol=1e-3, atol=1e-3 * value.std())


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fpn", "upernet", "unet", "dpt"])
def test_a_decoder_is_as_wide_as_it_is_told(decoder: str) -> None:
    encoder = "tu-test_vit" if decoder == "dpt" else "tu-test_resnet"
    model = Model(decoder=decoder, encoder=encoder, encoder_weights=None)
    changes = ({}, {"decoder_channels": 256}, {"decoder_channels": 64})
    with torch.device("meta"):
        untold, usual, narrow = (
            build_model(model.model_copy(update=change), Data(size=SIZE)) for change in changes
        )
    assert _shapes(untold) == _shapes(usual)
    assert _shapes(narrow.encoder) == _shapes(usual.encoder)
    few, many = (sum(p.numel() for p in net.decoder.parameters()) for net in (narrow, usual))
    assert few < 0.6 * many
    assert narrow.eval()(images(2).to("meta"))["logits"].shape == (2, 13, 8, 24)


@pytest.mark.parametrize("decoder", ["fpn", "upernet", "unet", "dpt"])
@torch.no_grad()
def test_a_separable_decoder_filters_each_channel_by_itself(tmp_path: Path, decoder: str) -> None:
    torch.manual_seed(2)
    encoder = "tu-test_vit" if decoder == "dpt" else "tu-test_resnet"
    plain = Model(decoder=decoder, encoder=encoder, encoder_weights=None)
    options, data = plain.model_copy(update={"separable": True}), Data(size=SIZE)
    usual, network = (unlike_new(build_model(one, data)).eval() for one in (plain, options))
    assert _shapes(network.encoder) == _shapes(usual.encoder)
    wide = [
        conv
        for conv in network.decoder.modules()
        if isinstance(conv, nn.Conv2d) and max(conv.kernel_size) > 1
    ]
    assert len(wide) >= 5 and all(conv.groups == conv.in_channels for conv in wide)
    few, many = (sum(p.numel() for p in net.decoder.parameters()) for net in (network, usual))
    assert few < 0.5 * many
    batch = images(1)
    for key, value in network(batch).items():
        assert value.shape == usual(batch)[key].shape and value.std() > 0
    # What the kernel opens is the same network.
    files = FoldFiles(tmp_path)
    release_weights(files, network.state_dict(), release_facts())
    opened = open_release(files, options, data)
    for key, value in network(batch).items():
        assert torch.allclose(opened(batch)[key], value, rtol=1e-2, atol=1e-2 * value.std())
    # And every filter learns.
    network.train().zero_grad(set_to_none=True)
    with torch.enable_grad():
        sum(value.square().mean() for value in network(images(2)).values()).backward()
    assert all(conv.weight.grad.abs().max() > 0 for conv in wide)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in network.named_parameters()}


@pytest.mark.parametrize(
    "channels", [("rgb",), ("rgb", "log_depth"), ("rgb", "inverse_depth", "xy")], ids="+".join
)
@pytest.mark.parametrize("encoder", [*ENCODERS, "tu-pvt_v2_b0"])
@torch.no_grad()
def test_every_channel_is_looked_at(encoder: str, channels: tuple[str, ...]) -> None:
    torch.manual_seed(2)
    options, data = sections(encoder, "fpn", channels)
    network = build_model(options, data).eval()
    count = {1: 3, 2: 4, 3: 6}[len(channels)]
    assert data.channel_count == count
    batch = images(1, count)
    answer = network(batch)["logits"]
    assert answer.shape == (1, 13, 8, 24)
    for channel in range(count):
        changed = batch.clone()
        changed[:, channel] = 0
        assert not torch.equal(network(changed)["logits"], answer), channel
