"""The opponent of the benchmark: Exp060 as a competent competitor writes it from the report.

It shares no code with nyuseg and is not slowed down on purpose: segmentation-models-pytorch,
Albumentations on float arrays, torch's DataLoader and optimizer as they come, ttach for the flip,
and the run-length function of the public notebooks. Everything is float32, and on the processor
unless told otherwise.

Tensors are [N,C,H,W] with C = 4: normalised RGB and inverse depth.
"""

import csv
import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # Its import would ask the network for a version.

from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
import ttach
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES, VOID, FOLDS = 13, 255, 5
NEAR, FAR = 0.71, 10.0
MEAN = np.array([0.525, 0.443, 0.400], np.float32)
STD = np.array([0.281, 0.281, 0.293], np.float32)
Size = tuple[int, int]
Batch = dict[str, torch.Tensor]


class PlainNet(nn.Module):
    """DeepLabV3+ with a depth head: float [N,4,H,W] to logits [N,13,H,W], depth [N,1,H,W]."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.net = smp.DeepLabV3Plus(encoder, encoder_weights=None, in_channels=4, classes=CLASSES)
        width = self.net.segmentation_head[0].in_channels
        self.depth_head = nn.Sequential(
            nn.Conv2d(width, 1, kernel_size=3, padding=1),
            nn.UpsamplingBilinear2d(scale_factor=4),
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = self.net.decoder(self.net.encoder(image))
        return self.net.segmentation_head(decoded), self.depth_head(decoded)


class Probabilities(nn.Module):
    """The class probabilities of a network, [N,13,H,W]: what ttach averages over its views."""

    def __init__(self, net: PlainNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image)[0].softmax(1)


def transforms(size: Size, train: bool) -> A.Compose:
    """Resize and, for training, the report's augmentation. Depth moves as an image, bilinearly,
    as in the report; so the masks' fill value can be void."""
    steps: list[A.BasicTransform] = [A.Resize(*size)]
    if train:
        steps += [
            A.HorizontalFlip(p=0.5),
            # What Albumentations 2 calls ShiftScaleRotate.
            A.Affine(
                translate_percent={"x": (-0.05, 0.05), "y": (-0.05, 0.05)},
                scale=(0.9, 1.1),
                rotate=(-5, 5),
                fill_mask=VOID,
                p=1.0,
            ),
            A.RandomCrop(*size, p=0.5),
        ]
    return A.Compose(steps, additional_targets={"depth": "image"})


class Frames(Dataset[dict[str, Any]]):
    """Frames of a split, decoded at every access.

    A sample: `image` float32 [4,H,W]; for training also `label` int64 [H,W], `depth` float32
    [1,H,W], linear in 0..1, and `valid` bool [1,H,W]; for test also `id`.
    """

    def __init__(self, root: Path, split: str, size: Size) -> None:
        self.folder, self.train = root / split, split == "train"
        self.ids = sorted(path.stem for path in (self.folder / "image").glob("*.png"))
        self.transforms = transforms(size, self.train)

    def __len__(self) -> int:
        return len(self.ids)

    def _read(self, kind: str, index: int, flags: int) -> np.ndarray:
        pixels = cv2.imread(str(self.folder / kind / f"{self.ids[index]}.png"), flags)
        if pixels is None:
            raise FileNotFoundError(f"{self.folder}: {kind} of {self.ids[index]}")
        return pixels

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = cv2.cvtColor(self._read("image", index, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        depth = self._read("depth", index, cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        arrays = {"image": image.astype(np.float32) / 255, "depth": depth}
        if self.train:
            arrays["mask"] = self._read("label", index, cv2.IMREAD_UNCHANGED)
        moved = self.transforms(**arrays)
        clipped = np.clip(moved["depth"], NEAR, FAR)
        inverse = (1 / clipped - 1 / FAR) / (1 / NEAR - 1 / FAR)
        colour = ((moved["image"] - MEAN) / STD).transpose(2, 0, 1)
        sample = {"image": torch.from_numpy(np.concatenate([colour, inverse[None]]))}
        if not self.train:
            return {**sample, "id": self.ids[index]}
        linear = (clipped - NEAR) / (FAR - NEAR)
        return {
            **sample,
            "label": torch.from_numpy(moved["mask"]).long(),
            "depth": torch.from_numpy(linear)[None],
            "valid": torch.from_numpy(moved["depth"] > 0)[None],
        }


def training_step(
    data: Path, work: Path, encoder: str, size: Size, batch_size: int
) -> Callable[[], float]:
    """A function that takes one step of the optimizer on a batch and returns the loss."""
    net = PlainNet(encoder).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=1e-4)
    cross_entropy = nn.CrossEntropyLoss(ignore_index=VOID)
    batch = next(iter(DataLoader(Frames(data, "train", size), batch_size, shuffle=True)))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits, depth = net(batch["image"])
        error = (depth - batch["depth"]).abs() * batch["valid"]
        depth_loss = error.sum() / batch["valid"].sum().clamp(min=1)
        loss = cross_entropy(logits, batch["label"]) + 0.1 * depth_loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def sampler(data: Path, work: Path, encoder: str, size: Size) -> Callable[[int], None]:
    """A function that makes so many training samples, in batches ready for the network."""
    frames = Frames(data, "train", size)

    def make(count: int) -> None:
        indices = [i % len(frames) for i in range(count)]
        for _ in DataLoader(frames, batch_size=8, sampler=indices, num_workers=0):
            pass

    return make


def prepare(work: Path, encoder: str) -> None:
    """Write the weights of five networks, random ones, unless they are there."""
    folder = _weights(work, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    for fold in range(FOLDS):
        torch.manual_seed(fold)
        if not (folder / f"fold_{fold}.pth").exists():
            torch.save(PlainNet(encoder).state_dict(), folder / f"fold_{fold}.pth")


def _weights(work: Path, encoder: str) -> Path:
    return work / "plain" / encoder


def infer(
    data: Path, work: Path, encoder: str, size: Size, device: torch.device | str = "cpu"
) -> Path:
    """Predict data/test with five folds and a flipped view; returns the submission, a CSV file."""
    models = []
    for path in sorted(_weights(work, encoder).glob("*.pth")):
        net = PlainNet(encoder)
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        views = ttach.Compose([ttach.HorizontalFlip()])
        wrapped = ttach.SegmentationTTAWrapper(Probabilities(net), views, merge_mode="mean")
        models.append(wrapped.eval().to(device))
    path = work / "plain" / "submission.csv"
    with path.open("w", newline="") as file, torch.inference_mode():
        writer = csv.writer(file)
        writer.writerow(["ImageId_ClassId", "EncodedPixels"])
        for batch in DataLoader(Frames(data, "test", size), batch_size=2):
            images = batch["image"].to(device)
            probabilities = sum(model(images) for model in models) / len(models)
            masks = probabilities.argmax(1).to(torch.uint8).cpu().numpy()
            for image_id, mask in zip(batch["id"], masks, strict=True):
                writer.writerows((f"{image_id}_{k}", text) for k, text in enumerate(encode(mask)))
    return path


def rle(mask: np.ndarray) -> str:
    """Run-length text of one class, bool [H,W]: 'start length ...' down the columns, from 1."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def encode(mask: np.ndarray) -> list[str]:
    """The 13 run-length texts of a mask, uint8 [H,W]."""
    return [rle(mask == k) for k in range(CLASSES)]
