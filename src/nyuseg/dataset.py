"""Frames as tensors: with labels for training, without for everything that predicts."""

import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from nyuseg.config import Config, Data
from nyuseg.depth import inverse_depth, linear_depth, log_depth
from nyuseg.errors import UserError
from nyuseg.fitting import fit_frame
from nyuseg.frames import frame_path, read_depth, read_image, read_label

Sample = dict[str, Any]
ID_BYTES = 64
MOST_WORKERS = 64
DEPTH_CODES = {
    "inverse_depth": inverse_depth,
    "linear_depth": linear_depth,
    "log_depth": log_depth,
}


def mix_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers, so that no two places share a random stream."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def read_frame(root: Path, split: str, image_id: str, with_label: bool) -> dict[str, np.ndarray]:
    """Read image, depth and, if asked, label of one frame at its native size.

    Raises UserError, naming the file, when one is absent, broken, or of another size.
    """
    frame = {
        "image": read_image(frame_path(root, split, "image", image_id)),
        "depth": read_depth(frame_path(root, split, "depth", image_id)),
    }
    if with_label:
        frame["label"] = read_label(frame_path(root, split, "label", image_id))
    height, width = frame["image"].shape[:2]
    for kind, pixels in frame.items():
        if pixels.shape[:2] != (height, width):
            raise UserError(
                f"{frame_path(root, split, kind, image_id)}: {kind} is "
                f"{pixels.shape[0]}x{pixels.shape[1]}, its image {height}x{width}"
            )
    return frame


def network_input(image: np.ndarray, depth: np.ndarray, data: Data) -> torch.Tensor:
    """Stack the channels that the config names: float32 [C,H,W].

    image: uint8 [H,W,3]; RGB is normalised by mean and standard deviation. depth: uint16 [H,W] in
    millimetres; its codes lie in 0..1, missing = 0. xy: the pixel's position in the input, 0..1
    from left to right and from top to bottom (Exp050).
    """
    height, width = depth.shape
    planes: list[np.ndarray] = []
    for channel in data.channels:
        if channel == "rgb":
            rgb = (image / np.float32(255) - np.float32(data.mean)) / np.float32(data.std)
            planes += list(rgb.transpose(2, 0, 1))
        elif channel == "xy":
            planes += list(np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height)))
        else:
            planes.append(DEPTH_CODES[channel](depth))
    return torch.from_numpy(np.stack(planes).astype(np.float32))


class FrameSet(Dataset[Sample]):
    """Frames of a split, read one at a time; whatever goes wrong names the frame."""

    def __init__(self, root: Path, split: str, ids: Sequence[str], data: Data) -> None:
        self.root, self.split, self.ids, self.data = root, split, list(ids), data
        # What each worker is reading, for the day that one dies: shared memory, by worker.
        self.reading = [RawArray("c", ID_BYTES) for _ in range(MOST_WORKERS)]

    def __len__(self) -> int:
        return len(self.ids)

    def _read(self, index: int, with_label: bool) -> dict[str, np.ndarray]:
        image_id = self.ids[index]
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id % MOST_WORKERS].value = image_id.encode()[: ID_BYTES - 1]
        try:
            return read_frame(self.root, self.split, image_id, with_label)
        except (OSError, MemoryError, cv2.error) as error:
            where = self.root / self.split
            raise UserError(f"{where}: frame {image_id} cannot be read: {error}") from error


class PredictionSet(FrameSet):
    """Frames of a split to predict on: `image` float32 [C,H,W], `id`, `size` (native H, W).

    It never reads a label.
    """

    def __getitem__(self, index: int) -> Sample:
        frame = self._read(index, with_label=False)
        fitted = fit_frame(frame, self.data.size)
        image = network_input(fitted["image"], fitted["depth"], self.data)
        return {"image": image, "id": self.ids[index], "size": frame["image"].shape[:2]}


class TrainingSet(FrameSet):
    """Augmented training frames, addressed by (epoch, index).

    A sample: `image` float32 [C,H,W], `label` int64 [H,W] (255 void), `depth` float32 [1,H,W]
    linear in 0..1, `depth_valid` bool [1,H,W], `id`, `size`. Augmentation is a function of
    (seed, fold, epoch, index) alone, whatever worker makes it.
    """

    def __init__(self, root: Path, ids: Sequence[str], config: Config, fold: int) -> None:
        from nyuseg.augment import Augmentation  # Not where only predictions are made.

        super().__init__(root, "train", ids, config.data)
        self.config, self.fold = config, fold
        self.augment = Augmentation(config.augment, config.data.size)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        native = self._read(index, with_label=True)
        fitted = fit_frame(native, self.data.size)
        frame = self.augment(fitted, mix_seed(self.config.seed, self.fold, epoch, index))
        depth = frame["depth"]
        return {
            "image": network_input(frame["image"], depth, self.data),
            "label": torch.from_numpy(frame["label"].astype(np.int64)),
            "depth": torch.from_numpy(linear_depth(depth))[None],
            "depth_valid": torch.from_numpy(depth > 0)[None],
            "id": self.ids[index],
            "size": native["image"].shape[:2],
        }


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of one epoch as (epoch, index) keys, a function of (seed, fold, epoch)."""

    def __init__(self, length: int, seed: int, fold: int) -> None:
        self.length, self.seed, self.fold, self.epoch = length, seed, fold, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.fold, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order])


def make_loader(
    frames: FrameSet, batch_size: int, workers: int | None, device: torch.device, **more: Any
) -> DataLoader:
    """Batches of a set as dicts, see collate; `workers` as in config.Train, `more` for torch."""
    gpu = device.type == "cuda"
    if workers is None:
        # The cores that this process may use, where the system tells.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        workers = min(8, cores) if gpu else 0
    return DataLoader(
        frames,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=gpu,
        **more,
    )


def iterate(loader: DataLoader) -> Iterator[Sample]:
    """The batches of a loader; a worker that dies becomes a UserError that names its frames."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        frames = loader.dataset
        reading = ", ".join(sorted({note.value.decode() for note in frames.reading} - {""}))
        raise UserError(
            f"{str(error).splitlines()[0].strip('. ')}, while reading {reading} of "
            f"{frames.root / frames.split}; with too little memory, use --set train.workers=0"
        ) from None


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # The workers share the cores; OpenCV would start threads in each.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process decides when to stop,
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and ends its workers.


def collate(samples: list[Sample]) -> Sample:
    """Stack tensors; keep ids and sizes as lists."""
    return {
        key: torch.stack([s[key] for s in samples])
        if isinstance(samples[0][key], torch.Tensor)
        else [s[key] for s in samples]
        for key in samples[0]
    }
