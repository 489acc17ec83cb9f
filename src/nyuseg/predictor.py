"""The only way from images to class probabilities. It never sees a label."""

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from nyuseg.config import Config
from nyuseg.dataset import PredictionSet, Sample, iterate, make_loader
from nyuseg.device import autocast
from nyuseg.errors import UserError
from nyuseg.tta import make_views, view_names


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one frame, on the grid of the padded input (see fitting).

    probabilities: float32 [13,h,w], summing to 1 over the classes. depth: float32 [1,h,w], linear
    in 0..1, or None without a depth head. size: the frame's native height and width.
    """

    id: str
    size: tuple[int, int]
    probabilities: torch.Tensor
    depth: torch.Tensor | None


class NotFiniteError(UserError):
    """Probabilities that are infinite or not numbers, whatever the precision."""


class Predictor:
    """Averages the probabilities of K models x views, in fp32, on the decoder's grid.

    Validation, out-of-fold prediction, test inference and the Kaggle kernel all call it. With
    several devices each holds all models and takes every n-th batch: the answer is the same.
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
        copies = [list(models), *(copy.deepcopy(list(models)) for _ in self.devices[1:])]
        self.replicas = [
            [model.to(device, memory_format=torch.channels_last).eval() for model in replica]
            for device, replica in zip(self.devices, copies, strict=True)
        ]
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
        probabilities, depths = [], []
        for view in self.views[: self.view_count]:
            seen = self._keep_coordinates(view.augment_image(images), images)
            for model in self.replicas[replica][: self.model_count]:
                with autocast(images.device, precision):
                    output = model(seen)
                probabilities.append(view.deaugment_mask(output["logits"].float().softmax(1)))
                if "depth" in output:
                    depths.append(view.deaugment_mask(output["depth"].float()))
        return _mean(probabilities), _mean(depths) if depths else None

    def _keep_coordinates(self, seen: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Coordinate channels say where a pixel lies in the input; a flipped view keeps them."""
        where = self.config.data.xy_channels
        if where is not None and seen is not images:
            seen = seen.clone()
            seen[:, where] = images[:, where]
        return seen

    def predict(self, frames: PredictionSet) -> Iterator[Prediction]:
        """Predict each frame of a set, in its order, a batch at a time."""
        options = self.config
        batch_size, workers = options.predict.batch_size, options.train.workers
        loader = make_loader(frames, batch_size, workers, self.devices[0])
        for batch, (probabilities, depth) in self._answers(iterate(loader)):
            for i, (image_id, size) in enumerate(zip(batch["id"], batch["size"], strict=True)):
                one_depth = None if depth is None else depth[i]
                yield Prediction(image_id, tuple(size), probabilities[i], one_depth)

    def _answers(self, batches: Iterator[Sample]) -> Iterator[tuple[Sample, tuple]]:
        """Batches with their answers, in order; one thread a device, one batch ahead on each."""
        if len(self.devices) == 1:
            yield from ((batch, self(batch["image"])) for batch in batches)
            return
        with ExitStack() as stack:
            threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in self.devices]
            waiting: deque = deque()
            for number, batch in enumerate(batches):
                replica = number % len(threads)
                waiting.append((batch, threads[replica].submit(self, batch["image"], replica)))
                if len(waiting) > len(threads):
                    done, answer = waiting.popleft()
                    yield done, answer.result()
            yield from ((done, answer.result()) for done, answer in waiting)


def _mean(parts: list[torch.Tensor]) -> torch.Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total / len(parts)
