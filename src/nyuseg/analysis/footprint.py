"""What a network's work takes, counted without doing it: operations and peak memory.

Operations are those that torch's counter finds in a forward pass on the meta device. Memory is
that of the tensors that are alive at once while forward pass, losses and backward pass run on fake
tensors, which have shapes, types and lifetimes but no values. So what autocast halves, what the
backward pass needs and what checkpointing forgets is counted as it happens.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from nyuseg.config.augment import Augment
from nyuseg.config.schema import Config
from nyuseg.config.sections import Compute, Folds, Train
from nyuseg.data.classes import NUM_CLASSES
from nyuseg.models.atrous import AtrousDepthwise
from nyuseg.models.depthwise import InFloat32
from nyuseg.models.network import MultiTaskNet
from nyuseg.models.skeleton import build_skeleton
from nyuseg.training.losses import SORT_EVERY, multitask_loss
from nyuseg.training.optimization import fit_for_training

Size = tuple[int, int]
# What a processor computes in a way of its own, and what autocast leaves in float32 on a GPU
# (https://pytorch.org/docs/stable/amp.html).
CPU_ONLY: tuple[Any, ...] = (AtrousDepthwise, InFloat32)
GPU_FLOAT32 = (nn.LayerNorm, nn.GroupNorm)
# Bytes that the Lovasz loss keeps for each class and pixel that it sorts, as if all classes
# occurred: it asks for values, so that fake tensors cannot go through it.
LOVASZ_BYTES = 26
# Settings of training that change neither a step's operations nor what it keeps for its gradients.
OPTIMIZATION: tuple[str, ...] = (
    "epochs",
    "batch_size",
    "lr",
    "schedule",
    "warmup",
    "encoder_lr",
    "layer_decay",
)
OPTIMIZATION += ("weight_decay", "decay_all", "clip_norm", "ema", "mean_last")


def counted_part(config: Config) -> Config:
    """A configuration without what makes no difference here: those of one network, losses and sizes
    are equal, and counted once."""
    plain = {name: getattr(Train(), name) for name in OPTIMIZATION}
    sections = {
        "train": config.train.model_copy(update=plain),
        "augment": Augment(crop=config.training_size),
        "compute": Compute(),
        "folds": Folds(),
    }
    return config.model_copy(update={"name": "counted", "seed": 0, **sections})


@cache
def forward_operations(config: Config, size: Size) -> int:
    """Floating-point operations of a forward pass on one image of a size; a product counts two."""
    network = build_skeleton(config.model, config.data).eval()
    image = torch.empty(1, config.data.channel_count, *size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops())


@cache
def training_peak(
    config: Config, images: int, checkpointing: bool, held: bool, gpu: bool, half: bool
) -> int:
    """Peak bytes of a training step on so many images, beside weights and optimizer.

    Its inputs and the gradients are counted. held: whether gradients of an earlier part of the
    batch are there already. half: matrix products in 16 bits. Raises UserError for checkpointing
    of a network that has no blocks.
    """
    options = config.train.model_copy(update={"lovasz": 0.0})
    with _faked(training_skeleton(config, checkpointing), gpu) as network:
        for parameter in network.parameters() if held else ():
            parameter.grad = torch.empty_like(parameter)
        with LivePeak() as live:
            batch = _batch(config, images)
            with _half_precision(half):
                output = network.train()(batch["image"])
            multitask_loss(output, batch, options)["total"].backward()
        gradients = sum(parameter.nbytes for parameter in network.parameters()) * held
    height, width = (-(-side // SORT_EVERY) for side in config.training_size)
    lovasz = LOVASZ_BYTES * NUM_CLASSES * images * height * width * (config.train.lovasz > 0)
    return live.peak + gradients + lovasz


@cache
def prediction_peak(config: Config, size: Size, images: int, gpu: bool, half: bool) -> int:
    """Peak bytes of a forward pass on so many images of a size, beside the weights."""
    network = build_skeleton(config.model, config.data)
    with _faked(network, gpu), torch.no_grad(), LivePeak() as live:
        image = torch.empty(images, config.data.channel_count, *size)
        with _half_precision(half):
            network.eval()(image.contiguous(memory_format=torch.channels_last))
    return live.peak


def training_skeleton(config: Config, checkpointing: bool) -> MultiTaskNet:
    """The skeleton of a network as it trains, with or without recomputed blocks.

    Raises UserError for checkpointing of a network that has no blocks.
    """
    network = build_skeleton(config.model, config.data)
    with torch.device("meta"):
        fit_for_training(network, config.train, Compute(checkpointing=checkpointing))
    return network


def _batch(config: Config, images: int) -> dict[str, torch.Tensor]:
    """What inputs.training_inputs makes of a batch."""
    size = config.training_size
    image = torch.empty(images, config.data.channel_count, *size)
    return {
        "image": image.contiguous(memory_format=torch.channels_last),
        "label": torch.empty(images, *size, dtype=torch.int64),
        "depth": torch.empty(images, 1, *size),
        "depth_valid": torch.empty(images, 1, *size, dtype=torch.bool),
    }


def _half_precision(enabled: bool) -> torch.autocast:
    # Gradients of a GPU's fake tensors need a GPU: here all of them are a processor's.
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


@contextmanager
def _faked(network: MultiTaskNet, gpu: bool) -> Iterator[MultiTaskNet]:
    """A skeleton with fake tensors, for use within the `with` block, as a device would run it."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        made: dict[int, torch.Tensor] = {}
        for module in network.modules():
            stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for held in stores:
                for name, tensor in held.items():
                    if tensor is not None:
                        held[name] = made.setdefault(id(tensor), _fake(tensor))
            if gpu:
                _run_as_on_gpu(module)
        yield network


def _fake(tensor: torch.Tensor) -> Any:
    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake


def _run_as_on_gpu(module: Any) -> None:
    for kind in CPU_ONLY:
        if isinstance(module, kind):
            module.forward = super(kind, module).forward
    if isinstance(module, GPU_FLOAT32):
        module.register_forward_pre_hook(_in_float32)


def _in_float32(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.float() for value in inputs)


class LivePeak(TorchDispatchMode):
    """Counts the bytes of the storages that are made in a `with` block, while they live."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.peak = self._live = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                self._see(value.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._live += self._sizes[key]
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._live -= self._sizes.pop(key)
