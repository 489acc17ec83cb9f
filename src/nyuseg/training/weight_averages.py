"""Averages of a network's weights over its training, which may predict better than any epoch."""

from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from nyuseg.config.sections import Train
from nyuseg.utils.errors import UserError

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class Averages:
    """The averages that a configuration asks for, kept on the network's device.

    ema: the exponential moving average over the steps (train.ema is its decay). mean: the plain
    mean over the ends of the last train.mean_last epochs (Izmailov et al. 2018, arXiv 1803.05407).

    Both average floating-point buffers like parameters. BatchNorm's running statistics belong to
    the weights beside which they were collected: averaged weights with the statistics of the last
    ones would normalise by another network's activations. Averaging them alike is near to
    collecting them anew, without another pass over the images. Integer buffers count batches; no
    mean of them means anything, they are the network's own. Raises UserError for an ema of a
    network that has a tensor under two names.
    """

    def __init__(self, network: nn.Module, options: Train) -> None:
        self.network, self.steps = network, 0
        self.decay, self.skipped = options.ema or 0.0, options.epochs - (options.mean_last or 0)
        self.ema = None
        if options.ema is not None:
            _refuse_shared(network)
            self.ema = ModelEmaV3(network)
        self.mean = None
        if options.mean_last is not None:
            self.mean = AveragedModel(network, multi_avg_fn=_update_mean, use_buffers=True)
        kept = {"ema": self.ema, "mean": self.mean}
        self.kinds = {kind: one.module for kind, one in kept.items() if one is not None}

    def after_step(self) -> None:
        """Take the weights into the exponential average; waits for nothing on the device.

        The decay is min(d, (1 + t) / (10 + t)) after t steps, so that the random weights of the
        beginning are soon forgotten. t counts also the few steps that a loss scaler skips: to
        leave them out, the device would have to be asked.
        """
        if self.ema is not None:
            self.steps += 1
            self.ema.decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            self.ema.update(self.network)

    def after_epoch(self, epoch: int) -> None:
        """Take the weights after an epoch (1, 2, ...) into the mean, if it is one of the last."""
        if self.mean is not None and epoch > self.skipped:
            self.mean.update_parameters(self.network)

    def state_dict(self) -> dict[str, Any]:
        """`steps` and `epochs` taken, and `weights`: by kind, each like the network's own."""
        weights = {kind: dict(network.state_dict()) for kind, network in self.kinds.items()}
        epochs = 0 if self.mean is None else int(self.mean.n_averaged)
        return {"steps": self.steps, "epochs": epochs, "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict. Raises KeyError or RuntimeError when it does not fit."""
        self.steps = state["steps"]
        for kind, network in self.kinds.items():
            network.load_state_dict(state["weights"][kind])
        if self.mean is not None:
            self.mean.n_averaged.fill_(state["epochs"])


def _refuse_shared(network: nn.Module) -> None:
    """timm goes by names: it would move a tensor that has two of them twice in a step."""
    tensors = network.state_dict(keep_vars=True).values()
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        raise UserError(
            "train.ema: this encoder uses some weights in several places, which timm's moving "
            "average does not follow; use train.mean_last, --set train.ema=null"
        )


def _update_mean(means: Tensors, latest: Tensors, count: torch.Tensor | int) -> None:
    """Take one more into the mean of `count`; tensors of one device and dtype."""
    if means[0].is_floating_point():
        get_swa_multi_avg_fn()(means, latest, count)
    else:
        for mean, last in zip(means, latest, strict=True):
            mean.copy_(last)
