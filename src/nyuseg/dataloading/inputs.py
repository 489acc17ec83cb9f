"""From integer frames to what the network sees, on the device.

Frames travel as integers: a quarter of the memory of floats from the disk to the device. There,
colours and codes of the depth are one look-up in a table, of 256 and of 65,536 entries, so that
each formula is evaluated once for each value it can meet. The other channels are computed there.
"""

from functools import cache
from typing import Any

import numpy as np
import torch

from nyuseg.config.sections import Data
from nyuseg.config.values import GEOMETRY
from nyuseg.data.depth import inverse_depth, linear_depth, log_depth
from nyuseg.dataloading.height import height_code, upward_code
from nyuseg.dataloading.letterbox import content_size
from nyuseg.dataloading.slopes import surface_slopes

Sample = dict[str, Any]
DEPTH_CODES = {
    "inverse_depth": inverse_depth,
    "linear_depth": linear_depth,
    "log_depth": log_depth,
}

_GEOMETRY_CODES = {"height": height_code, "upward": upward_code}


def input_key(kind: str, number: int) -> str:
    """The key of image or depth in a sample that is fitted to several sizes, numbered from 0."""
    return f"{kind}{number or ''}"


def network_images(
    batch: Sample, data: Data, device: torch.device, number: int = 0
) -> torch.Tensor:
    """What the network sees of a batch of loader.collate: float32 [N,C,H,W], on the device.

    batch: `image` uint8 [N,H,W,3], `size`, the native ones, and, if a channel is made of it,
    `depth`, the bits of uint16 millimetres as int16, and perhaps those of values.GEOMETRY, [N,H,W];
    number: which of the sizes that the set was fitted to.
    """
    image = batch[input_key("image", number)].to(device, non_blocking=True)
    depth = None
    if data.uses_depth:
        depth = _as_int32(batch[input_key("depth", number)], device)
    geometry = _geometry(batch, data, device, number)
    return network_input(image, depth, data, frame_lengths(batch, data, device), geometry)


def training_inputs(batch: Sample, data: Data, device: torch.device) -> Sample:
    """A labelled batch of loader.collate on the device, as the network and its losses want it.

    Besides what network_images reads: `label` uint8 [N,H,W], and perhaps `depth_seen`, like
    `depth`, which the network then sees instead, and `zoom`, float [N], how much larger than in
    data.size a frame is. Returns `image` as network_images,
    `label` int64 [N,H,W] (255 void) and, of a batch with depth, `depth` float32 [N,1,H,W] linear in
    0..1, `depth_valid` bool [N,1,H,W]; the rest of the batch is passed on.
    """
    image = batch["image"].to(device, non_blocking=True)
    label = batch["label"].to(device, non_blocking=True).long()
    if "depth" not in batch:
        return {**batch, "image": network_input(image, None, data, 0.0), "label": label}
    length = frame_lengths(batch, data, device)
    depth = _as_int32(batch["depth"], device)[:, None]
    seen = _as_int32(batch["depth_seen"], device) if "depth_seen" in batch else depth[:, 0]
    geometry = _geometry(batch, data, device)
    return {
        **batch,
        "image": network_input(image, seen, data, length, geometry),
        "label": label,
        "depth": _look_up(_depth_table("linear_depth", device), depth),
        "depth_valid": depth > 0,
    }


def frame_lengths(batch: Sample, data: Data, device: torch.device) -> torch.Tensor:
    """Pixels of the longer side of the whole frames that a batch's samples show: float [N,1,1].

    batch: `size`, the frames' native sizes, and perhaps `zoom`, float [N], how much larger than
    where they are predicted they are. What augment.scale does without a zoom is not in it. 0 where
    no channel asks for it.
    """
    if "slopes" not in data.channels:
        return torch.zeros(1, device=device)
    longer = [float(max(content_size(size, data.size))) for size in batch["size"]]
    lengths = torch.tensor(longer)
    if "zoom" in batch:
        lengths = lengths * batch["zoom"].cpu()
    return lengths.to(device, non_blocking=True).view(-1, 1, 1)


def _geometry(
    batch: Sample, data: Data, device: torch.device, number: int = 0
) -> dict[str, torch.Tensor]:
    return {
        kind: _as_int32(batch[input_key(kind, number)], device)
        for kind in GEOMETRY
        if kind in data.channels
    }


def _as_int32(stored: torch.Tensor, device: torch.device) -> torch.Tensor:
    # torch knows few operations on uint16: as int16, its upper half has turned negative.
    return stored.to(device, non_blocking=True).int() & 0xFFFF


def network_input(
    image: torch.Tensor,
    depth: torch.Tensor | None,
    data: Data,
    frame_length: torch.Tensor | float,
    geometry: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Stack the channels that the config names: float32 [N,C,H,W] in channels-last memory.

    image: uint8 [N,H,W,3]; RGB is normalised by mean and standard deviation. depth: int32 [N,H,W]
    in millimetres, None when no channel is made of it; its codes lie in 0..1, missing = 0.
    frame_length: of each whole frame's longer side in these pixels, see frame_lengths. geometry:
    int32 [N,H,W] of the kinds of values.GEOMETRY, see height.py. xy: the pixel's position in the
    input, 0..1 from left to right and from top to bottom (Exp050).
    """
    count, rows, columns, _ = image.shape
    planes = torch.empty(count, rows, columns, data.channel_count, device=image.device)
    place = 0
    for channel in data.channels:
        if channel == "rgb":
            assert data.mean is not None and data.std is not None  # Training has put them there.
            for k in range(3):
                table = _colour_table(data.mean[k], data.std[k], image.device)
                planes[..., k] = _look_up(table, image[..., k].int())
            place += 3
        elif channel == "xy":
            planes[..., place] = _ramp(columns, image.device)
            planes[..., place + 1] = _ramp(rows, image.device)[:, None]
            place += 2
        elif channel == "slopes":
            assert depth is not None
            slopes = surface_slopes(depth, frame_length, data.size[1])
            planes[..., place : place + 2] = slopes.permute(0, 2, 3, 1)
            place += 2
        elif channel in GEOMETRY:
            assert depth is not None and geometry is not None
            code = _GEOMETRY_CODES[channel](geometry[channel])
            planes[..., place] = code * (depth > 0)  # Augmentation may have hidden it.
            place += 1
        else:
            assert depth is not None  # See Data.uses_depth.
            planes[..., place] = _look_up(_depth_table(channel, image.device), depth)
            place += 1
    return planes.permute(0, 3, 1, 2)


def _look_up(table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return table.index_select(0, values.reshape(-1)).view(values.shape)


# Kept where they are used: a copy to a GPU in each step would be waited for.
@cache
def _ramp(length: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.linspace(0, 1, length)).to(device)


@cache
def _colour_table(mean: float, std: float, device: torch.device) -> torch.Tensor:
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return torch.from_numpy((values - np.float32(mean)) / np.float32(std)).to(device)


@cache
def _depth_table(code: str, device: torch.device) -> torch.Tensor:
    every_depth = np.arange(2**16, dtype=np.uint16)
    return torch.from_numpy(DEPTH_CODES[code](every_depth)).to(device)
