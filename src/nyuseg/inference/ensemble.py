"""The networks of one experiment, averaged: K folds x test-time views. It never sees a label."""

import copy
import sys
from collections.abc import Sequence

import torch
from torch import nn

from nyuseg.config.prediction import View
from nyuseg.config.schema import Config
from nyuseg.config.values import STRIDE
from nyuseg.inference.tta import augment, deaugment
from nyuseg.models.device import autocast, free_memory, to_device
from nyuseg.utils.errors import UserError, is_out_of_memory

Answer = tuple[torch.Tensor, torch.Tensor | None]


class NotFiniteError(UserError):
    """Probabilities that are infinite or not numbers, whatever the precision."""


class Ensemble:
    """Averages the probabilities of K models x views, in fp32, on the decoder's grid.

    tta: average over all views of the configuration instead of the first, the identity. weight:
    this experiment's in a blend. With several devices each holds all models; one that is named
    several times holds them once.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        config: Config,
        device: torch.device | Sequence[torch.device],
        tta: bool = False,
        weight: float = 1.0,
    ) -> None:
        self.config, self.weight = config, weight
        self.devices = [device] if isinstance(device, torch.device) else list(device)
        self.views = config.tta.views if tta else config.tta.views[:1]
        held: dict[torch.device, list[nn.Module]] = {}
        places = list(dict.fromkeys(self.devices))
        for device in places:
            # The last one takes the originals, so that what is copied is not on a GPU yet.
            copies = map(copy.deepcopy, models) if device != places[-1] else models
            held[device] = [to_device(model, device).eval() for model in copies]
        self.replicas = [held[device] for device in self.devices]
        # How many images a network has been seen to take at once, all views counted.
        self.max_batch = sys.maxsize
        self.limit(len(models), len(self.views))

    def limit(self, models: int, views: int) -> None:
        """From now on average only the first so many models and views, of those there are."""
        self.model_count = min(models, len(self.replicas[0]))
        self.view_count = min(views, len(self.views))

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor, replica: int = 0) -> Answer:
        """Images float32 [N,C,H,W] to probabilities [N,13,H/4,W/4] and depth [N,1,H/4,W/4].

        The depth is None without a depth head. A batch that overflows in half precision is
        predicted again in float32. Raises NotFiniteError when its answer is not finite even then.
        """
        images = images.to(
            self.devices[replica], memory_format=torch.channels_last, non_blocking=True
        )
        probabilities, depth = self._average(images, replica, self.config.compute.precision)
        if not torch.isfinite(probabilities).all():  # float16 overflows where bfloat16 did not.
            probabilities, depth = self._average(images, replica, "fp32")
        if not torch.isfinite(probabilities).all():
            raise NotFiniteError("the network's answer is not finite: its weights are ruined")
        return probabilities, depth

    def _average(self, images: torch.Tensor, replica: int, precision: str) -> Answer:
        """The mean over models and views."""
        grid = [n // STRIDE for n in images.shape[-2:]]
        batches = [(views, self._augment(views, images)) for views in self._groups()]
        probabilities, depths = WeightedMean(), WeightedMean()
        for model in self.replicas[replica][: self.model_count]:
            for views, seen in batches:
                output = self._run(model, seen, precision)
                for i, view in enumerate(views):
                    part = slice(i * len(images), (i + 1) * len(images))
                    probability = output["logits"][part].softmax(1)
                    probabilities.add(deaugment(view, probability, grid), view.weight)
                    if "depth" in output:
                        depths.add(deaugment(view, output["depth"][part], grid), view.weight)
        return probabilities.value(), depths.value() if depths.weight else None

    def _groups(self) -> list[list[View]]:
        """The views in use, by scale: those of one scale go through a network together."""
        groups: dict[float, list[View]] = {}
        for view in self.views[: self.view_count]:
            groups.setdefault(view.scale, []).append(view)
        return list(groups.values())

    def _augment(self, views: list[View], images: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([augment(view, images, self.config.data) for view in views])
        return seen.contiguous(memory_format=torch.channels_last)

    def _run(self, model: nn.Module, seen: torch.Tensor, precision: str) -> dict[str, torch.Tensor]:
        """A network's answers in float32, for as many images at once as fit into the memory."""
        parts: list[dict[str, torch.Tensor]] = []
        first = 0
        while first < len(seen):
            part = seen[first : first + self.max_batch]
            try:
                with autocast(seen.device, precision):
                    output = model(part)
            except RuntimeError as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                self.max_batch = min(self.max_batch, len(part) // 2)
            else:
                parts.append({key: value.float() for key, value in output.items()})
                first += len(part)
                continue
            # Here, after the exception and the tensors that it held on to are gone.
            free_memory(seen.device)
            print(f"out of memory: {self.max_batch} images at once from now on", flush=True)
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


class WeightedMean:
    """A running mean of tensors, so that only one of them is kept."""

    def __init__(self) -> None:
        self.total: torch.Tensor | None = None
        self.weight = 0.0

    def add(self, part: torch.Tensor, weight: float = 1.0) -> None:
        """Count a tensor in, of the shape of those before it."""
        part = part * weight
        self.total = part if self.total is None else self.total.add_(part)
        self.weight += weight

    def value(self) -> torch.Tensor:
        """The mean of what was added, which must not be nothing."""
        assert self.total is not None
        return self.total / self.weight
