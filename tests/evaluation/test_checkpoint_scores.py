"""The checkpoints of a fold: their averages, how they are compared, what choosing one is worth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nyuseg.config.loading import parse_config
from nyuseg.config.sections import Compute, Train
from nyuseg.evaluation.checkpoint_scores import over_last, read_confusions, write_confusions
from nyuseg.evaluation.metrics import summarize
from nyuseg.evaluation.optimism import half_sums, optimism, scene_halves
from nyuseg.experiment.folder import Experiment
from nyuseg.training.checkpoint import load_checkpoint, save_checkpoint
from nyuseg.training.optimization import TrainingStep
from nyuseg.training.weight_averages import Averages
from nyuseg.utils.errors import UserError

CPU = torch.device("cpu")
FP32 = Compute(precision="fp32")


class Small(nn.Module):
    """A network with BatchNorm, whose statistics change with every batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(4, 14, 5, stride=4, padding=2)
        self.norm = nn.BatchNorm2d(14)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        answer = self.norm(self.convolution(image))
        return {"logits": answer[:, :13], "depth": answer[:, 13:]}


def batch(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(3, 4, 16, 32, generator=generator) * seed + seed,
        "label": torch.randint(0, 13, (3, 16, 32), generator=generator),
        "depth": torch.rand(3, 1, 16, 32, generator=generator),
        "depth_valid": torch.rand(3, 1, 16, 32, generator=generator) > 0.3,
    }


def snapshot(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def follow(decay: float, steps: int) -> tuple[dict, dict, TrainingStep]:
    """The moving average by hand, the network at the end, and the step that took it."""
    network = Small().train()
    options = Train(batch_size=3, epochs=2, lr=0.05, ema=decay)
    step = TrainingStep(network, options, FP32, CPU)
    by_hand = snapshot(network)
    for t in range(1, steps + 1):
        step(batch(t))
        d = min(decay, (1 + t) / (10 + t))
        now = snapshot(network)
        by_hand = {name: d * by_hand[name] + (1 - d) * now[name] for name in now}
    return by_hand, snapshot(network), step


# The first steps are the warm-up's (2/11, 3/12, 4/13, ...); a decay of 0.25 ends it after two.
@pytest.mark.parametrize(("decay", "steps"), [(0.999, 1), (0.999, 5), (0.25, 6)])
def test_the_moving_average_is_that_by_hand(decay: float, steps: int) -> None:
    by_hand, now, step = follow(decay, steps)
    found = step.averages.state_dict()["weights"]["ema"]
    assert list(found) == list(now)
    for name, value in found.items():
        if name == "norm.num_batches_tracked":
            assert int(value) == steps  # The mean of counts would be no count.
        else:
            assert np.allclose(value.numpy(), by_hand[name], rtol=1e-5, atol=1e-7), name
            assert not np.allclose(value.numpy(), now[name], rtol=1e-3), name
    assert {"norm.running_mean", "norm.running_var"} < set(found)


def test_the_mean_is_that_of_the_last_epochs_alone() -> None:
    network = Small()
    averages = Averages(network, Train(epochs=5, mean_last=3))
    values = [100.0, -7.0, 3.0, 6.0, 12.0]
    for epoch, value in enumerate(values, start=1):
        for tensor in network.state_dict().values():
            tensor.fill_(value)
        averages.after_step()  # Of no meaning for the mean.
        averages.after_epoch(epoch)
    found = averages.state_dict()["weights"]["mean"]
    assert found.pop("norm.num_batches_tracked") == 12
    assert all(torch.allclose(value, torch.tensor(7.0)) for value in found.values())


def test_the_mean_of_one_epoch_is_that_epoch() -> None:
    network = Small()
    averages = Averages(network, Train(epochs=2, mean_last=1))
    with torch.no_grad():
        network.convolution.weight.mul_(1e-3).add_(1e3)
    averages.after_epoch(1)
    assert not torch.equal(
        averages.state_dict()["weights"]["mean"]["convolution.weight"], network.convolution.weight
    )
    averages.after_epoch(2)
    found = averages.state_dict()["weights"]["mean"]
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_nothing_is_kept_that_was_not_asked_for() -> None:
    step = TrainingStep(Small(), Train(batch_size=3), FP32, CPU)
    assert not step.averages.kinds and set(step.state_dict()) == {"optimizer", "scaler"}


def test_averages_go_on_from_a_file_bit_for_bit(tmp_path: Path) -> None:
    options = Train(batch_size=3, epochs=4, mean_last=3, lr=0.05, ema=0.4)

    def begin() -> TrainingStep:
        return TrainingStep(Small().train(), options, FP32, CPU)

    def one_epoch(step: TrainingStep, epoch: int) -> None:
        for i in range(3):
            step(batch(10 * epoch + i))
        step.averages.after_epoch(epoch)

    whole, first, second = begin(), begin(), begin()
    for epoch in (1, 2, 3, 4):
        one_epoch(whole, epoch)
    for epoch in (1, 2):
        one_epoch(first, epoch)
    save_checkpoint(
        tmp_path / "last.pt", {"model": first.forward.state_dict(), **first.state_dict()}
    )
    state = load_checkpoint(tmp_path / "last.pt")
    second.forward.load_state_dict(state["model"])
    second.load_state_dict(state)
    for epoch in (3, 4):
        one_epoch(second, epoch)
    wanted, found = (step.averages.state_dict() for step in (whole, second))
    assert wanted["steps"] == found["steps"] == 12
    for kind in ("ema", "mean"):
        for name, value in wanted["weights"][kind].items():
            assert torch.equal(value, found["weights"][kind][name]), (kind, name)


def test_averages_follow_a_network_that_got_other_memory() -> None:
    network = Small()
    averages = Averages(network, Train(epochs=1, mean_last=1))
    network.convolution.weight.data = network.convolution.weight.data.clone() + 3
    averages.after_epoch(1)
    found = averages.state_dict()["weights"]["mean"]["convolution.weight"]
    assert torch.equal(found, network.convolution.weight)


def experiment(folder: Path, sides: list[int]) -> Experiment:
    ids = [f"{i:06d}" for i in range(len(sides))]
    scenes = [f"room_{side}{i % 3}" for i, side in enumerate(sides)]
    table = pd.DataFrame({"image_id": ids, "scene": scenes, "fold": sides})
    config = parse_config({"name": "x", "folds": {"count": max(sides) + 1}}, "test")
    return Experiment(folder, config, table, folder)


SIDES = [1, 0, 0, 1, 0, 1, 1]


def matrices(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 400_000, (count, 13, 13))


def test_confusions_come_back_in_the_order_of_the_table(tmp_path: Path) -> None:
    opened, wanted = experiment(tmp_path, SIDES), matrices(7, 0)
    halves = matrices(2, 1).tolist()
    for fold in (0, 1):
        own = wanted[np.array(SIDES) == fold]
        kinds = {"last": own, "best": own + 1} | {"ema": own}
        write_confusions(opened.fold_files(fold).checkpoint_scores, kinds, [halves] * (1 + fold))
    kinds, found = read_confusions(opened)
    assert list(kinds) == ["best", "last", "ema"]
    assert (kinds["last"] == wanted).all() and (kinds["best"] == wanted + 1).all()
    assert (found[0] == [halves]).all() and (found[1] == [halves, halves]).all()


def test_a_gain_is_over_the_last_epochs(tmp_path: Path) -> None:
    opened, last = experiment(tmp_path, SIDES), matrices(7, 2)
    better = last + 10**6 * np.eye(13, dtype=np.int64)
    kinds = {"last": last, "ema": better}
    gain = over_last(kinds, "ema", opened)
    scores = [summarize(found.sum(0))["miou"] for found in (better, last)]
    assert gain.value == pytest.approx(scores[0] - scores[1]) and gain.low > 0
    assert gain.p_above == 1 and over_last(kinds, "last", opened) is None


def test_confusions_that_are_broken_or_of_other_images(tmp_path: Path) -> None:
    opened = experiment(tmp_path, SIDES)
    with pytest.raises(UserError, match=r"fold_0/checkpoints\.npz: cannot be read"):
        read_confusions(opened)
    first, path = (opened.fold_files(fold).checkpoint_scores for fold in (0, 1))
    write_confusions(first, {"last": matrices(3, 0)}, [])
    with pytest.raises(UserError, match=r"fold_0/checkpoints\.npz: lacks best; copy the fold"):
        read_confusions(opened)
    write_confusions(first, dict.fromkeys(("best", "last"), matrices(3, 0)), [])
    write_confusions(path, dict.fromkeys(("best", "last"), matrices(5, 0)), [])
    with pytest.raises(UserError, match=r"fold_1/checkpoints\.npz: of another fold table"):
        read_confusions(opened)
    for damaged in (path.read_bytes()[:-40], b"", b"\x80\x04."):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"fold_1/checkpoints\.npz: cannot be read"):
            read_confusions(opened)


# Optimism


def matrix(hits: int, misses: int) -> np.ndarray:
    """Two classes: `hits` right of each, `misses` of class 1 taken for 0."""
    found = np.zeros((13, 13), np.int64)
    found[0, 0] = found[1, 1] = hits
    found[1, 0] = misses
    return found


def test_a_lucky_draw_is_optimistic() -> None:
    # Class 0: hits / (hits + misses), class 1 the same.
    fair, lucky, poor = matrix(60, 40), matrix(90, 10), matrix(30, 70)
    first = np.stack([[fair, fair], [lucky, poor], [fair, fair], [poor, lucky], [fair, fair]])
    # Each half's best epoch is the other's worst; the two together are never better than `fair`.
    found = optimism([first])
    assert (found.same, found.other, found.last) == pytest.approx((0.6, 0.3, 0.6))
    assert (found.optimism, found.gain) == pytest.approx((0.3, -0.3))
    # A second fold in which the second epoch is truly better, on both halves.
    second = np.stack([[fair, fair], [lucky, lucky], [poor, fair]])
    both = optimism([first, second])
    assert both.same == pytest.approx((60 * 2 + 90 * 2) / 400)
    assert both.other == pytest.approx((30 * 2 + 90 * 2) / 400)
    assert both.last == pytest.approx((60 * 2 + 30 + 60) / 400)
    alone = optimism([second])
    assert alone.optimism == 0 and alone.gain == pytest.approx(0.9 - 0.45)


def test_epochs_that_agree_are_not_optimistic() -> None:
    same = np.stack([matrices(2, 5)] * 4)
    found = optimism([same, np.stack([matrices(2, 6)] * 3)])
    assert (found.optimism, found.gain) == (0, 0)


def test_without_two_rooms_there_is_no_estimate() -> None:
    whole, images = np.stack([matrices(2, 5)] * 3), matrices(3, 8)
    assert optimism([whole]) is not None
    one_room = np.stack([half_sums(images, ["a", "a", "a"])] * 3)
    assert optimism([whole, one_room]) is None


def test_halves_are_made_of_whole_rooms() -> None:
    scenes = ["kitchen_2", "bedroom_1", "kitchen_1", "bedroom_1", "office_1", "kitchen_2"]
    # In the order of their names: bedroom_1, kitchen_1, kitchen_2, office_1.
    assert scene_halves(scenes).tolist() == [0, 0, 1, 0, 1, 0]
    images = matrices(6, 9)
    sums = half_sums(images, scenes)
    assert (sums[1] == images[2] + images[4]).all() and (sums.sum(0) == images.sum(0)).all()
    order = [4, 2, 0, 5, 3, 1]  # The order of the images does not matter.
    assert (half_sums(images[order], [scenes[i] for i in order]) == sums).all()
