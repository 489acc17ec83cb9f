"""The only way from images to class probabilities. It never sees a label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nyuseg.config import Config
from nyuseg.dataset import PredictionSet, iterate, make_loader
from nyuseg.device import autocast
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


class Predictor:
    """Averages the probabilities of K models x views, in fp32, on the decoder's grid.

    Validation, out-of-fold prediction and test inference all call it.
    """

    def __init__(
        self, models: Sequence[nn.Module], config: Config, device: torch.device, tta: bool = False
    ) -> None:
        self.models, self.config, self.device = list(models), config, device
        self.views = make_views(tta)
        for model in self.models:
            model.to(device, memory_format=torch.channels_last).eval()

    @property
    def view_names(self) -> list[str]:
        return view_names(self.views)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images float32 [N,C,H,W] to probabilities [N,13,H/4,W/4] and depth [N,1,H/4,W/4]."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        probabilities, depths = [], []
        for view in self.views:
            seen = self._keep_coordinates(view.augment_image(images), images)
            for model in self.models:
                with autocast(self.device, self.config.train.precision):
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
        for batch in iterate(make_loader(frames, batch_size, workers, self.device)):
            probabilities, depth = self(batch["image"])
            for i, (image_id, size) in enumerate(zip(batch["id"], batch["size"], strict=True)):
                one_depth = None if depth is None else depth[i]
                yield Prediction(image_id, size, probabilities[i], one_depth)


def _mean(parts: list[torch.Tensor]) -> torch.Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total / len(parts)
