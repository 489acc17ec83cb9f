"""Averages of networks that use a weight in several places."""

import pytest
import torch
from torch import nn

from nyuseg.config.sections import Train
from nyuseg.training.weight_averages import Averages
from nyuseg.utils.errors import UserError


def shared() -> nn.Module:
    once = nn.BatchNorm1d(3)
    return nn.Sequential(once, nn.Linear(3, 3), once)


def test_a_moving_average_of_shared_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.ema: .*use train\.mean_last") as caught:
        Averages(shared(), Train(ema=0.9))
    assert "\n" not in str(caught.value)
    assert Averages(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), Train(ema=0.9)).kinds


def test_the_mean_counts_shared_weights_once() -> None:
    network = shared()
    averages = Averages(network, Train(epochs=3, mean_last=3))
    for epoch, value in enumerate([3.0, -6.0, 18.0], start=1):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.fill_(value)
        averages.after_epoch(epoch)
    found = averages.state_dict()["weights"]["mean"]
    assert found.keys() == network.state_dict().keys()
    for name, value in found.items():
        expected = 18 if name.endswith("num_batches_tracked") else 5
        assert torch.allclose(value, torch.tensor(expected).to(value)), name
