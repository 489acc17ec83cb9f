"""Averages of a network's weights over its training, which may predict better than any epoch."""

import torch
from torch import nn

from nyuseg.config.schema import Train

Weights = dict[str, torch.Tensor]


class Averages:
    """The averages that a configuration asks for, kept on the network's device.

    ema: the exponential moving average over the steps (train.ema is its decay). mean: the plain
    mean over the ends of the last train.mean_last epochs (Izmailov et al. 2018, arXiv 1803.05407).
    """

    def __init__(self, network: nn.Module, options: Train) -> None:
        self.options, self.steps = options, 0
        asked = {"ema": options.ema, "mean": options.mean_last}
        self.kinds = {kind: _Average(network) for kind, wish in asked.items() if wish is not None}

    def after_step(self) -> None:
        """Take the weights into the exponential average; waits for nothing on the device.

        The decay is min(d, (1 + t) / (10 + t)) after t steps, so that the random weights of the
        beginning are soon forgotten. t counts also the few steps that a loss scaler skips: to
        leave them out, the device would have to be asked.
        """
        if "ema" in self.kinds:
            self.steps += 1
            decay = min(self.options.ema, (1 + self.steps) / (10 + self.steps))
            self.kinds["ema"].move(1 - decay)

    def after_epoch(self, epoch: int) -> None:
        """Take the weights after an epoch (1, 2, ...) into the mean, if it is one of the last."""
        if "mean" in self.kinds:
            taken = epoch - (self.options.epochs - self.options.mean_last)
            if taken > 0:
                self.kinds["mean"].move(1 / taken)

    def state_dict(self) -> dict:
        """`steps`, and `weights`: by kind, each like the network's own state_dict."""
        weights = {kind: average.weights() for kind, average in self.kinds.items()}
        return {"steps": self.steps, "weights": weights}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a state_dict. Raises KeyError or RuntimeError when it does not fit."""
        self.steps = state["steps"]
        for kind, average in self.kinds.items():
            average.load(state["weights"][kind])


class _Average:
    """A weighted mean of a network's parameters and floating-point buffers.

    BatchNorm's running statistics belong to the weights beside which they were collected: averaged
    weights with the statistics of the last ones would normalise by another network's activations.
    Averaging them alike is near to collecting them anew, without another pass over the images.
    Integer buffers count batches; no mean of them means anything, they are the network's own.
    """

    def __init__(self, network: nn.Module) -> None:
        # The parameters themselves: moving a network may give them other memory.
        self.live = network.state_dict(keep_vars=True)
        self.values = {
            name: tensor.detach().clone()
            for name, tensor in self.live.items()
            if tensor.is_floating_point()
        }

    @torch.no_grad()
    def move(self, share: float) -> None:
        """Move by a share (0..1) of the way to the network's weights; 1 is exactly there."""
        live = [self.live[name] for name in self.values]
        torch._foreach_lerp_(list(self.values.values()), live, share)

    def weights(self) -> Weights:
        return {name: self.values.get(name, tensor.detach()) for name, tensor in self.live.items()}

    def load(self, weights: Weights) -> None:
        for name, value in self.values.items():
            value.copy_(weights[name])
