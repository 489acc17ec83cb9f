"""Losses: what counts, what does not, and the sum."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nyuseg.config.sections import Train
from nyuseg.dataloading.letterbox import letterbox
from nyuseg.training.losses import (
    multitask_loss,
    pixel_weights,
    segmentation_loss,
    valid_pixels,
)

REPORT = Train()
RNG = torch.Generator().manual_seed(3)


def batch(height: int = 16, width: int = 24) -> dict[str, torch.Tensor]:
    label = torch.randint(0, 13, (2, height, width), generator=RNG)
    return {
        "label": label,
        "depth": torch.rand(2, 1, height, width, generator=RNG),
        "depth_valid": torch.ones(2, 1, height, width, dtype=torch.bool),
    }


def output(height: int = 16, width: int = 24) -> dict[str, torch.Tensor]:
    grid = (height // 4, width // 4)
    return {
        "logits": torch.randn(2, 13, *grid, generator=RNG).requires_grad_(),
        "depth": torch.rand(2, 1, *grid, generator=RNG).requires_grad_(),
    }


def test_cross_entropy_by_hand() -> None:
    logits = torch.zeros(1, 13, 1, 3)
    logits[0, 4, 0, 0] = 2.0
    label = torch.tensor([[[4, 7, 255]]])
    sure = -math.log(math.exp(2) / (math.exp(2) + 12))
    assert math.isclose(
        segmentation_loss(logits, label, torch.tensor(2), REPORT).item(),
        (sure + math.log(13)) / 2,
        rel_tol=1e-6,
    )


def test_total_is_segmentation_plus_a_tenth_of_the_depth() -> None:
    loss = multitask_loss(output(), batch(), REPORT)
    assert torch.isclose(loss["total"], loss["segmentation"] + 0.1 * loss["depth"])
    assert loss["depth"] > 0


def test_depth_loss_is_the_mean_over_valid_pixels_alone() -> None:
    samples, out = batch(), output()
    out["depth"] = torch.full((2, 1, 4, 6), 0.25)
    samples["depth"][:] = 0.75
    samples["depth"][:, :, :, 12:] = 100.0
    samples["depth_valid"][:, :, :, 12:] = False
    assert math.isclose(multitask_loss(out, samples, REPORT)["depth"].item(), 0.5, rel_tol=1e-6)


def test_padding_moves_neither_loss() -> None:
    """A portrait frame in a landscape input: what the network says in the padding is ignored."""
    rng = np.random.default_rng(0)
    frame = {
        "image": rng.integers(0, 256, (32, 16, 3), np.uint8),
        "depth": rng.integers(800, 9000, (32, 16), np.uint16),
        "label": rng.integers(0, 13, (32, 16), np.uint8),
    }
    fitted = letterbox(frame, (32, 64))
    samples = {
        "label": torch.from_numpy(fitted["label"].astype(np.int64))[None],
        "depth": torch.rand(1, 1, 32, 64),
        "depth_valid": torch.from_numpy(fitted["depth"] > 0)[None, None],
    }
    grid = {"logits": torch.randn(1, 13, 8, 16), "depth": torch.rand(1, 1, 8, 16)}
    before = multitask_loss(grid, samples, REPORT)
    # Column 4 is interpolated into the frame's last pixels; from column 5 on all is padding.
    grid["logits"][..., 5:] = 1e4 * torch.randn(1, 13, 8, 11)
    grid["depth"][..., 5:] = 1e4
    after = multitask_loss(grid, samples, REPORT)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_batch_without_a_valid_pixel_gives_zero_and_finite_gradients() -> None:
    samples, out = batch(), output()
    samples["label"][:] = 255
    samples["depth_valid"][:] = False
    loss = multitask_loss(out, samples, REPORT)
    loss["total"].backward()
    assert loss["total"].item() == 0
    assert torch.isfinite(out["logits"].grad).all() and not out["depth"].grad.any()


def test_without_a_depth_head_the_total_is_the_segmentation_loss() -> None:
    out = output()
    del out["depth"]
    loss = multitask_loss(out, batch(), REPORT)
    assert loss["depth"] == 0 and torch.equal(loss["total"], loss["segmentation"])


def test_half_precision_outputs_are_summed_in_float32() -> None:
    samples, out = batch(64, 64), output(64, 64)
    half = {key: value.detach().bfloat16() for key, value in out.items()}
    assert multitask_loss(half, samples, REPORT)["total"].dtype == torch.float32


# What may be added


def perfect(label: torch.Tensor) -> torch.Tensor:
    """Logits that are sure of the label; of class 0 where it is void."""
    classes = torch.where(label == 255, 0, label)
    return 100.0 * F.one_hot(classes, 13).permute(0, 3, 1, 2).float()


def test_smoothing_asks_a_share_for_every_class() -> None:
    logits = torch.zeros(1, 13, 1, 2)
    logits[0, 4, 0, 0] = 2.0
    label = torch.tensor([[[4, 255]]])
    norm = math.log(math.exp(2) + 12)
    expected = 0.9 * (norm - 2) + 0.1 * (norm - 2 / 13)
    found = segmentation_loss(logits, label, torch.tensor(1), Train(label_smoothing=0.1))
    assert math.isclose(found.item(), expected, rel_tol=1e-6)


@pytest.mark.parametrize("name", ["lovasz", "dice", "soft_iou"])
def test_a_loss_over_regions_is_0_for_the_truth_and_weighs_what_it_shall(name: str) -> None:
    label = batch()["label"]
    label[0, :5], label[1, :, 7:] = 255, 3
    count = (label != 255).sum()
    options = [Train(**{name: weight}) for weight in (0, 0.5, 2)]
    exact = [segmentation_loss(perfect(label), label, count, one).item() for one in options]
    assert exact == pytest.approx([0, 0, 0], abs=1e-5)
    # All is taken for class 3: it is all of the prediction, and every other class is missed.
    wrong = perfect(torch.full_like(label, 3))
    plain, half, double = (segmentation_loss(wrong, label, count, one).item() for one in options)
    assert double - plain == pytest.approx(4 * (half - plain), rel=1e-4)
    seen = label[..., ::4, ::4] if name == "lovasz" else label
    present = seen[seen != 255].unique()
    share = (seen == 3).sum() / (seen != 255).sum()
    overlap = 2 * share / (1 + share) if name == "dice" else share
    absent = (
        len(present) if name == "lovasz" else 13
    )  # The others count what is not there as right.
    expected = (len(present) - 1 + 1 - overlap) / absent
    assert (double - plain) / 2 == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("name", ["lovasz", "dice", "soft_iou"])
def test_a_loss_over_regions_of_a_void_batch_is_0_and_its_gradients_are_finite(name: str) -> None:
    samples, out = batch(), output()
    samples["label"][:] = 255
    loss = multitask_loss(out, samples, Train(**{name: 1}))
    loss["total"].backward()
    assert loss["segmentation"].item() == 0 and torch.isfinite(out["logits"].grad).all()


def test_class_weights_weigh_each_pixel_by_its_class_and_divide_by_their_sum() -> None:
    weights = [1.0] * 13
    weights[4], weights[7] = 3.0, 0.0
    options = Train(class_weights=weights)
    logits = torch.zeros(1, 13, 1, 4)
    logits[0, 4, 0, 0] = 2.0
    label = torch.tensor([[[4, 7, 255, 0]]])
    count = valid_pixels({"label": label}, options)["segmentation"]
    assert count == 4
    sure = -math.log(math.exp(2) / (math.exp(2) + 12))
    found = segmentation_loss(logits, label, count, options).item()
    assert math.isclose(found, (3 * sure + math.log(13)) / 4, rel_tol=1e-6)
    plain = F.cross_entropy(logits, label, torch.tensor(weights), ignore_index=255)
    assert math.isclose(found, plain.item(), rel_tol=1e-6)


def test_boundaries_are_between_classes_and_not_beside_void() -> None:
    label = torch.tensor(
        [
            [5, 5, 5, 5, 0],
            [5, 5, 5, 5, 0],
            [5, 5, 255, 5, 5],
            [5, 5, 255, 255, 12],
        ]
    )[None]
    expected = torch.tensor(
        [
            [1, 1, 1, 2, 2],
            [1, 1, 1, 2, 2],
            [1, 1, 0, 2, 2],
            [1, 1, 0, 0, 2],
        ]
    ).float()
    assert torch.equal(pixel_weights(label, Train(boundary_weight=2))[0], expected)
    weights = [1.0] * 12 + [0.25]
    both = pixel_weights(label, Train(boundary_weight=2, class_weights=weights))[0]
    assert both[3, 4] == 0.5 and torch.equal(both[:3], expected[:3])


def test_parts_of_a_weighted_batch_add_up() -> None:
    options = Train(boundary_weight=2, class_weights=[0.1 * (k + 1) for k in range(13)])
    whole, out = batch(), output()
    counts = valid_pixels(whole, options)
    parts = [
        multitask_loss(
            {key: value[i : i + 1] for key, value in out.items()},
            {key: value[i : i + 1] for key, value in whole.items()},
            options,
            counts,
        )["total"]
        for i in range(2)
    ]
    assert torch.isclose(sum(parts), multitask_loss(out, whole, options)["total"])
