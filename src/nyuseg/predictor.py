"""The only way from images to class probabilities. It never sees a label."""

import copy
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from torch import nn

from nyuseg.ahead import ahead, in_order
from nyuseg.config import Config
from nyuseg.dataset import PredictionSet, iterate, make_loader
from nyuseg.device import autocast, free_memory, is_out_of_memory
from nyuseg.errors import UserError
from nyuseg.fitting import to_mask
from nyuseg.inputs import Sample, network_images
from nyuseg.tta import make_views, view_names

TRIM_EVERY = 8  # Batches.


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one frame.

    size: the frame's native height and width. On the grid of the padded input (see fitting), on
    the device: probabilities, float32 [13,h,w], summing to 1 over the classes, and depth, float32
    [1,h,w], linear in 0..1, or None without a depth head. mask: uint8 [size], 0..12.
    """

    id: str
    size: tuple[int, int]
    probabilities: torch.Tensor
    depth: torch.Tensor | None
    mask: np.ndarray


class NotFiniteError(UserError):
    """Probabilities that are infinite or not numbers, whatever the precision."""


class Predictor:
    """Averages the probabilities of K models x views, in fp32, on the decoder's grid.

    Validation, out-of-fold prediction, test inference and the Kaggle kernel all call it. With
    several devices each holds all models and takes a batch when it has none. A device that is named
    several times holds them once; a processor then shares its cores out among as many batches.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        config: Config,
        device: torch.device | Sequence[torch.device],
        tta: bool = False,
    ) -> None:
        self.config = config
        self.devices = [device] if isinstance(device, torch.device) else list(device)
        self.views = list(make_views(tta))
        held: dict[torch.device, list[nn.Module]] = {}
        for device in dict.fromkeys(self.devices):
            copies = copy.deepcopy(list(models)) if held else models
            held[device] = [
                model.to(device, memory_format=torch.channels_last).eval() for model in copies
            ]
        self.replicas = [held[device] for device in self.devices]
        together = config.predict.batch_size or (16 if self.devices[0].type == "cuda" else 2)
        self.batch_size = max(1, together // len(self.views))
        # How many images a network has been seen to take at once, all views counted.
        self.fitting = sys.maxsize
        self.limit(len(models), len(self.views))

    def limit(self, models: int, views: int) -> None:
        """From now on average only the first so many models and views."""
        self.model_count, self.view_count = models, views

    @property
    def view_names(self) -> list[str]:
        return view_names(self.view_count)

    @torch.inference_mode()
    def __call__(
        self, images: torch.Tensor, replica: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images float32 [N,C,H,W] to probabilities [N,13,H/4,W/4] and depth [N,1,H/4,W/4].

        A batch that overflows in half precision is predicted again in float32. Raises
        NotFiniteError when its answer is not finite even then.
        """
        images = images.to(
            self.devices[replica], memory_format=torch.channels_last, non_blocking=True
        )
        answer = self._average(images, replica, self.config.train.precision)
        if not torch.isfinite(answer[0]).all():  # float16 overflows where bfloat16 did not.
            answer = self._average(images, replica, "fp32")
        if not torch.isfinite(answer[0]).all():
            raise NotFiniteError("the network's answer is not finite: its weights are ruined")
        return answer

    def _average(
        self, images: torch.Tensor, replica: int, precision: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The mean over models and views; all views of a batch go through a network together."""
        views = self.views[: self.view_count]
        seen = torch.cat(
            [self._keep_coordinates(view.augment_image(images), images) for view in views]
        ).contiguous(memory_format=torch.channels_last)
        probabilities, depths = _Mean(), _Mean()
        for model in self.replicas[replica][: self.model_count]:
            output = self._run(model, seen, precision)
            for i, view in enumerate(views):
                part = slice(i * len(images), (i + 1) * len(images))
                probabilities.add(view.deaugment_mask(output["logits"][part].softmax(1)))
                if "depth" in output:
                    depths.add(view.deaugment_mask(output["depth"][part]))
        return probabilities.value(), depths.value() if depths.count else None

    def _run(self, model: nn.Module, seen: torch.Tensor, precision: str) -> dict[str, torch.Tensor]:
        """A network's answers in float32, for as many images at once as fit into the memory."""
        parts: list[dict[str, torch.Tensor]] = []
        first = 0
        while first < len(seen):
            part = seen[first : first + self.fitting]
            try:
                with autocast(seen.device, precision):
                    output = model(part)
            except RuntimeError as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                self.fitting = len(part) // 2
            else:
                parts.append({key: value.float() for key, value in output.items()})
                first += len(part)
                continue
            # Here, after the exception and the tensors that it held on to are gone.
            free_memory(seen.device)
            print(f"out of memory: {self.fitting} images at once from now on", flush=True)
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _keep_coordinates(self, seen: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Coordinate channels say where a pixel lies in the input; a flipped view keeps them."""
        where = self.config.data.xy_channels
        if where is not None and seen is not images:
            seen = seen.clone()
            seen[:, where] = images[:, where]
        return seen

    def predict(self, frames: PredictionSet) -> Iterator[Prediction]:
        """Predict each frame of a set, in its order.

        One batch is read and another predicted while the caller works on the answers of a third;
        memory does not depend on the number of frames.
        """
        count, threads = len(self.devices), torch.get_num_threads()
        # Few frames are shared out, too.
        batch_size = min(self.batch_size, -(-len(frames) // count)) or 1
        loader = make_loader(frames, batch_size, self.config.train.workers, self.devices[0])
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
        batches = batches if loader.num_workers else ahead(batches)
        try:
            for answers in in_order(predictions, batches, count, count):
                yield from answers
        finally:
            torch.set_num_threads(threads)  # New threads start with what was set last.

    def _predictions(self, batch: Sample, replica: int) -> list[Prediction]:
        probabilities, depth = self.answer(batch, replica)
        return [
            Prediction(
                image_id,
                tuple(size),
                probabilities[i],
                None if depth is None else depth[i],
                to_mask(probabilities[i], tuple(size), self.config.data.size),
            )
            for i, (image_id, size) in enumerate(zip(batch["id"], batch["size"], strict=True))
        ]

    def answer(self, batch: Sample, replica: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As a call, for a batch of integer frames as dataset.collate makes it."""
        return self(network_images(batch, self.config.data, self.devices[replica]), replica)


class _Mean:
    """A running mean of tensors, so that only one of them is kept."""

    def __init__(self) -> None:
        self.total, self.count = None, 0

    def add(self, part: torch.Tensor) -> None:
        self.total = part.clone() if self.total is None else self.total.add_(part)
        self.count += 1

    def value(self) -> torch.Tensor:
        return self.total / self.count
