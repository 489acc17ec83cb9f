"""Two streams: the image and the depth through one encoder, norms apart, merged by gates."""

from pathlib import Path

import pytest
import torch
from release_facts import release_facts
from safetensors.torch import save_file
from torch import nn

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.inference.probe import require_network
from nyuseg.models.encoder_layers import layer_depths
from nyuseg.models.network import MultiTaskNet, build_model
from nyuseg.models.release import open_release, release_weights
from nyuseg.models.two_stream import GatedMerge
from nyuseg.training.optimization import TrainingStep
from nyuseg.utils.errors import UserError

SIZE = (64, 96)
PAIRS = [
    ("tu-test_resnet", "deeplabv3plus"),
    ("tu-test_convnext", "unet"),
    ("tu-test_efficientnet", "fpn"),
    ("resnet18", "upernet"),
]


def config(
    encoder: str = "tu-test_resnet",
    decoder: str = "deeplabv3plus",
    channels: tuple[str, ...] = ("rgb", "inverse_depth"),
    fusion: str = "two_stream",
    weights: str | None = None,
    **sections,
) -> Config:
    model = {"encoder": encoder, "decoder": decoder, "encoder_weights": weights, "fusion": fusion}
    data = {"channels": channels, "size": SIZE}
    return parse_config({"name": "x", "model": model, "data": data, **sections}, "test")


def built(wish: Config) -> MultiTaskNet:
    torch.manual_seed(7)
    return build_model(wish.model, wish.data)


def images(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    batch = torch.randn(count, 4, *SIZE, generator=generator)
    batch[:, 3] = batch[:, 3].abs().clamp(max=1) * (batch[:, 0] > -0.5)
    return batch


def test_gates_let_pass_what_they_should() -> None:
    merge = GatedMerge(6)
    rgb, depth = torch.randn(2, 2, 6, 4, 5, generator=torch.Generator().manual_seed(1))
    channels, pixels = merge.channel_gates[2], merge.pixel_gates[2]
    with torch.no_grad():
        for gates in (channels, pixels):
            gates.weight.zero_()
            gates.bias.fill_(-100)
        assert torch.allclose(merge(rgb, depth), (rgb + depth) / 2, atol=1e-6)  # All closed.
        channels.bias[1] = 100  # The image's second channel takes the depth's.
        expected = (rgb + depth) / 2
        expected[:, 1] += depth[:, 1] / 4
        assert torch.allclose(merge(rgb, depth), expected, atol=1e-6)
        pixels.bias[1] = 100  # And the depth takes the image, at each pixel.
        assert torch.allclose(merge(rgb, depth), expected + rgb / 4, atol=1e-6)


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_both_streams_and_every_weight_learn(encoder: str, decoder: str) -> None:
    network = built(config(encoder, decoder)).train()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # Some encoders start blocks with a factor of 0.
                parameter.uniform_(0.5, 1.5)
    output = network(images())
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        "logits": (2, 13, 16, 24),
        "depth": (2, 1, 16, 24),
    }
    sum(value.square().mean() for value in output.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A shift before a BatchNorm has none to give; a matrix always has.
        assert parameter.ndim == 1 or parameter.grad.any(), name


@torch.no_grad()
def test_the_streams_share_weights_and_no_statistics() -> None:
    plain = built(config(channels=("rgb",), fusion="early")).train()
    both = built(config()).train()
    batch = images(4)
    plain.encoder(batch[:, :3])
    both(batch)
    expected, found = plain.encoder.state_dict(), both.encoder.state_dict()
    names = [name for name in expected if name.endswith("running_var")]
    for name in names:
        path, _, leaf = name.rpartition(".")
        assert torch.allclose(found[f"{path}.rgb.{leaf}"], expected[name], rtol=1e-4), name
        assert not torch.allclose(found[f"{path}.depth.{leaf}"], expected[name], rtol=2e-3), name
    assert names
    # Filters are there once.
    assert sum(p.ndim == 4 for p in both.encoder.parameters()) == sum(
        p.ndim == 4 for p in plain.encoder.parameters()
    )


@torch.no_grad()
def test_an_image_is_answered_alike_in_other_company_and_each_stream_counts() -> None:
    network = built(config()).train()
    network(images(6))  # Statistics.
    network.eval()
    batch = images(3)
    answer = network(batch)["logits"]
    alone = network(batch[1:2])["logits"]
    assert torch.allclose(answer[1:2], alone, rtol=1e-3, atol=1e-3 * float(answer.std()))
    for channel in range(4):
        changed = batch.clone()
        changed[:, channel] = 0
        assert not torch.equal(network(changed)["logits"], answer), channel


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@torch.no_grad()
def test_release_weights_answer_as_the_trained_network(
    encoder: str, decoder: str, tmp_path: Path
) -> None:
    wish = config(encoder, decoder)
    network = built(wish).train()
    network(images(4))
    network.eval()
    files = FoldFiles(tmp_path)
    release_weights(files, network.state_dict(), release_facts())
    loaded = open_release(files, wish.model, wish.data)
    for key, value in network(images()).items():
        found = loaded(images())[key]
        assert torch.allclose(found, value, rtol=1e-3, atol=1e-3 * float(value.std()))


def test_both_norms_start_from_a_file_of_rgb_weights(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    plain = built(config(channels=("rgb",), fusion="early")).encoder
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.weight.data.uniform_(0.5, 2)
    weights = plain.state_dict()
    save_file(weights, path)
    wish = config(weights=str(path))
    found = build_model(wish.model, wish.data).encoder.state_dict()
    names = {name.replace(".rgb.", ".").replace(".depth.", "."): name for name in found}
    assert names.keys() == weights.keys()
    for name, tensor in found.items():
        old = name.replace(".rgb.", ".").replace(".depth.", ".")
        assert torch.equal(tensor, weights[old]), name


def test_recomputed_activations_and_an_average_change_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    batch = {
        "image": images(4),
        "label": torch.randint(13, (4, *SIZE), generator=generator),
        "depth": torch.rand(4, 1, *SIZE, generator=generator),
        "depth_valid": torch.rand(4, 1, *SIZE, generator=generator) > 0.3,
    }
    found = []
    for thrifty in (False, True):
        train = {"batch_size": 4, "ema": 0.5 if thrifty else None}
        compute = {"precision": "fp32", "checkpointing": thrifty}
        wish = config("resnet18", train=train, compute=compute)
        step = TrainingStep(built(wish).train(), wish.train, wish.compute, torch.device("cpu"))
        torch.manual_seed(5)  # Dropout.
        losses = [step(batch) for _ in range(2)]
        found.append((losses, step.model.state_dict()))
    (losses, state), (others, other) = found
    assert all(torch.equal(a, b) for a, b in zip(losses, others, strict=True))
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_norms_of_both_streams_learn_at_the_rate_of_their_layer() -> None:
    depths = []
    for fusion in ("early", "two_stream"):
        wish = config("tu-convnext_atto", "upernet", fusion=fusion)
        with torch.device("meta"):
            depths.append(layer_depths(build_model(wish.model, wish.data).encoder))
    early, both = depths
    norms = [name for name in both if ".rgb." in name]
    assert norms and len({both[name] for name in norms}) > 5
    for name in norms:
        depth = name.replace(".rgb.", ".depth.")
        assert both[name] == both[depth] == early[name.replace(".rgb.", ".")]
    assert {name: both[name] for name in early if name in both}.items() <= early.items()


@pytest.mark.parametrize("encoder", ["tu-swin_tiny_patch4_window7_224", "tu-convnextv2_atto"])
def test_encoders_with_layer_norms_will_do(encoder: str) -> None:
    require_network(config(encoder, "upernet"))


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        (("rgb",), r"two_stream needs a channel of the depth in data\.channels"),
        (("rgb", "xy"), r"two_stream needs a channel of the depth in data\.channels"),
        (("rgb", "inverse_depth", "xy"), r"data\.channels has rgb, inverse_depth, xy$"),
        (("rgb", "inverse_depth", "log_depth"), r"data\.channels has rgb, inverse_depth, log"),
    ],
)
def test_channels_that_do_not_make_two_streams_are_one_line(channels, words: str) -> None:
    with pytest.raises(UserError, match=rf"model\.fusion: .*{words}") as caught:
        config(channels=channels)
    assert "\n" not in str(caught.value)


def test_a_plain_transformer_is_told_to_use_the_branch() -> None:
    with pytest.raises(UserError, match=r"model\.fusion: two_stream .*decoder=dpt .*use branch$"):
        config("tu-test_vit", "dpt")
