"""Every configuration of configs/ builds at its own size, and trains and predicts in small."""

from pathlib import Path

import pytest
import timm
from recipes import SETTINGS, attempt

from nyuseg.config.loading import load_config
from nyuseg.config.schema import Config
from nyuseg.inference.probe import require_possible
from nyuseg.utils.files import PROJECT

CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
recipes = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
# By the beginning of an encoder's name: a small one of its kind.
SMALL = {
    "resnet": "resnet18",
    "tu-resnet": "tu-test_resnet",
    "tu-tf_efficientnet": "tu-test_efficientnet",
    "tu-convnext": "tu-test_convnext",
    "tu-swin_": "tu-swin_tiny_patch4_window7_224",
    "tu-vit_base_patch16_dinov3": "tu-vit_tiny_patch16_dinov3_qkvb",
    "tu-vit_large_patch16_dinov3": "tu-vit_tiny_patch16_dinov3_qkvb",
    "tu-vit_base_patch14_reg": "tu-test_vit3",
    "tu-vit_large_patch14_reg": "tu-test_vit3",
}
FRAME = (52, 61)


def small(path: Path) -> Config:
    """The configuration with a small encoder, and every size a sixth."""
    config = load_config(path, SETTINGS)
    encoder = max((e for e in SMALL if config.model.encoder.startswith(e)), key=len)
    sizes = {"data.size": config.data.size, "augment.crop": config.augment.crop}
    sizes["augment.working_size"] = config.augment.working_size
    changes = [
        f"{key}=[{','.join(str(32 * max(1, round(side / 192))) for side in size)}]"
        for key, size in sizes.items()
        if size is not None
    ]
    return load_config(path, [*SETTINGS, *changes, f"model.encoder={SMALL[encoder]}"])


@recipes
def test_it_can_be_trained_at_its_size(path: Path) -> None:
    """Asked of a network without weights: training's size, prediction's and each view's."""
    require_possible(load_config(path))


@recipes
def test_the_weights_that_it_starts_from_exist(path: Path) -> None:
    model = load_config(path).model
    if model.encoder.startswith("tu-") and model.encoder_weights == "imagenet":
        facts = timm.get_pretrained_cfg(model.encoder.removeprefix("tu-"))
        assert facts is not None and facts.has_weights


@recipes
def test_it_takes_a_step_and_predicts_in_small(path: Path) -> None:
    tried = attempt(small(path), FRAME)
    assert tried.fault is None
    assert tried.mask.shape == FRAME
