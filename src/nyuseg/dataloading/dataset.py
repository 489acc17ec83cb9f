"""Frames as integer arrays: with labels for training, without for everything that predicts."""

from collections.abc import Collection, Iterator, Sequence
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from torch.utils.data import Dataset, Sampler, get_worker_info

from nyuseg.config.schema import Config
from nyuseg.config.sections import Data
from nyuseg.config.values import GEOMETRY
from nyuseg.data.depth import to_millimetres
from nyuseg.data.frames import Frame
from nyuseg.dataloading.copy_paste import paste
from nyuseg.dataloading.height import frame_geometry
from nyuseg.dataloading.inputs import Sample, input_key
from nyuseg.dataloading.letterbox import letterbox
from nyuseg.dataloading.rare import inverse_shares
from nyuseg.dataloading.seeds import mix_seed
from nyuseg.utils.errors import UserError

ID_BYTES = 64
MOST_WORKERS = 64
PIXEL_BYTES = 6  # Image 3, depth 2, label 1.
GEOMETRY_BYTES = {"height": 2, "upward": 1}


class Source(Protocol):
    """Where the frames of a split are read from: frames.FrameFolder or frame_cache.FrameCache."""

    @property
    def root(self) -> Path: ...

    @property
    def split(self) -> str: ...

    def read(self, image_id: str, kinds: Sequence[str] = ("image", "depth")) -> Frame: ...


def read_frame(source: Source, image_id: str, kinds: Sequence[str], data: Data) -> Frame:
    """Arrays of a frame at its native size, see FrameFolder.read, but depth in millimetres.

    Here alone a depth file's numbers become millimetres: the cache keeps the files' own.
    """
    frame = source.read(image_id, kinds)
    if "depth" in frame:
        frame["depth"] = to_millimetres(frame["depth"], data.depth_unit, data.depth_missing)
    return frame


class FrameSet(Dataset[Sample]):
    """Frames of a split, read one at a time; whatever goes wrong names the frame."""

    def __init__(
        self, source: Source, ids: Sequence[str], data: Data, kinds: Collection[str] = ()
    ) -> None:
        self.source, self.ids, self.data = source, list(ids), data
        self.kinds = kinds or data.frame_kinds
        # What is made of the depth of each frame.
        self.geometry = [kind for kind in GEOMETRY if kind in self.kinds]
        # What each worker is reading, for the day that one dies: shared memory, by worker.
        self.reading = [RawArray("c", ID_BYTES) for _ in range(MOST_WORKERS)]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sample_bytes(self) -> int:
        """Bytes that the arrays of a sample take, at most."""
        return self.pixel_bytes * self.data.size[0] * self.data.size[1]

    @property
    def pixel_bytes(self) -> int:
        """Bytes that a pixel takes in all arrays of a sample, at most."""
        return PIXEL_BYTES + sum(GEOMETRY_BYTES[kind] for kind in self.geometry)

    def _read(self, index: int, kinds: Sequence[str]) -> Frame:
        image_id = self.ids[index]
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id % MOST_WORKERS].value = image_id.encode()[: ID_BYTES - 1]
        try:
            frame = read_frame(self.source, image_id, kinds, self.data)
            if self.geometry and "depth" in frame:  # Of the whole frame: a crop may show no floor.
                frame |= frame_geometry(frame["depth"], self.geometry)
        except (OSError, MemoryError, cv2.error) as error:
            where = self.source.root / self.source.split
            raise UserError(f"{where}: frame {image_id} cannot be read: {error}") from error
        return frame


class PredictionSet(FrameSet):
    """Frames of a split as the Predictor reads them, letterboxed into the network's input.

    A sample: `image` uint8 [H,W,3], `depth` uint16 [H,W] in mm and what frame_geometry makes of the
    whole frame's, as far as asked for, `id`, `size` (native H, W). It never reads a label. sizes:
    the input's; more of them give `image1`, `depth1`, ... as well, see inputs.input_key. kinds: see
    Data.frame_kinds, which is the default.
    """

    def __init__(
        self,
        source: Source,
        ids: Sequence[str],
        data: Data,
        sizes: Sequence[tuple[int, int]] = (),
        kinds: Collection[str] = (),
    ) -> None:
        super().__init__(source, ids, data, kinds)
        self.sizes = list(sizes) or [data.size]
        self.depth = "depth" in self.kinds

    @property
    def sample_bytes(self) -> int:
        return self.pixel_bytes * sum(height * width for height, width in self.sizes)

    def __getitem__(self, index: int) -> Sample:
        frame = self._read(index, ("image", "depth")[: 1 + self.depth])
        sample: Sample = {"id": self.ids[index], "size": frame["image"].shape[:2]}
        for number, size in enumerate(self.sizes):
            for kind, pixels in letterbox(frame, size).items():
                sample[input_key(kind, number)] = pixels
        return sample


class TrainingSet(FrameSet):
    """Augmented training frames, addressed by (epoch, index).

    A sample: like one of a PredictionSet, with `label` uint8 [H,W] (255 void) and, where
    augmentation spoils the depth, `depth_seen`. Augmentation is a function of (seed, fold, epoch,
    index) alone, whatever worker makes it.
    """

    def __init__(self, source: Source, ids: Sequence[str], config: Config, fold: int) -> None:
        from nyuseg.dataloading.augmentation import (
            Augmentation,  # Not where only predictions are made.
        )

        super().__init__(source, ids, config.data)
        self.config, self.fold = config, fold
        options = config.augment
        self.weights = None
        if options.rare_crop or options.copy_paste or config.predict.balance:
            labels = (self._read(index, ("label",))["label"] for index in range(len(self)))
            self.weights = inverse_shares(labels)
        self.augment = Augmentation(options, config.data.size, self.weights)

    @property
    def sample_bytes(self) -> int:
        pixel = self.pixel_bytes + 2 * self.config.augment.spoils_depth
        return pixel * self.config.training_size[0] * self.config.training_size[1]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        seed = mix_seed(self.config.seed, self.fold, epoch, index)
        native = self._read(index, self.config.training_kinds)
        if self.config.augment.copy_paste:
            native = self._pasted(native, index, np.random.default_rng((seed, 3)))
        frame = self.augment(native, seed)
        return {**frame, "id": self.ids[index], "size": native["image"].shape[:2]}

    def _pasted(self, native: Frame, index: int, random: np.random.Generator) -> Frame:
        """A frame with an object of another one of these, with its probability."""
        if random.random() >= self.config.augment.copy_paste:
            return native
        other = (index + int(random.integers(1, len(self)))) % len(self)
        assert self.weights is not None
        return paste(native, self._read(other, self.config.training_kinds), self.weights, random)


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """The keys of an epoch in batches, the last one left out if it is not full; of a team's process
    its part of each.

    rank, size: which of how many processes; a batch is cut into parts that differ by one at most.
    """

    def __init__(self, keys: "EpochSampler", batch_size: int, rank: int = 0, size: int = 1) -> None:
        self.keys, self.batch_size = keys, batch_size
        self.part = slice(batch_size * rank // size, batch_size * (rank + 1) // size)

    def __len__(self) -> int:
        return len(self.keys) // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = list(self.keys)
        for number in range(len(self)):
            yield keys[number * self.batch_size :][: self.batch_size][self.part]


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of one epoch as (epoch, index) keys, a function of (seed, fold, epoch)."""

    def __init__(self, length: int, seed: int, fold: int) -> None:
        self.length, self.seed, self.fold, self.epoch = length, seed, fold, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.fold, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order])
