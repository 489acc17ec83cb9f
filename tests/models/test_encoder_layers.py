"""The layers of encoders: as timm counts them, under the names that smp gives them."""

import pytest
import torch
from timm.optim import param_groups_layer_decay

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.config.sections import Train
from nyuseg.inference.probe import require_possible
from nyuseg.models.encoder_layers import layer_depths
from nyuseg.models.network import MultiTaskNet, build_model
from nyuseg.training.optimization import parameter_groups
from nyuseg.utils.errors import UserError


def wish(encoder: str, decoder: str, **train: float) -> Config:
    model = {"encoder": encoder, "decoder": decoder, "encoder_weights": None}
    given = {"name": "x", "model": model, "data": {"size": [64, 96]}, "train": train}
    return parse_config(given, "test")


def network(encoder: str, decoder: str) -> MultiTaskNet:
    config = wish(encoder, decoder)
    with torch.device("meta"):
        return build_model(config.model, config.data)


@pytest.mark.parametrize("encoder", ["test_vit", "test_vit3", "vit_tiny_patch16_dinov3_qkvb"])
def test_scales_of_a_transformer_are_those_of_timm(encoder: str) -> None:
    model = network(f"tu-{encoder}", "dpt")
    groups = param_groups_layer_decay(model.encoder.model, layer_decay=0.7)
    expected = {id(one): group["lr_scale"] for group in groups for one in group["params"]}
    options = Train(layer_decay=0.7, encoder_lr=0.1, weight_decay=0.3, decay_all=False)
    found = parameter_groups(model, options)
    scales = {id(one): group["lr_scale"] for group in found for one in group["params"]}
    assert len({(group["lr_scale"], group["weight_decay"]) for group in found}) == len(found)
    assert all(scales[key] == pytest.approx(0.1 * expected[key]) for key in expected)
    rest = [one for name, one in model.named_parameters() if not name.startswith("encoder.")]
    assert rest and {scales[id(one)] for one in rest} == {1}
    assert len(scales) == len(expected) + len(rest)


# timm hands over features alone: under other names, as a wrapper, or built anew.
@pytest.mark.parametrize(
    ("encoder", "decoder", "order"),
    [
        (
            "convnext_atto",
            "upernet",
            ["stem_0.weight", "stages_0.blocks.0.gamma", "stages_2.blocks.5.gamma"],
        ),
        (
            "swin_tiny_patch4_window7_224",
            "upernet",
            [
                "patch_embed.proj.weight",
                "layers_2.blocks.0.norm1.bias",
                "layers_3.blocks.1.norm2.bias",
            ],
        ),
        (
            "tf_efficientnet_lite0",
            "fpn",
            ["conv_stem.weight", "blocks.0.0.conv_pw.weight", "blocks.6.0.bn3.bias"],
        ),
        (
            "sam2_hiera_tiny",
            "fpn",
            ["model.pos_embed", "model.blocks.0.norm1.bias", "model.blocks.11.norm2.bias"],
        ),
    ],
)
def test_layers_of_features_are_found_by_their_names(
    encoder: str, decoder: str, order: list[str]
) -> None:
    depths = layer_depths(network(f"tu-{encoder}", decoder).encoder)
    found = [depths[f"model.{name}"] for name in order]
    assert found[0] > found[1] > found[2] >= 0
    assert set(depths.values()) == set(range(found[0] + 1))


def test_blocks_of_convnext_are_layers() -> None:
    depths = layer_depths(network("tu-convnext_atto", "fpn").encoder)
    assert depths["model.stages_3.blocks.1.gamma"] == 0
    assert depths["model.stages_3.blocks.0.gamma"] == 1
    assert depths["model.stages_3.downsample.1.weight"] == 1  # As timm has it.
    assert depths["model.stages_2.blocks.5.gamma"] == 2
    assert depths["model.stem_0.weight"] == 2 + 2 + 6 + 2


def test_without_a_decay_layers_are_not_asked_for() -> None:
    model = network("resnet18", "fpn")
    assert {group["lr_scale"] for group in parameter_groups(model, Train())} == {1}


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-densenet121"])
def test_an_encoder_without_layers_is_told_before_training(encoder: str) -> None:
    with pytest.raises(UserError, match=r"^train\.layer_decay: timm knows no layers") as caught:
        require_possible(wish(encoder, "fpn", layer_decay=0.8))
    assert "\n" not in str(caught.value)
    require_possible(wish(encoder, "fpn", encoder_lr=0.1))


def test_tokens_and_positions_do_not_decay() -> None:
    model = network("tu-test_vit3", "dpt")
    names = {id(one): name for name, one in model.named_parameters()}
    groups = parameter_groups(model, Train(layer_decay=0.7, weight_decay=0.3, decay_all=False))
    free = {
        names[id(one)].removeprefix("encoder.model.")
        for group in groups
        for one in group["params"]
        if group["weight_decay"] == 0
    }
    assert {"reg_token", "pos_embed", "blocks.0.ls1.gamma", "blocks.8.attn.qkv.bias"} <= free
    assert not free & {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}
