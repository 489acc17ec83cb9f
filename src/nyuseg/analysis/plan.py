"""What a configuration takes on a device, estimated before anything is computed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from nyuseg.analysis.cards import Card
from nyuseg.analysis.footprint import (
    counted_part,
    forward_operations,
    prediction_peak,
    training_peak,
    training_skeleton,
)
from nyuseg.config.schema import Config
from nyuseg.dataloading.dataset import PIXEL_BYTES
from nyuseg.experiment.fold_files import fold_bytes
from nyuseg.inference.predictor import TOGETHER
from nyuseg.inference.tta import scaled_size
from nyuseg.models.device import STREAMS
from nyuseg.models.skeleton import build_skeleton
from nyuseg.utils.errors import UserError

# NYUv2: images to train on, images to predict, their height and width.
TRAINING_IMAGES, TEST_IMAGES, NATIVE = 795, 654, (480, 640)
# Memory that is taken for what tensors need at once: what lies unused between them, and what
# convolutions work with. Measured on a processor: 1.1 to 1.3.
SLACK = 1.2
# The backward pass takes twice the operations of the forward pass; checkpointing repeats that one.
TRAINING_PASSES = 3
MOMENTS = 2 * 4  # Bytes that AdamW keeps for each parameter.


@dataclass(frozen=True)
class Plan:
    """Estimates for one configuration on one device; bytes, hours, floating-point operations.

    operations: of a forward pass on one training input. largest_batch: train.batch_size that fits,
    0 when none does. remedies: settings that make training fit if it does not, each enough by
    itself. training_hours: of all folds; full_hours: of the networks on all images, at most.
    kernel_hours: of the test images with all folds and views.
    """

    config: Config
    card: Card
    parameters: int
    encoder_parameters: int
    operations: int
    training_bytes: float
    largest_batch: int
    remedies: tuple[str, ...]
    prediction_bytes: float
    training_hours: float
    full_hours: float
    kernel_hours: float
    disk_bytes: int
    download_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the device can train it."""
        return self.training_bytes <= self.card.memory


def make_plan(config: Config, card: Card) -> Plan:
    """Estimate one configuration on one device. Raises UserError for a network that has nothing to
    be recomputed by compute.checkpointing."""
    network = build_skeleton(config.model, config.data)
    parameters, in_encoder = _count(network), _count(network.encoder)
    weights = _bytes(network)
    kept = sum(wish is not None for wish in (config.train.ema, config.train.mean_last))
    trained = training_skeleton(config, False)
    standing = _bytes(trained) * (1 + kept) + MOMENTS * _count(trained)
    memory = StepMemory(config, card, standing)
    compute, batch = config.compute, config.train.batch_size
    needed = memory.bytes(batch, compute.checkpointing, compute.accumulate)
    frames = TRAINING_IMAGES * NATIVE[0] * NATIVE[1] * PIXEL_BYTES * (compute.cache is not None)
    files = fold_bytes(config.folds.count, weights, kept, TRAINING_IMAGES, config.data.size)
    return Plan(
        config=config,
        card=card,
        parameters=parameters,
        encoder_parameters=in_encoder,
        operations=forward_operations(counted_part(config), config.training_size),
        training_bytes=needed,
        largest_batch=memory.largest_batch(compute.checkpointing, compute.accumulate),
        remedies=() if needed <= card.memory else tuple(_remedies(memory)),
        prediction_bytes=_prediction_bytes(config, card, weights),
        training_hours=config.folds.count * _hours(config, card, 1 / config.folds.count),
        full_hours=config.folds.full * _hours(config, card, 0),
        kernel_hours=_kernel_hours(config, card),
        disk_bytes=files + frames,
        download_bytes=4 * in_encoder * (config.model.encoder_weights == "imagenet"),
    )


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class StepMemory:
    """Memory of a training step on a device, by batch size and settings.

    standing: bytes of what stays from step to step, weights and optimizer.
    """

    def __init__(self, config: Config, card: Card, standing: float) -> None:
        self.config, self.card, self.standing = config, card, standing
        self.counted = counted_part(config)
        height, width = config.training_size
        # Image, label, depth and where that is valid.
        self.input_bytes = (4 * config.data.channel_count + 8 + 4 + 1) * height * width

    def bytes(self, batch: int, checkpointing: bool, parts: int) -> float:
        """Bytes of a step on a batch that is computed in so many parts."""
        fixed, each = self._line(checkpointing, parts)
        return fixed + each * batch

    def largest_batch(self, checkpointing: bool, parts: int) -> int:
        """The largest batch of a fold in so many parts that fits; 0 when none does."""
        fixed, each = self._line(checkpointing, parts)
        folds = self.config.folds.count
        images = TRAINING_IMAGES - TRAINING_IMAGES // folds
        most = min(images, int((self.card.memory - fixed) / each))
        return most // parts * parts if most >= 2 * parts else 0

    def fewest_parts(self, checkpointing: bool) -> int | None:
        """The fewest parts, of those configured or more, in which the batch fits, if any."""
        batch = self.config.train.batch_size
        for parts in range(self.config.compute.accumulate, batch // 2 + 1):
            fits = self.bytes(batch, checkpointing, parts) <= self.card.memory
            if batch % parts == 0 and fits:
                return parts
        return None

    def _line(self, checkpointing: bool, parts: int) -> tuple[float, float]:
        """Bytes whatever the batch, and those of each image of it."""
        half = self.card.is_half(self.config.compute.precision)
        how = (checkpointing, parts > 1, self.card.gpu, half)
        two, four = (training_peak(self.counted, images, *how) for images in (2, 4))
        each = (four - two) / 2
        # All of the batch's inputs are there, and one part's activations at a time.
        waiting = self.input_bytes * (1 - 1 / parts)
        fixed = self.card.base + self.standing + SLACK * (two - 2 * each)
        return fixed, SLACK * each / parts + waiting


def _remedies(memory: StepMemory) -> Iterator[str]:
    """Settings that make a step fit, the cheapest in time first."""
    compute = memory.config.compute
    parts = memory.fewest_parts(compute.checkpointing)
    if parts:
        yield f"--set compute.accumulate={parts}"
    if not compute.checkpointing:
        try:
            fewer = memory.fewest_parts(True)
        except UserError:  # It has no blocks to recompute.
            fewer = None
        if fewer and fewer < (parts or memory.config.train.batch_size):
            more = f" --set compute.accumulate={fewer}" * (fewer > compute.accumulate)
            yield f"--set compute.checkpointing=true{more}"
    if smaller := memory.largest_batch(compute.checkpointing, compute.accumulate):
        yield f"--set train.batch_size={smaller} (another experiment)"


def _prediction_bytes(config: Config, card: Card, weights: int) -> float:
    """Bytes of predicting with all folds and views, at the batch that is tried first."""
    views = config.tta.views
    together = config.compute.predict_batch_size or (TOGETHER if card.gpu else 1)
    images = max(1, together // len(views))
    # Views of one scale go through a network together.
    counts = {view.scale: [one.scale for one in views].count(view.scale) for view in views}
    scale = max(counts, key=lambda scale: scale**2 * counts[scale])
    size = next(scaled_size(view, config.data.size) for view in views if view.scale == scale)
    half = card.is_half(config.compute.precision)
    peak = prediction_peak(counted_part(config), size, images * counts[scale], card.gpu, half)
    streams = 1 if card.gpu else min(STREAMS, torch.get_num_threads())
    return card.base + weights * config.folds.count + SLACK * peak * streams


def _hours(config: Config, card: Card, held_out: float) -> float:
    """Hours of training a network without a part of the images, predicted after each epoch."""
    train, counted, predicted = config.train, counted_part(config), TRAINING_IMAGES * held_out
    steps = (TRAINING_IMAGES - predicted) // train.batch_size
    passes = steps * train.batch_size * (TRAINING_PASSES + config.compute.checkpointing)
    operations = passes * forward_operations(counted, config.training_size)
    operations += predicted * forward_operations(counted, config.data.size)
    return train.epochs * operations / card.speed(config.compute.precision) / 3600


def _kernel_hours(config: Config, card: Card) -> float:
    """Hours of predicting the test images with all folds and views."""
    sizes = [scaled_size(view, config.data.size) for view in config.tta.views]
    counted = counted_part(config)
    views = sum(forward_operations(counted, size) for size in sizes)
    speed = card.speed(config.compute.precision)
    return TEST_IMAGES * config.folds.count * views / speed / 3600
