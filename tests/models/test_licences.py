"""Under which licence an encoder's weights are, by the records of the timm that is installed."""

import pytest

from nyuseg.config.sections import Model
from nyuseg.models.licences import licence_fault, weights_licence


def model(encoder: str, weights: str | None = "imagenet") -> Model:
    return Model.model_validate({"encoder": encoder, "encoder_weights": weights})


@pytest.mark.parametrize(
    ("encoder", "name", "travels"),
    [
        ("tu-vit_base_patch16_dinov3.lvd1689m", "dinov3-license", True),
        ("tu-vit_base_patch16_dinov3", "dinov3-license", True),
        ("tu-hf-hub:timm/vit_base_patch16_dinov3.lvd1689m", "dinov3-license", True),
        ("tu-convnextv2_atto.fcmae", "cc-by-nc-4.0", True),
        ("tu-vit_large_patch14_reg4_dinov2.lvd142m", "apache-2.0", False),
        ("tu-swin_large_patch4_window12_384.ms_in22k", "mit", False),
        ("tu-dla34", "bsd-3-clause", False),
    ],
)
def test_what_timm_says(encoder: str, name: str, travels: bool) -> None:
    for weights in ("imagenet", "a/local/file.pth"):
        licence = weights_licence(model(encoder, weights))
        assert licence is not None and (licence.name, licence.must_travel) == (name, travels)
        assert licence.page.startswith("https://huggingface.co/timm/")
    assert weights_licence(model(encoder, None)) is None


@pytest.mark.parametrize("encoder", ["resnet101", "tu-res2net50d", "tu-no_such", "tu-csatv2"])
def test_no_record_is_no_licence(encoder: str) -> None:
    assert weights_licence(model(encoder)) is None


def test_smp_has_weights_under_licences_of_their_own_too() -> None:
    licence = weights_licence(model("mobileone_s0"))
    assert licence is not None and licence.must_travel and licence.page.startswith("https://")


def test_weights_that_are_not_on_the_hub_have_an_address_too() -> None:
    licence = weights_licence(model("tu-vit_huge_patch14_gap_224.in1k_ijepa"))
    assert licence is not None and licence.page.startswith("https://")


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("tu-convnextv2_atto.fcmae", "convnextv2_atto.fcmae: its weights are under cc-by-nc-4.0"),
        ("tu-convnext_base.eupe_lvd1689m", "fair-noncommercial-research-license"),
        ("mit_b2", "mit_b2: its weights are under nvidia-source-code-license-nc"),
    ],
)
def test_weights_for_no_commercial_use_are_told_in_a_line(encoder: str, words: str) -> None:
    line = licence_fault(model(encoder))
    assert line is not None and words in line and "\n" not in line
    assert licence_fault(model(encoder, None)) is None


def test_others_are_not() -> None:
    for name in ("tu-vit_base_patch16_dinov3", "tu-resnet18", "resnet18"):
        assert licence_fault(model(name)) is None
