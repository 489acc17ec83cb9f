"""The only way from frames to class probabilities and masks. It never sees a label."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from torch.utils.data import DataLoader

from nyuseg.config.schema import Config
from nyuseg.dataloading.dataset import PredictionSet
from nyuseg.dataloading.inputs import Sample, network_images
from nyuseg.dataloading.loader import iterate, make_loader
from nyuseg.inference.ensemble import Ensemble, WeightedMean
from nyuseg.inference.grid import regrid, to_mask
from nyuseg.models.device import free_memory
from nyuseg.utils.prefetch import in_order, prefetch

TRIM_EVERY = 8  # Batches.


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one frame.

    size: the frame's native height and width. On the grid of the padded input (see letterbox), on
    the device: probabilities, float32 [13,h,w], summing to 1 over the classes, and depth, float32
    [1,h,w], linear in 0..1, or None without a depth head. mask: uint8 [size], 0..12.
    """

    id: str
    size: tuple[int, int]
    probabilities: torch.Tensor
    depth: torch.Tensor | None
    mask: np.ndarray


class Predictor:
    """Frames in, predictions out: the weighted mean of one experiment or several.

    Validation, out-of-fold prediction, test inference and the Kaggle kernel all call it. Each
    device takes a batch when it has none; a processor that is named several times shares its cores
    out among as many batches. Answers of experiments whose inputs differ in size are brought to
    the grid of the largest.

    ensembles: on the same devices, one for each experiment. config: of the whole; default: of the
    first one.
    """

    def __init__(self, ensembles: Sequence[Ensemble], config: Config | None = None) -> None:
        self.ensembles, self.config = list(ensembles), config or ensembles[0].config
        self.devices = self.ensembles[0].devices
        sizes = {ensemble.config.data.size for ensemble in self.ensembles}
        self.sizes = sorted(sizes, key=lambda size: (size[0] * size[1], size), reverse=True)
        gpu = self.devices[0].type == "cuda"
        together = self.config.compute.predict_batch_size or (16 if gpu else 1)
        self.batch_size = max(1, together // self.view_count)
        self._loader: tuple[PredictionSet, DataLoader] | None = None

    def limit(self, models: int, views: int) -> None:
        """From now on average only the first so many models and views of each experiment."""
        for ensemble in self.ensembles:
            ensemble.limit(models, views)

    @property
    def model_count(self) -> int:
        """How many models of an experiment are averaged."""
        return max(ensemble.model_count for ensemble in self.ensembles)

    @property
    def view_count(self) -> int:
        """Over how many views each model is averaged, at most."""
        return max(ensemble.view_count for ensemble in self.ensembles)

    @property
    def view_names(self) -> list[str]:
        """The views in use, each once."""
        used = (view.name for one in self.ensembles for view in one.views[: one.view_count])
        return list(dict.fromkeys(used))

    def frames(self, frames: PredictionSet) -> PredictionSet:
        """The same frames, fitted to every size of input that an experiment here has."""
        depth = any(ensemble.config.data.uses_depth for ensemble in self.ensembles)
        return PredictionSet(frames.source, frames.ids, frames.data, self.sizes, depth)

    def predict(self, frames: PredictionSet) -> Iterator[Prediction]:
        """Predict each frame of a set, in its order.

        One batch is read and another predicted while the caller works on the answers of a third;
        memory does not depend on the number of frames.
        """
        count, threads = len(self.devices), torch.get_num_threads()
        loader = self._loader_of(frames)
        batch_number, idle = itertools.count(1), SimpleQueue()
        for replica in range(count):
            idle.put(replica)

        def predictions(batch: Sample) -> list[Prediction]:
            replica = idle.get()
            torch.set_num_threads(max(1, threads // count))  # Of this thread alone.
            try:
                return self._predictions(batch, replica)
            finally:
                # On a processor free pieces would add up between batches.
                if self.devices[replica].type == "cpu" and next(batch_number) % TRIM_EVERY == 0:
                    free_memory(self.devices[replica])
                idle.put(replica)

        # As many threads as devices: each batch goes to one that has nothing to do.
        batches = iterate(loader)
        # Workers read ahead by themselves, and must not be started from another thread.
        batches = batches if loader.num_workers else prefetch(batches)
        try:
            for answers in in_order(predictions, batches, count, count):
                yield from answers
        finally:
            torch.set_num_threads(threads)  # New threads start with what was set last.

    def _loader_of(self, frames: PredictionSet) -> DataLoader:
        """A loader of the frames, with its workers, kept for the next call with the same set."""
        if self._loader is None or self._loader[0] is not frames:
            # Few frames are shared out, too.
            batch_size = min(self.batch_size, -(-len(frames) // len(self.devices))) or 1
            workers = self.config.compute.workers
            loader = make_loader(self.frames(frames), batch_size, workers, self.devices[0])
            self._loader = frames, loader
        return self._loader[1]

    def _predictions(self, batch: Sample, replica: int) -> list[Prediction]:
        probabilities, depth = self.answer(batch, replica)
        return [
            Prediction(
                image_id,
                tuple(size),
                probabilities[i],
                None if depth is None else depth[i],
                to_mask(probabilities[i], tuple(size), self.sizes[0]),
            )
            for i, (image_id, size) in enumerate(zip(batch["id"], batch["size"], strict=True))
        ]

    def answer(self, batch: Sample, replica: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Probabilities [N,13,h,w] and depth [N,1,h,w] of a batch, on the largest input's grid.

        batch: integer frames of a set that `frames` fitted, as loader.collate makes it.
        """
        probabilities, depths = WeightedMean(), WeightedMean()
        for ensemble in self.ensembles:
            data, device = ensemble.config.data, self.devices[replica]
            images = network_images(batch, data, device, self.sizes.index(data.size))
            answer, depth = ensemble(images, replica)
            probabilities.add(self._regrid(answer, batch, data.size), ensemble.weight)
            if depth is not None:
                depths.add(self._regrid(depth, batch, data.size), ensemble.weight)
        return probabilities.value(), depths.value() if depths.weight else None

    def _regrid(self, answer: torch.Tensor, batch: Sample, size: tuple[int, int]) -> torch.Tensor:
        if size == self.sizes[0]:
            return answer
        natives = [tuple(native) for native in batch["size"]]
        parts = zip(answer, natives, strict=True)
        return torch.stack([regrid(part, native, size, self.sizes[0]) for part, native in parts])
