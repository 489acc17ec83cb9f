"""A plain vision transformer as the encoder of DPT."""

import torch
from segmentation_models_pytorch.encoders import TimmViTEncoder

from nyuseg.utils.errors import UserError

Features = tuple[list[torch.Tensor], list[torch.Tensor | None]]


class NormedTransformer(TimmViTEncoder):  # type: ignore[misc]  # smp has no types.
    """Hands over each of its levels through the transformer's last norm.

    A residual stream has no scale of its own: it grows from block to block, and in large networks a
    few channels are far above the others. DINOv2's get_intermediate_layers, whose features were
    trained to be used so, normalises them; segmentation_models_pytorch does not.
    """

    def forward(self, images: torch.Tensor) -> Features:
        """Levels, float [N,C,h,w] each, and their prefix tokens, [N,count,C] or None each."""
        found = self.model.forward_intermediates(
            images,
            indices=self._output_indices,
            intermediates_only=True,
            norm=True,
            return_prefix_tokens=self.has_prefix_tokens,
        )
        if self.has_prefix_tokens:
            return [level for level, _ in found], [tokens for _, tokens in found]
        return found, [None] * len(found)


def fit_for_dpt(encoder: TimmViTEncoder) -> None:
    """Normalise what the decoder reads, and drop what follows it, in place.

    Raises UserError for an encoder that is no plain transformer, or of whose patches DPT cannot
    make its pyramid.
    """
    strides = set(encoder.output_strides)
    if len(strides) > 1 or not strides <= {8, 16, 32}:
        raise UserError(
            "dpt needs a plain vision transformer with patches of 8, 16 or 32 pixels, not of "
            f"{sorted(strides)}"
        )
    encoder.model.prune_intermediate_layers(encoder._output_indices)
    encoder.__class__ = NormedTransformer
