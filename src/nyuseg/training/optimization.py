"""One step of the optimizer, the same on every device."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nyuseg.config.sections import Compute, Train
from nyuseg.dataloading.inputs import Sample
from nyuseg.models.activation_checkpointing import recompute_blocks
from nyuseg.models.auxiliary_head import AuxiliaryHead
from nyuseg.models.device import autocast, autocast_dtype, to_device
from nyuseg.models.encoder_layers import layer_depths
from nyuseg.models.network import MultiTaskNet
from nyuseg.models.synced_batchnorm import sync_batchnorm
from nyuseg.models.team import ALONE, Team
from nyuseg.training.losses import multitask_loss, valid_pixels
from nyuseg.training.weight_averages import Averages

# What timm's transformers spare from the weight decay, also where only their features are built
# and nothing is left that would say so; registers, which are tokens as well, timm forgets.
POSITIONS = ("relative_position_bias_table", "logit_scale", "cpb_mlp", "pos_embed")
SPARED = (*POSITIONS, "cls_token", "reg_token")


class TrainingStep:
    """A network, moved to its device, with its optimizer, the averages of its weights and, for
    float16, its loss scaler.

    Nothing in a step waits for the device but train.lovasz and, in a team, each layer of torch's
    SyncBatchNorm: losses stay there, and the fused optimizer asks there whether the gradients are
    finite.
    """

    def __init__(
        self,
        model: MultiTaskNet,
        options: Train,
        compute: Compute,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        """team: processes that each take a part of the batch, and the same step."""
        self.options, self.compute, self.device = options, compute, device
        self.model, self.team = model, team
        fit_for_training(model, options, compute)
        if team.size > 1:
            sync_batchnorm(model, device)
        to_device(model, device)
        self.shared = _in_parallel(model) if team.size > 1 else model
        # The compiled function stands beside the model: names of weights and inference stay.
        self.forward = torch.compile(self.shared) if compute.compile else self.shared
        self.optimizer = torch.optim.AdamW(parameter_groups(model, options), options.lr, fused=True)
        half = autocast_dtype(device, compute.precision) == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.averages = Averages(model, options)

    def __call__(self, batch: Sample) -> torch.Tensor:
        """Take one step on a batch of inputs.training_inputs, of a team on its part of one.

        Returns the losses, on the device: float32 [3], total, segmentation, depth; NaN for a part
        that no pixel of the batch counts in, or that the network has no head for.
        """
        self.optimizer.zero_grad(set_to_none=True)
        counts = self._counts(batch)
        losses = torch.zeros(3, device=self.device)
        parts = list(_parts(batch, self.compute.accumulate))
        for number, part in enumerate(parts, start=1):
            with self._exchange(number == len(parts)):
                with autocast(self.device, self.compute.precision):
                    output = self.forward(part["image"])
                loss = multitask_loss(output, part, self.options, counts)
                # Gradients are averaged over the team, and here they belong to one sum.
                self.scaler.scale(loss["total"] * self.team.size).backward()
            losses += torch.stack([loss["total"], loss["segmentation"], loss["depth"]]).detach()
        self.team.sum(losses)
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.averages.after_step()
        nothing = torch.zeros_like(counts["segmentation"])
        pixels = [counts["segmentation"], counts["depth"] if "depth" in output else nothing]
        losses[1:] = losses[1:].where(torch.stack([some > 0 for some in pixels]), torch.nan)
        return losses

    def _counts(self, batch: Sample) -> dict[str, torch.Tensor]:
        """losses.valid_pixels of the whole batch."""
        counts = valid_pixels(batch, self.options)
        if self.team.size == 1:
            return counts
        summed = self.team.sum(torch.stack([count.double() for count in counts.values()]))
        return dict(zip(counts, summed.float(), strict=True))

    def _exchange(self, last: bool) -> AbstractContextManager[None]:
        """Only with the last part of a batch gradients go round."""
        if last or not isinstance(self.shared, DistributedDataParallel):
            return nullcontext()
        return self.shared.no_sync()

    def set_rate(self, rate: float) -> None:
        """The learning rate from now on; the encoder's is a multiple of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]

    def taken(self) -> int:
        """Steps that changed the weights; the loss scaler skips those with infinite gradients."""
        first = next(iter(self.optimizer.state.values()), None)
        return int(first["step"]) if first else 0

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the network's own state."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        return {**state, "averages": self.averages.state_dict()} if self.averages.kinds else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():  # Each precision resumes the other.
            self.scaler.load_state_dict(state["scaler"])
        if self.averages.kinds:
            self.averages.load_state_dict(state["averages"])


def has_idle_weights(model: nn.Module) -> bool:
    """Whether some weights are never called: a last convolution of smp's EfficientNets, and of
    those that it has of timm."""
    idle = ("_conv_head", "conv_head")
    return any(hasattr(module, name) for module in model.modules() for name in idle)


def _in_parallel(model: MultiTaskNet) -> DistributedDataParallel:
    """A network whose gradients are averaged over all processes; they begin with the first's."""
    idle = has_idle_weights(model)
    with warnings.catch_warnings():
        # Newer versions call broadcast_buffers otherwise. BatchNorm's are the same by themselves.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=idle)


def fit_for_training(model: MultiTaskNet, options: Train, compute: Compute) -> None:
    """Give a network, in place, what only training has: recomputed blocks, an auxiliary head."""
    if compute.checkpointing:
        recompute_blocks(model.encoder)
    if options.aux_loss:
        model.auxiliary_head = AuxiliaryHead(model.encoder.out_channels[-2])


def parameter_groups(model: nn.Module, options: Train) -> list[dict[str, Any]]:
    """The parameters of a network by learning rate and weight decay, as torch's optimizers take
    them; `lr_scale` is the multiple of train.lr.

    Without weight decay are, if it shall not act on all, vectors and what the encoder's author
    names in timm's `no_weight_decay`, such as tokens and positions. Raises UserError when layers
    shall learn at rates of their own and the encoder's are unknown.
    """
    spared = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    depths = {}
    if options.layer_decay != 1:
        depths = layer_depths(model.get_submodule("encoder"))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = 1.0
        if name.startswith("encoder."):
            depth = depths.get(name.removeprefix("encoder."), 0)
            scale = options.encoder_lr * options.layer_decay**depth
        free = parameter.ndim < 2 or name in spared or any(word in name for word in SPARED)
        decayed = options.decay_all or not free
        decay = options.weight_decay if decayed else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": found, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), found in groups.items()
    ]


def _parts(batch: Sample, count: int) -> Iterator[Sample]:
    size = len(batch["image"]) // count
    for first in range(0, size * count, size):
        yield {key: values[first : first + size] for key, values in batch.items()}
