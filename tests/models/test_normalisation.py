"""RGB is normalised as the encoder's weights were trained, unless the configuration says more."""

import pytest

from nyuseg.config.loading import load_config, parse_config
from nyuseg.config.schema import Config
from nyuseg.inference.probe import require_possible
from nyuseg.models.normalisation import IMAGENET, normalisation_fault, resolve_normalisation
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

LITE = "tu-tf_efficientnet_lite0"
TIPS = "tu-vit_base_patch14_reg1_tipsv2"


def wish(encoder: str, weights: str | None = "imagenet", **data: object) -> Config:
    model = {"encoder": encoder, "encoder_weights": weights, "decoder": "fpn"}
    return parse_config({"name": "x", "model": model, "data": data}, "test")


def numbers(config: Config) -> tuple[object, object]:
    data = resolve_normalisation(config).data
    return data.mean, data.std


@pytest.mark.parametrize(
    ("encoder", "mean", "std"),
    [
        (LITE, (0.5,) * 3, (0.5,) * 3),
        (TIPS, (0, 0, 0), (1, 1, 1)),
        ("tu-vit_large_patch16_dinov3.lvd1689m", *IMAGENET),
        ("tu-convnext_base.clip_laion2b", (0.48145466, 0.4578275, 0.40821073), None),
        ("tu-convnext_base.fb_in22k", *IMAGENET),  # The tag decides, not the architecture.
        ("resnet101", *IMAGENET),
        ("xception", (0.5,) * 3, (0.5,) * 3),
        # An old name, and one with its place.
        ("timm-mobilenetv3_large_100", (0.5,) * 3, (0.5,) * 3),
        ("tu-hf-hub:timm/tf_efficientnet_lite0.in1k", (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_null_is_what_the_weights_were_trained_with(encoder: str, mean: tuple, std: tuple) -> None:
    found = numbers(wish(encoder))
    assert found[0] == mean and (std is None or found[1] == std)
    assert numbers(wish(encoder, "encoder.safetensors")) == found  # A copy of them.
    assert numbers(wish(encoder, None)) == IMAGENET  # Random ones were trained with nothing.


def test_what_the_configuration_says_stays() -> None:
    assert numbers(wish(TIPS, mean=[0, 0, 0.01])) == ((0, 0, 0.01), (1, 1, 1))
    assert numbers(wish(TIPS, std=[0.9, 1, 1])) == ((0, 0, 0), (0.9, 1, 1))


def test_a_mean_of_zero_is_no_null() -> None:
    assert numbers(wish("resnet101", mean=[0, 0, 0]))[0] == (0, 0, 0)


@pytest.mark.parametrize("encoder", [LITE, TIPS])
def test_clearly_other_numbers_are_refused_for_weights_of_timm(encoder: str) -> None:
    mean, std = IMAGENET
    given = wish(encoder, mean=mean, std=std, size=[224, 448])
    with pytest.raises(UserError, match=r"^data\.mean=\[0\.485,0\.456,0\.406\] .* trained with \["):
        require_possible(
            given.model_copy(update={"model": given.model.model_copy(update=dpt(encoder))})
        )
    assert normalisation_fault(wish(encoder, None, mean=mean, std=std)) is None


def dpt(encoder: str) -> dict[str, object]:
    return {"decoder": "dpt", "patch_size": 16} if encoder == TIPS else {}


@pytest.mark.parametrize(
    ("encoder", "mean", "std"),
    [
        (LITE, [127 / 255] * 3, [128 / 255] * 3),  # The range that it was first trained with.
        ("tu-convnext_base.clip_laion2b", *IMAGENET),
        ("tu-resnet101", [0.525, 0.443, 0.400], [0.281, 0.281, 0.293]),
    ],
)
def test_statistics_near_by_are_not(encoder: str, mean: list, std: list) -> None:
    assert normalisation_fault(wish(encoder, mean=mean, std=std)) is None


def test_a_file_may_be_of_another_training() -> None:
    given = wish(LITE, "mine.safetensors", mean=[0, 0, 0], std=[1, 1, 1])
    assert "null takes these" in str(normalisation_fault(given))
    require_possible(given)


@pytest.mark.parametrize("name", sorted(path.name for path in (PROJECT / "configs").glob("*.yaml")))
def test_shipped_configurations_fit_their_weights(name: str) -> None:
    assert normalisation_fault(load_config(PROJECT / "configs" / name)) is None
