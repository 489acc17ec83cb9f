"""Pixels parted: the parts add up to the whole, and each pixel is where it belongs."""

import numpy as np
import pytest
from tiny_data import random_frame

from nyuseg.evaluation.metrics import confusion_matrix
from nyuseg.report.partitions import (
    BOUNDARY,
    DEPTH,
    REGION,
    boundary_distance,
    metres,
    part_confusions,
    region_share,
)


@pytest.mark.parametrize("partition", [DEPTH, BOUNDARY, REGION], ids=lambda one: one.title)
def test_the_parts_add_up_to_the_confusion_matrix(partition) -> None:
    frame = random_frame((37, 53))
    frame["depth"][:20] = 0
    truth, mask = (
        frame["label"],
        np.random.default_rng(1).integers(0, 13, (37, 53)).astype(np.uint8),
    )
    values = {DEPTH: metres(frame["depth"]), BOUNDARY: boundary_distance(truth)}
    values[REGION] = region_share(truth)
    count = len(partition.all_names)
    parts = partition.parts(values[partition])
    assert parts.min() >= 0 and parts.max() < count
    found = part_confusions(truth, mask, parts, count)
    np.testing.assert_array_equal(found.sum(0), confusion_matrix(truth, mask))


def test_a_limit_belongs_to_the_part_above_it_and_what_is_missing_to_the_rest() -> None:
    depth = np.array([[1499, 1500, 2499], [2500, 6000, 0]], np.uint16)
    names = np.array(DEPTH.all_names)[DEPTH.parts(metres(depth))]
    assert names.tolist() == [
        ["below 1.5 m", "1.5 to 2.5 m", "1.5 to 2.5 m"],
        ["2.5 to 4 m", "6 m and more", "no depth"],
    ]


def test_distances_count_pixels_from_the_nearest_other_class() -> None:
    truth = np.zeros((9, 20), np.uint8)
    truth[:, 12:] = 4
    expected = np.concatenate([np.arange(12, 0, -1), np.arange(1, 9)])
    found = boundary_distance(truth)
    np.testing.assert_allclose(found, np.tile(expected, (9, 1)))
    assert (boundary_distance(np.full((6, 8), 3, np.uint8)) == 10).all()


def test_a_region_is_connected_and_of_one_class() -> None:
    truth = np.full((10, 10), 2, np.uint8)
    truth[0, 0] = truth[1, 1] = 7  # Touching at a corner: two regions.
    truth[5:7, 5:9] = 7
    share = region_share(truth)
    assert share[0, 0] == share[1, 1] == 0.01 and share[6, 8] == 0.08 and share[9, 9] == 0.9
