"""What timm has on record of an encoder's pretrained weights."""

import timm
from timm.models import PretrainedCfg

# Encoders of smp by their old names, which it makes of these models of timm.
ALIASES = {
    f"timm-{name}": f"tf_{name}"
    for name in (
        *(f"mobilenetv3_{size}_{width}" for size in ("large", "small") for width in ("075", "100")),
        "mobilenetv3_large_minimal_100",
        "mobilenetv3_small_minimal_100",
    )
}


def plain_name(encoder: str) -> str:
    """timm's name of an encoder: without tu-, and without the place it comes from, hf-hub:timm/."""
    return ALIASES.get(encoder, encoder.removeprefix("tu-").rpartition("/")[2])


def timm_record(encoder: str) -> PretrainedCfg | None:
    """The record of the weights that timm has for an encoder; None for one of smp's own."""
    if not encoder.startswith("tu-") and encoder not in ALIASES:
        return None
    return timm.get_pretrained_cfg(plain_name(encoder), allow_unregistered=True)
