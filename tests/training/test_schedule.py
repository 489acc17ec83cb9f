"""The learning rate over a training, by hand and beside torch's."""

import pytest
import torch

from nyuseg.config.loading import load_config
from nyuseg.config.sections import Train
from nyuseg.training.schedule import learning_rate
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT


def torch_rates(schedule: torch.optim.lr_scheduler.LRScheduler, count: int) -> list[float]:
    rates = []
    for _ in range(count):
        rates += schedule.get_last_lr()
        schedule.optimizer.step()
        schedule.step()
    return rates


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1e-4)


def test_by_epoch_it_is_that_of_torch_and_constant_within_an_epoch() -> None:
    options = Train(lr=1e-4, epochs=30)
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), 30), 30)
    for epoch, rate in enumerate(expected):
        assert learning_rate(options, epoch) == pytest.approx(rate)
        assert learning_rate(options, epoch + 0.99) == learning_rate(options, epoch)


def test_a_polynomial_is_that_of_torch() -> None:
    options = Train(lr=1e-4, epochs=40, schedule="poly")
    expected = torch_rates(torch.optim.lr_scheduler.PolynomialLR(optimizer(), 40, 0.9), 40)
    assert [learning_rate(options, epoch) for epoch in range(40)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_rate_rises_then_falls_at_every_step(schedule: str) -> None:
    options = Train(lr=2e-3, epochs=10, schedule=schedule, warmup=2.5)
    moments = [0, 1.25, 2.5, 3, 6.25, 9.99, 10]
    rates = [learning_rate(options, moment) for moment in moments]
    assert rates[:3] == pytest.approx([0, 1e-3, 2e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True) and len(set(rates[2:])) == 5
    assert rates[-1] == pytest.approx(0)
    if schedule == "cosine":
        assert rates[4] == pytest.approx(1e-3)  # Half of what is left after the warm-up.


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["train.warmup=2"], "train.warmup: needs train.schedule=cosine or poly"),
        (
            ["train.warmup=30", "train.schedule=poly"],
            "train.warmup: 30 epochs, but only 30 in all",
        ),
    ],
)
def test_a_warmup_that_cannot_be(settings: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        load_config(PROJECT / "configs/exp060.yaml", settings)
