"""Plain vision transformers under DPT: shapes, patches, and where their weights come from."""

import copy
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.config.sections import Compute, Train
from nyuseg.inference.probe import require_network
from nyuseg.models.encoder_weights import input_filters
from nyuseg.models.network import MultiTaskNet, build_model, load_network
from nyuseg.training.optimization import TrainingStep
from nyuseg.utils.errors import UserError

HEIGHT, WIDTH = 64, 96


def wish(encoder: str = "tu-test_vit", **model: object) -> Config:
    data = model.pop("data", {})
    model = {"encoder": encoder, "encoder_weights": None, "decoder": "dpt", **model}
    given = {"name": "x", "model": model, "data": {"size": (HEIGHT, WIDTH), **data}}
    return parse_config(given, "test")


def build(encoder: str = "tu-test_vit", **model: object) -> MultiTaskNet:
    config = wish(encoder, **model)
    torch.manual_seed(1)
    return build_model(config.model, config.data).eval()


def image(channels: int = 4, scale: float = 1) -> torch.Tensor:
    size = (int(HEIGHT * scale), int(WIDTH * scale))
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(2))


def classifier(name: str, path: Path) -> dict[str, torch.Tensor]:
    """Write what timm would hand over: a whole network, at its own size, for RGB."""
    torch.manual_seed(3)
    state = timm.create_model(name).state_dict()
    save_file(state, path)
    return state


# With a class token; with a register and pooled; with rotated positions; with relative ones alone.
@pytest.mark.parametrize(
    "encoder",
    ["test_vit", "test_vit3", "vit_tiny_patch16_dinov3_qkvb", "beit_base_patch16_224"],
)
def test_dpt_answers_at_a_quarter_and_every_weight_is_used(encoder: str) -> None:
    model = build(f"tu-{encoder}").train()
    output = model(image())
    assert output["logits"].shape == (2, 13, HEIGHT // 4, WIDTH // 4)
    assert output["depth"].shape == (2, 1, HEIGHT // 4, WIDTH // 4)
    (output["logits"].square().mean() + output["depth"].square().mean()).backward()
    assert not [name for name, one in model.named_parameters() if one.grad is None]


def test_dpt_reads_each_level_normalised() -> None:
    """At whatever scale the blocks answer, as DINOv2's own levels are meant to be read."""
    encoder = build().encoder
    with torch.no_grad():
        for name, one in encoder.named_parameters():
            if ".proj." in name or ".fc2." in name:
                one.mul_(50)
        levels, tokens = encoder(image())
    assert len(levels) == len(tokens) == 4
    for level in (*levels, *(one.movedim(2, 1) for one in tokens)):
        assert level.mean(1).abs().max() < 1e-4
        assert (level.std(1, unbiased=False) - 1).abs().max() < 1e-2


def test_a_file_is_resampled_as_timm_itself_resamples_it(tmp_path: Path) -> None:
    """To the input's size, which is not square, and to patches of another size."""
    path = tmp_path / "vit.safetensors"
    whole = classifier("test_vit", path)
    options = {"patch_size": 8, "encoder_weights": str(path), "data": {"channels": ["rgb"]}}
    found = build(**options).encoder.model.state_dict()
    expected = timm.create_model(
        "test_vit",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        img_size=(HEIGHT, WIDTH),
        patch_size=8,
    ).state_dict()
    assert found["pos_embed"].shape == (1, 1 + 8 * 12, 64) != whole["pos_embed"].shape
    assert found["patch_embed.proj.weight"].shape == (64, 3, 8, 8)
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_own_weights_are_a_file_as_well(tmp_path: Path) -> None:
    """What an encoder of this network saves, at another size, has smp's prefix."""
    path = tmp_path / "own.pth"
    torch.save(build(data={"size": (160, 160)}).encoder.state_dict(), path)
    found = build(encoder_weights=str(path)).encoder.state_dict()
    saved = torch.load(path)
    assert found["model.pos_embed"].shape[1] == 1 + 4 * 6
    assert torch.equal(
        found["model.blocks.5.mlp.fc2.weight"], saved["model.blocks.5.mlp.fc2.weight"]
    )


@pytest.mark.parametrize("source", ["file", "imagenet"])
@pytest.mark.parametrize(
    ("encoder", "decoder", "count"), [("test_vit", "dpt", 1), ("fastvit_t8", "fpn", 2)]
)
def test_zeros_start_as_the_network_of_rgb(
    tmp_path: Path, monkeypatch, encoder: str, decoder: str, count: int, source: str
) -> None:
    """Also where two convolutions see the input, or timm itself would spread the filters."""
    path = tmp_path / "weights.safetensors"
    state = classifier(encoder, path)
    hub = "timm.models._builder.load_state_dict_from_hf"
    monkeypatch.setattr(hub, lambda *_, **__: dict(state))
    weights = str(path) if source == "file" else source
    options = {"decoder": decoder, "encoder_weights": weights, "input_init": "zeros"}
    rgb = build(f"tu-{encoder}", **options, data={"channels": ["rgb"]}).encoder
    both = build(f"tu-{encoder}", **options).encoder
    assert len(input_filters(both)) == count
    expected, found = (
        [*flat(net(given))] for net, given in ((rgb, image()[:, :3]), (both, image()))
    )
    levels = [(a, b) for a, b in zip(expected, found, strict=True) if a.shape[1] > 4]
    assert len(levels) >= 4
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in levels)
    for name in input_filters(both):
        assert torch.count_nonzero(both.get_parameter(name)[:, 3:]) == 0


def flat(features: object) -> list[torch.Tensor]:
    if torch.is_tensor(features):
        return [features]
    return [one for part in features for one in flat(part)]


def test_filters_that_see_several_pixels_cannot_be_spread(monkeypatch) -> None:
    """TResNet's see 4x4 pixels at once; timm would leave them random."""
    state = timm.create_model("tresnet_m").state_dict()
    hub = "timm.models._builder.load_state_dict_from_hf"
    monkeypatch.setattr(hub, lambda *_, **__: dict(state))
    options = {"encoder_weights": "imagenet", "decoder": "fpn"}
    build("tu-tresnet_m", **options, data={"channels": ["rgb"]})
    with pytest.raises(UserError, match=r"^data\.channels: pretrained filters of this encoder"):
        build("tu-tresnet_m", **options)


@pytest.mark.parametrize("encoder", ["test_vit", "test_vit3", "vit_tiny_patch16_dinov3_qkvb"])
def test_inference_and_recomputing_answer_the_same(encoder: str) -> None:
    config = wish(f"tu-{encoder}")
    model = build(f"tu-{encoder}")
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_mean), torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    with torch.no_grad():
        expected = model(image())["logits"]
        found = load_network(config.model, config.data, model.state_dict())(image())["logits"]
    assert torch.allclose(found, expected, atol=1e-4)
    states = []
    for checkpointing in (False, True):
        compute = Compute(precision="fp32", checkpointing=checkpointing)
        step = TrainingStep(copy.deepcopy(model).train(), Train(), compute, torch.device("cpu"))
        torch.manual_seed(5)  # For dropout.
        step(batch())
        states.append(step.model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def batch() -> dict:
    generator = torch.Generator().manual_seed(3)
    return {
        "image": image(),
        "label": torch.randint(0, 13, (2, HEIGHT, WIDTH), generator=generator),
        "depth": torch.rand(2, 1, HEIGHT, WIDTH, generator=generator),
        "depth_valid": torch.rand(2, 1, HEIGHT, WIDTH, generator=generator) > 0.3,
    }


def test_a_scaled_view_resamples_the_positions() -> None:
    views = [{}, {"scale": 1.5}, {"scale": 2}]
    values = {**wish().model_dump(mode="json"), "tta": {"views": views}}
    require_network(parse_config(values, "test"))
    assert build()(image(scale=2))["logits"].shape[2:] == (32, 48)


@pytest.mark.parametrize(
    ("encoder", "model", "words"),
    [
        ("tu-resnet18", {}, "model.encoder: tu-resnet18 does not work with model.decoder=dpt"),
        ("tu-convnext_atto", {}, "dpt needs a plain vision transformer"),
        ("tu-swin_tiny_patch4_window7_224", {}, "use model.decoder=fpn or upernet or unet, or"),
        ("resnet18", {}, "Only Timm encoders are supported for DPT"),
        ("tu-test_vit", {"decoder": "upernet"}, "use model.decoder=dpt, or another encoder"),
        ("tu-vit_small_patch14_dinov2", {}, "of [14]); set model.patch_size=16"),
        ("tu-test_vit", {"patch_size": 12}, "of [12]); set model.patch_size=null"),
    ],
)
def test_what_does_not_suit_dpt_is_one_line(encoder: str, model: dict, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        require_network(wish(encoder, **model))
    assert "\n" not in str(caught.value)


def test_patches_belong_to_dpt() -> None:
    with pytest.raises(
        UserError, match=r"model\.patch_size: only of the transformers of model.dec"
    ):
        wish(decoder="fpn", patch_size=16)


def test_a_file_for_another_transformer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    classifier("test_vit2", path)
    with pytest.raises(UserError, match="for another encoder") as caught:
        build(encoder_weights=str(path))
    assert "\n" not in str(caught.value)


def test_paths_are_dropped_in_training_alone() -> None:
    dropped = build(drop_path=0.5)
    plain = build()
    with torch.no_grad():
        assert torch.equal(dropped(image())["logits"], plain(image())["logits"])
        features = [dropped.encoder.train()(image())[0][-1] for _ in range(2)]
    assert not torch.equal(*features)


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-hrnet_w18_small", "tu-dla34"])
def test_an_encoder_without_stochastic_depth_is_told(encoder: str) -> None:
    words = rf"^model\.drop_path: 0\.1 does not suit {encoder} with .*; set model\.drop_path=null$"
    with pytest.raises(UserError, match=words):
        require_network(wish(encoder, decoder="fpn", drop_path=0.1))
    require_network(wish(encoder, decoder="fpn"))
