"""The only way from frames to class probabilities and masks. It never sees a label."""

import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from nyuseg.config.schema import Config
from nyuseg.dataloading.dataset import PredictionSet, Source
from nyuseg.dataloading.inputs import Sample, network_images
from nyuseg.dataloading.loader import collate, iterate, make_loader
from nyuseg.inference.ensemble import Answer, Ensemble, WeightedMean
from nyuseg.inference.grid import from_grid, largest_first, regrid, to_mask
from nyuseg.models.device import free_memory
from nyuseg.utils.prefetch import in_order, prefetch

TRIM_EVERY = 8  # Batches.
TOGETHER = 16  # Images with their views that are first tried at once on a GPU.
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one frame.

    size: the frame's native height and width. input_size: of the input that it was letterboxed
    into. On that input's grid, a quarter of it, and on the device: probabilities, float32 [13,h,w],
    summing to 1 over the classes, and depth, float32 [1,h,w], linear in 0..1, or None without a
    depth head.
    """

    id: str
    size: tuple[int, int]
    input_size: tuple[int, int]
    probabilities: torch.Tensor
    depth: torch.Tensor | None

    def full_probabilities(self) -> torch.Tensor:
        """The probabilities at the frame's own size, float32 [13,H,W], on the device."""
        return from_grid(self.probabilities, self.size, self.input_size)

    def full_depth(self) -> torch.Tensor | None:
        """The depth at the frame's own size, float32 [H,W] in 0..1, on the device."""
        if self.depth is None:
            return None
        return from_grid(self.depth, self.size, self.input_size)[0]

    @property
    def mask(self) -> np.ndarray:
        """The likeliest class of each pixel, uint8 [H,W], 0..12: made when first asked for."""
        # No cached_property: until Python 3.12 one lock of it serves all predictions.
        if "_mask" not in self.__dict__:
            self.__dict__["_mask"] = to_mask(self.probabilities, self.size, self.input_size)
        mask: np.ndarray = self.__dict__["_mask"]
        return mask


def images_at_once(config: Config, views: int, on_gpu: bool) -> int:
    """How many images, each with so many views, are predicted at once."""
    together = config.compute.predict_batch_size or (TOGETHER if on_gpu else 1)
    return max(1, together // views)


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
        self.sizes = largest_first(ensemble.config.data.size for ensemble in self.ensembles)
        # What of a frame any of them sees.
        self.kinds = {kind for one in self.ensembles for kind in one.config.data.frame_kinds}
        gpu = self.devices[0].type == "cuda"
        self.batch_size = images_at_once(self.config, self.view_count, gpu)
        self._loader: tuple[PredictionSet, DataLoader[Sample]] | None = None
        # The same threads for each call, and one for each device: each lets cuDNN search for the
        # fastest kernels of its own.
        own, replicas = threading.local(), iter(range(len(self.devices)))

        def begin() -> None:
            own.replica = next(replicas)

        self._own, self._threads = own, ThreadPoolExecutor(len(self.devices), initializer=begin)

    def limit(self, models: int, views: int) -> None:
        """From now on average only the first so many models and views of each experiment."""
        for ensemble in self.ensembles:
            ensemble.limit(models, views)

    @property
    def uses_depth(self) -> bool:
        """Whether any of them sees the depth."""
        return "depth" in self.kinds

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

    def predict(
        self, source: Source, ids: Sequence[str], masks: bool = False
    ) -> Iterator[Prediction]:
        """Predict frames of a source, in the order of their ids.

        One batch is read and another predicted while the caller works on the answers of a third;
        memory does not depend on the number of frames. masks: make the masks there, too, beside
        the caller's work; without it a mask is made by whoever asks for it.
        """

        def predictions(batch: Sample, replica: int) -> list[Prediction]:
            found = self._predictions(batch, self.answer(batch, replica))
            for prediction in found if masks else ():
                _ = prediction.mask
            return found

        return self._stream(source, ids, predictions)

    def predict_each(self, source: Source, ids: Sequence[str]) -> Generator[tuple[Prediction, ...]]:
        """As `predict`, but each ensemble's own prediction of a frame, on the one grid."""

        def predictions(batch: Sample, replica: int) -> list[tuple[Prediction, ...]]:
            found = [self._predictions(batch, one) for one in self._answers(batch, replica)]
            return list(zip(*found, strict=True))

        return self._stream(source, ids, predictions)

    def read(self, source: Source, ids: Sequence[str]) -> Sample:
        """A batch of frames as `answer` takes it: letterboxed into every size of input here."""
        frames = self._frames(source, ids)
        return collate([frames[index] for index in range(len(frames))])

    def _frames(self, source: Source, ids: Sequence[str]) -> PredictionSet:
        return PredictionSet(source, ids, self.config.data, self.sizes, self.kinds)

    def _stream(
        self,
        source: Source,
        ids: Sequence[str],
        function: Callable[[Sample, int], list[Result]],
    ) -> Generator[Result]:
        """What a function of a batch and a replica makes of each frame, in the order of ids."""
        count, threads = len(self.devices), torch.get_num_threads()
        loader = self._loader_of(source, ids)
        batch_number = itertools.count(1)

        def results(batch: Sample) -> list[Result]:
            replica: int = self._own.replica
            torch.set_num_threads(max(1, threads // count))  # Of this thread alone.
            try:
                return function(batch, replica)
            finally:
                # On a processor free pieces would add up between batches.
                if self.devices[replica].type == "cpu" and next(batch_number) % TRIM_EVERY == 0:
                    free_memory(self.devices[replica])

        # As many threads as devices: each batch goes to one that has nothing to do.
        batches = iterate(loader)
        # Workers read ahead by themselves, and must not be started from another thread.
        batches = batches if loader.num_workers else prefetch(batches)
        try:
            for found in in_order(results, batches, count, count, self._threads):
                yield from found
        finally:
            torch.set_num_threads(threads)  # New threads start with what was set last.

    def _loader_of(self, source: Source, ids: Sequence[str]) -> DataLoader[Sample]:
        """A loader of the frames, with its workers, kept for the next call with the same ones."""
        if self._loader is not None:
            frames, loader = self._loader
            if frames.source is source and frames.ids == list(ids):
                return loader
        frames, workers = self._frames(source, ids), self.config.compute.workers
        # Few frames are shared out, too.
        batch_size = min(self.batch_size, -(-len(frames) // len(self.devices))) or 1
        loader = make_loader(frames, batch_size, workers, self.devices[0])
        self._loader = frames, loader
        return loader

    def _predictions(self, batch: Sample, answer: Answer) -> list[Prediction]:
        probabilities, depth = answer
        return [
            Prediction(
                image_id,
                tuple(size),
                self.sizes[0],
                probabilities[i],
                None if depth is None else depth[i],
            )
            for i, (image_id, size) in enumerate(zip(batch["id"], batch["size"], strict=True))
        ]

    def answer(self, batch: Sample, replica: int = 0) -> Answer:
        """Probabilities [N,13,h,w] and depth [N,1,h,w] of a batch, on the largest input's grid.

        batch: integer frames, as `read` makes it.
        """
        probabilities, depths = WeightedMean(), WeightedMean()
        for ensemble, (answer, depth) in zip(
            self.ensembles, self._answers(batch, replica), strict=True
        ):
            probabilities.add(answer, ensemble.weight)
            if depth is not None:
                depths.add(depth, ensemble.weight)
        return probabilities.value(), depths.value() if depths.weight else None

    def _answers(self, batch: Sample, replica: int) -> Iterator[Answer]:
        """Each ensemble's answer, one at a time, on the largest input's grid."""
        for ensemble in self.ensembles:
            data, device = ensemble.config.data, self.devices[replica]
            images = network_images(batch, data, device, self.sizes.index(data.size))
            answer, depth = ensemble(images, replica)
            if depth is not None:
                depth = self._regrid(depth, batch, data.size)
            yield self._regrid(answer, batch, data.size), depth

    def _regrid(self, answer: torch.Tensor, batch: Sample, size: tuple[int, int]) -> torch.Tensor:
        if size == self.sizes[0]:
            return answer
        natives = [tuple(native) for native in batch["size"]]
        parts = zip(answer, natives, strict=True)
        return torch.stack([regrid(part, native, size, self.sizes[0]) for part, native in parts])
