"""The network: a shared encoder and decoder, a segmentation head and a depth head."""

import copy
import logging
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.config.values import STRIDE
from nyuseg.data.classes import NUM_CLASSES
from nyuseg.models.atrous import use_atrous
from nyuseg.models.auxiliary_head import AuxiliaryHead
from nyuseg.models.batchnorm_folding import Pairs, find_pairs, fold_batchnorm
from nyuseg.models.depth_branch import DepthBranch
from nyuseg.models.depthwise import use_float32
from nyuseg.models.encoder_weights import (
    download_fault,
    fault_reason,
    load_encoder,
    spread_input,
)
from nyuseg.models.levels import read_levels
from nyuseg.models.plain_transformer import fit_for_dpt
from nyuseg.models.records import timm_record
from nyuseg.models.separable import part_filters
from nyuseg.models.two_stream import TwoStream, part_norms
from nyuseg.utils.errors import UserError


class MultiTaskNet(nn.Module):
    """Maps float [N,C,H,W] to a dict: `logits` [N,13,H/4,W/4] and, with a depth head, `depth`
    [N,1,H/4,W/4] (linear in 0..1, see depth.linear_depth); in training, with an auxiliary head,
    also its logits, `auxiliary`.

    Both heads read the decoder's features at stride 4. The report's network upsamples the logits
    inside (align_corners=True); here losses and masks do it, in one place each, and without
    aligned corners, so that the frame's part of a padded grid maps the same at every input size.
    """

    def __init__(self, network: smp.base.SegmentationModel, options: Model, data: Data) -> None:
        super().__init__()
        if options.separable:
            part_filters(network.decoder)
        use_atrous(network)
        use_float32(network)
        self.encoder, self.decoder = network.encoder, network.decoder
        # smp's head is a convolution (DPT's: two), an upsampling and an activation: only the first
        # is wanted.
        head = network.segmentation_head
        self.segmentation_head = head.head if isinstance(network, smp.DPT) else head[0]
        convolutions = (m for m in self.segmentation_head.modules() if isinstance(m, nn.Conv2d))
        channels = next(convolutions).in_channels
        self.depth_head = None
        if options.depth_head:
            self.depth_head = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
        # Last, so that all before it starts as in a network for RGB alone.
        self.depth_branch, self.two_stream = None, None
        if options.fusion != "early":
            levels = read_levels(self.encoder, options.decoder)
        if options.fusion == "branch":
            self.depth_branch = DepthBranch(data, levels)
        elif options.fusion == "two_stream":
            part_norms(self.encoder)
            self.two_stream = TwoStream(levels)
        self.auxiliary_head: AuxiliaryHead | None = None  # Training may give it one.

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        encoded = self._encode(image)
        features = self.decoder(*encoded)
        grid = (image.shape[-2] // STRIDE, image.shape[-1] // STRIDE)
        if features.shape[-2:] != grid:  # U-Net decodes to the input's size, DPT to half of it.
            features = F.adaptive_avg_pool2d(features, grid)
        output = {"logits": self.segmentation_head(features)}
        if self.depth_head is not None:
            output["depth"] = self.depth_head(features)
        if self.auxiliary_head is not None and self.training:
            output["auxiliary"] = self.auxiliary_head(encoded[0][-2])
        return output

    def _encode(self, image: torch.Tensor) -> tuple[Any, ...]:
        """What the decoder reads: features of the encoder, and of the depth as model.fusion says;
        for DPT also a transformer's class tokens."""
        if self.two_stream is not None:
            return (self.two_stream(self.encoder, image),)
        found = self.encoder(image if self.depth_branch is None else image[:, :3])
        features, *tokens = found if isinstance(found, tuple) else (found,)
        if self.depth_branch is not None:
            features = self.depth_branch(features, image[:, 3:])
        return features, *tokens


def build_model(options: Model, data: Data, pretrained: bool = True) -> MultiTaskNet:
    """Build a network for the channels and the size of `data`.

    pretrained=False leaves random weights whatever the options say: for loading a checkpoint,
    which needs no download. Raises UserError for an unknown encoder, or weights that are neither
    here nor downloadable.
    """
    weights = options.encoder_weights if pretrained else None
    network = _build_network(options, data, weights == "imagenet")
    if weights == "imagenet":
        spread_input(network.encoder, _seen_channels(options, data), options.input_init)
    elif weights is not None:
        load_encoder(network.encoder, Path(weights), options.input_init)
    return MultiTaskNet(network, options, data)


def load_network(options: Model, data: Data, state: dict[str, torch.Tensor]) -> MultiTaskNet:
    """The network of build_model with these weights, for inference alone.

    Nothing is initialised that the weights will replace, half precision becomes float32, and
    BatchNorm is folded into the convolutions. Raises RuntimeError when the weights do not fit.
    """
    weights = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    skeleton, pairs = _skeleton(options, data)
    if skeleton is None:
        network = build_model(options, data, pretrained=False).eval()
        network.load_state_dict(weights)
    else:
        network = copy.deepcopy(skeleton)
        network.load_state_dict(weights, assign=True)
    fold_batchnorm(network, pairs)
    return network


@lru_cache(maxsize=1)
def _skeleton(options: Model, data: Data) -> tuple[MultiTaskNet | None, Pairs]:
    """The network without memory for its weights, and what fold_batchnorm can fold in it.

    None for an encoder that computes while it is built, or keeps what no weights file holds.
    """
    try:
        with torch.device("meta"):
            network = build_model(options, data, pretrained=False).to("meta").eval()
            image = torch.empty(1, data.channel_count, *data.size)
        pairs = find_pairs(network, image)
    except Exception:  # As in network_fault: no two encoders refuse with the same.
        return None, ()
    held = set(network.state_dict())
    every = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    return (network, pairs) if every <= held else (None, ())


@lru_cache(maxsize=64)
def network_fault(
    options: Model,
    data: Data,
    size: tuple[int, int] | None = None,
    told: tuple[str, ...] | None = None,
) -> str | None:
    """Why a network cannot be built or cannot take its input; None when it can.

    size: height and width of another input, for inference. told: see _size_arguments, which decides
    it. Computes nothing, on torch's meta device, unless that fails.
    """
    reason = ""
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
                names = _size_arguments(options, data) if told is None else told
                network = _create(options, data, None, names)
                network = MultiTaskNet(network, options, data).to(device)
                shape = (2, data.channel_count, *(size or data.size))
                network.train(size is None)(torch.zeros(shape))
            return None
        except UserError as error:
            return fault_reason(error)
        except Exception as error:  # No two encoders refuse with the same.
            reason = fault_reason(error)
    return reason


@lru_cache(maxsize=64)
def _size_arguments(options: Model, data: Data) -> tuple[str, ...]:
    """Names of timm's arguments by which the encoder is told the input's size, if it is built for
    one.

    timm marks such models; of those a few take no size that is not square, but any input. A plain
    transformer keeps positions of one size, and most resample them for another input.
    """
    name = options.encoder
    facts = timm_record(name)
    if options.decoder == "dpt":
        ways: tuple[tuple[str, ...], ...] = (("img_size", "dynamic_img_size"), ("img_size",), ())
    elif not name.startswith("tu-") or facts is None or not facts.fixed_input_size:
        return ()
    else:
        ways = (("img_size",), ())
    working = (told for told in ways if network_fault(options, data, None, told) is None)
    return next(working, () if options.decoder == "dpt" else ways[0])


def _create(
    options: Model, data: Data, weights: str | bool | None, told: tuple[str, ...]
) -> smp.base.SegmentationModel:
    given = {"img_size": data.size, "dynamic_img_size": True}
    arguments: dict[str, Any] = {name: given[name] for name in told}
    arguments |= _width_arguments(options)
    if options.patch_size is not None:
        arguments["patch_size"] = options.patch_size
    if options.drop_path is not None:
        if not options.encoder.startswith("tu-"):  # It would pass over it.
            raise UserError("only the encoders of timm, tu-..., can be told it")
        arguments["drop_path_rate"] = options.drop_path
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encoder does not have prefix tokens")
        network = smp.create_model(
            options.decoder,
            encoder_name=options.encoder,
            encoder_weights=weights,
            in_channels=_seen_channels(options, data),
            classes=NUM_CLASSES,
            **arguments,
        )
    if options.decoder == "dpt":
        fit_for_dpt(network.encoder)
    if options.drop_path and not any(isinstance(m, DropPath) for m in network.encoder.modules()):
        raise UserError("it has no stochastic depth")
    return network


def _width_arguments(options: Model) -> dict[str, Any]:
    """smp's arguments for a decoder of a width; at 256 they are its defaults."""
    width = options.decoder_channels
    if options.decoder == "fpn":
        return {"decoder_pyramid_channels": width, "decoder_segmentation_channels": width // 2}
    if options.decoder == "unet":
        return {"decoder_channels": tuple(width // 2**level for level in range(5))}
    return {"decoder_fusion_channels" if options.decoder == "dpt" else "decoder_channels": width}


def _seen_channels(options: Model, data: Data) -> int:
    """Number of channels that the encoder sees."""
    return data.channel_count if options.fusion == "early" else 3


def _build_network(options: Model, data: Data, imagenet: bool) -> smp.base.SegmentationModel:
    encoder = options.encoder
    # For a timm encoder (tu-...) smp takes True: the name itself says which weights.
    weights = (encoder.startswith("tu-") or "imagenet") if imagenet else None
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # Our error says it in a line.
    try:
        return _create(options, data, weights, _size_arguments(options, data))
    except MemoryError:
        raise
    except Exception as error:
        if imagenet and not isinstance(error, UserError):
            raise UserError(
                f"model.encoder_weights: the pretrained weights of {encoder} "
                f"{download_fault(error)}, or --set model.encoder_weights=FILE with a copy of "
                "them, or =null to train from random weights"
            ) from None
        raise UserError(
            f"model.encoder: {encoder} with {options.decoder}: {fault_reason(error)}"
        ) from None
