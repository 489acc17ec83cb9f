"""The depth branch: an RGB network at the start, which then learns from the depth."""

from pathlib import Path

import pytest
import torch
from release_facts import release_facts
from safetensors.torch import save_file
from torch import nn

from nyuseg.config.loading import parse_config
from nyuseg.config.sections import Data, Model, Train
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.inference.probe import require_network
from nyuseg.models.network import MultiTaskNet, build_model, load_network
from nyuseg.models.release import open_release, release_weights
from nyuseg.training.optimization import parameter_groups
from nyuseg.utils.errors import UserError

SIZE = (64, 96)
PAIRS = [
    ("tu-test_resnet", "deeplabv3plus"),
    ("resnet18", "unet"),
    ("tu-test_convnext", "unet"),  # It has no features at stride 2.
    ("tu-test_efficientnet", "fpn"),
    ("mit_b0", "upernet"),
    ("tu-test_vit", "dpt"),  # All its features have one stride.
]


def sections(
    encoder: str = "tu-test_resnet",
    decoder: str = "deeplabv3plus",
    channels: tuple[str, ...] = ("rgb", "inverse_depth"),
    **model,
) -> tuple[Model, Data]:
    given = {"encoder": encoder, "decoder": decoder, "encoder_weights": None, **model}
    data = {"channels": channels, "size": SIZE}
    config = parse_config({"name": "x", "model": given, "data": data}, "test")
    return config.model, config.data


def built(*arguments, **model) -> MultiTaskNet:
    torch.manual_seed(7)
    return build_model(*sections(*arguments, **model))


def images(channels: int = 4, count: int = 2) -> torch.Tensor:
    """Channels beyond RGB as depth codes are: 0 to 1, a third of them missing."""
    generator = torch.Generator().manual_seed(channels)
    batch = torch.randn(count, channels, *SIZE, generator=generator)
    codes = torch.rand(count, channels - 3, *SIZE, generator=generator)
    batch[:, 3:] = codes * (torch.rand(codes.shape, generator=generator) > 1 / 3)
    return batch


def opened(network: MultiTaskNet) -> MultiTaskNet:
    """The network as training leaves it: gates open, statistics neither 0 nor 1."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for gate in network.depth_branch.gates:
            gate.uniform_(0.5, 1.5, generator=generator)
        for module in network.depth_branch.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.6, 1.4, generator=generator)
    return network.eval()


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_at_the_start_it_is_the_rgb_network(encoder: str, decoder: str) -> None:
    rgb = built(encoder, decoder, ("rgb",))
    branch = built(encoder, decoder, fusion="branch")
    before, batch = rgb.state_dict(), images()
    assert {name for name in branch.state_dict() if name not in before} == {
        f"depth_branch.{name}" for name in branch.depth_branch.state_dict()
    }
    for mode in (False, True):
        torch.manual_seed(1)  # Dropout.
        expected = rgb.train(mode)(batch[:, :3])
        torch.manual_seed(1)
        found = branch.train(mode)(batch)
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_gates_learn_at_the_first_step_and_the_branch_after_it(encoder: str, decoder: str) -> None:
    network = built(encoder, decoder, fusion="branch").train()
    gates = {f"depth_branch.gates.{i}" for i in range(len(network.depth_branch.gates))}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        sum(value.square().mean() for value in network(images()).values()).backward()
        for name, parameter in network.named_parameters():
            if name.startswith("depth_branch."):
                assert parameter.grad is not None, name
                # A shift before a BatchNorm has no gradient at all.
                learns = parameter.grad.any() or (step and parameter.ndim == 1)
                assert bool(learns) == (step == 1 or name in gates), (name, step)
        optimizer.step()


@pytest.mark.parametrize(
    ("decoder", "strides"),
    [("deeplabv3plus", 4), ("fpn", 5), ("upernet", 5), ("unet", 5), ("dpt", 4)],
)
def test_no_part_is_there_that_no_decoder_reads(decoder: str, strides: int) -> None:
    encoder = "tu-test_vit" if decoder == "dpt" else "resnet18"
    branch = built(encoder, decoder, fusion="branch").depth_branch
    assert len(branch.blocks) == strides  # DeepLab's encoder stops at stride 16.
    assert len(branch.gates) == {"deeplabv3plus": 2, "unet": 5}.get(decoder, 4)


@torch.no_grad()
def test_a_missing_depth_is_told_from_the_farthest() -> None:
    """Of two codes one is 0 at the farthest, the other at the nearest: both are 0 where none is."""
    network = opened(
        built(channels=("rgb", "xy", "inverse_depth", "linear_depth"), fusion="branch")
    )
    near_and_far, seen = images(7), []
    near_and_far[:, 5:] = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    network.depth_branch.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(near_and_far)
    near_and_far[:, 5:, :20, 50:] = 0
    network(near_and_far)
    assert seen[0].shape == (2, 5, *SIZE) and seen[0][:, 4].all()
    assert not seen[1][:, 4, :20, 50:].any() and seen[1][:, 4].sum() == 2 * (64 * 96 - 20 * 46)


@pytest.mark.parametrize("channels", [("rgb", "inverse_depth"), ("rgb", "xy", "log_depth")])
@torch.no_grad()
def test_every_channel_is_looked_at(channels: tuple[str, ...]) -> None:
    network = opened(built(channels=channels, fusion="branch"))
    batch = images({2: 4, 3: 6}[len(channels)])
    answer = network(batch)["logits"]
    for channel in range(batch.shape[1]):
        changed = batch.clone()
        changed[:, channel] = 0
        assert not torch.equal(network(changed)["logits"], answer), channel


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@torch.no_grad()
def test_release_weights_answer_as_the_trained_network(
    encoder: str, decoder: str, tmp_path: Path
) -> None:
    network, batch = opened(built(encoder, decoder, fusion="branch")), images()
    files = FoldFiles(tmp_path)
    release_weights(files, network.state_dict(), release_facts())
    loaded = open_release(files, *sections(encoder, decoder, fusion="branch"))
    folded = [m for m in loaded.depth_branch.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not folded or encoder == "mit_b0"
    for key, value in network(batch).items():
        found = loaded(batch)[key]
        assert torch.allclose(found, value, rtol=1e-3, atol=1e-3 * value.std())


def test_weights_of_early_fusion_do_not_fit() -> None:
    for one, other in (("early", "branch"), ("branch", "early")):
        with pytest.raises(RuntimeError):
            load_network(*sections(fusion=one), built(fusion=other).state_dict())


@pytest.mark.parametrize("init", ["smp", "mean"])
def test_the_encoder_takes_a_file_of_rgb_weights_as_it_is(tmp_path: Path, init: str) -> None:
    path = tmp_path / "encoder.safetensors"
    weights = built(channels=("rgb",)).encoder.state_dict()
    save_file(weights, path)
    torch.manual_seed(8)
    options = sections(fusion="branch", encoder_weights=str(path), input_init=init)
    found = build_model(*options).encoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("channels", [("rgb",), ("rgb", "xy")])
def test_without_a_depth_the_line_names_both_keys(channels: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"model\.fusion: branch needs a channel of the depth in "):
        sections(channels=channels, fusion="branch")


def test_a_network_with_a_branch_takes_scaled_views() -> None:
    model = {"encoder": "tu-test_resnet", "encoder_weights": None, "fusion": "branch"}
    views = {"views": [{}, {"scale": 1.5, "flip": True}]}
    given = {"name": "x", "model": model, "tta": views, "data": {"size": SIZE}}
    require_network(parse_config(given, "test"))


def test_the_branch_learns_at_the_full_rate_beside_a_slower_encoder() -> None:
    network = built(fusion="branch")
    groups = parameter_groups(network, Train(encoder_lr=0.1))
    rates = {id(one): group["lr_scale"] for group in groups for one in group["params"]}
    assert {rates[id(one)] for one in network.depth_branch.parameters()} == {1.0}
    assert {rates[id(one)] for one in network.encoder.parameters()} == {0.1}


def test_gates_are_spared_from_the_weight_decay_as_vectors_are() -> None:
    branch = built(fusion="branch")
    groups = parameter_groups(branch, Train(decay_all=False, weight_decay=0.3))
    decays = {id(one): group["weight_decay"] for group in groups for one in group["params"]}
    assert {decays[id(gate)] for gate in branch.depth_branch.gates} == {0}
    assert {decays[id(one.weight)] for one in branch.depth_branch.projections} == {0.3}
