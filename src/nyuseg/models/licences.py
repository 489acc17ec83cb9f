"""Licences of the pretrained weights that networks are fine-tuned from, as timm records them."""

from dataclasses import dataclass

from nyuseg.config.sections import Model
from nyuseg.models.records import plain_name, timm_record

# Beginnings of timm's names of licences.
PERMISSIVE = ("apache-2.0", "mit", "bsd-", "isc", "cc0", "unlicense")
NON_COMMERCIAL = (
    "cc-by-nc",
    "fair-noncommercial",
    "nvidia-source-code-license-nc",
    "seer-license",
    "apple-amlr",
)
# Of smp's own encoders, by the beginning of their names, those that are under no permissive one.
OF_SMP = {
    "mit_b": ("nvidia-source-code-license-nc", "https://github.com/NVlabs/SegFormer"),
    "mobileone_": ("mobileone-license", "https://github.com/apple/ml-mobileone"),
}


@dataclass(frozen=True)
class Licence:
    """A licence by timm's name, the encoder whose weights it is for, and where its text is."""

    name: str
    encoder: str
    page: str

    @property
    def must_travel(self) -> bool:
        """Whether a copy has to go with weights that were made of these: unless it is known to be
        permissive."""
        return not self.name.startswith(PERMISSIVE)


def weights_licence(options: Model) -> Licence | None:
    """The licence of the weights that the encoder starts from; None where there is no record.

    A local file counts as the weights that timm has under the encoder's name.
    """
    if options.encoder_weights is None:
        return None
    name = plain_name(options.encoder)
    for beginning, (licence, page) in OF_SMP.items():
        if options.encoder.startswith(beginning):
            return Licence(licence, name, page)
    facts = timm_record(options.encoder)
    if facts is None or facts.license in (None, "unknown"):
        return None
    place = facts.hf_hub_id
    page = f"https://huggingface.co/{place}" if place else str(facts.origin_url or facts.url)
    return Licence(facts.license, name, page)


def licence_fault(options: Model) -> str | None:
    """A line about weights that are not for commercial use; None for others."""
    licence = weights_licence(options)
    if licence is None or not licence.name.startswith(NON_COMMERCIAL):
        return None
    return (
        f"{licence.encoder}: its weights are under {licence.name}, for no commercial use: see "
        f"whether the competition's rules allow them, {licence.page}"
    )
