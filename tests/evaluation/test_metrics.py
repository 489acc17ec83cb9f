"""Scores against scikit-learn, and what counts as absent."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as reference

from nyuseg.data.classes import NUM_CLASSES, VOID
from nyuseg.evaluation.metrics import class_iou, confusion_matrix, summarize


def random_pair(seed: int, classes: int = NUM_CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Truth with void, and a prediction right in about two of three pixels; uint8 [37,53]."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (37, 53), dtype=np.uint8)
    guess = rng.integers(0, classes, truth.shape, dtype=np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, guess)
    truth[rng.random(truth.shape) < 0.15] = VOID
    return truth, prediction


def row(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(seed: int) -> None:
    truth, prediction = random_pair(seed)
    t, p = truth[truth != VOID], prediction[truth != VOID]
    confusion = confusion_matrix(truth, prediction)
    np.testing.assert_array_equal(confusion, reference(t, p, labels=range(NUM_CLASSES)))
    scores = summarize(confusion)
    expected = jaccard_score(t, p, labels=range(NUM_CLASSES), average=None)
    np.testing.assert_allclose(scores["class_iou"], expected, rtol=1e-12)
    assert scores["miou"] == pytest.approx(expected.mean(), rel=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(t, p), rel=1e-12)


def test_rows_are_truth_and_columns_prediction() -> None:
    confusion = confusion_matrix(row(3, 3, 3, 12, VOID), row(3, 0, 0, 12, 0))
    assert {tuple(cell): confusion[tuple(cell)] for cell in np.argwhere(confusion)} == {
        (3, 3): 1,
        (3, 0): 2,
        (12, 12): 1,
    }


def test_absent_classes_are_not_zeros() -> None:
    scores = summarize(confusion_matrix(row(2, 2, 5, 5), row(2, 2, 5, 5)))
    assert scores["miou"] == 1
    assert [k for k, iou in enumerate(scores["class_iou"]) if iou is not None] == [2, 5]


def test_class_that_is_only_predicted_counts_as_zero() -> None:
    scores = summarize(confusion_matrix(row(2, 2, 2, 2), row(2, 2, 2, 7)))
    assert scores["class_iou"][7] == 0
    assert scores["miou"] == pytest.approx((3 / 4 + 0) / 2)


def test_class_that_is_only_true_counts_as_zero() -> None:
    scores = summarize(confusion_matrix(row(2, 2, 2, 9), row(2, 2, 2, 2)))
    assert scores["class_iou"][9] == 0
    assert scores["miou"] == pytest.approx((3 / 4 + 0) / 2)


def test_prediction_on_void_counts_nowhere() -> None:
    scores = summarize(confusion_matrix(row(2, VOID, VOID), row(2, 7, 12)))
    assert scores["miou"] == 1
    assert scores["class_iou"][7] is None


def test_pooled_pixels_not_mean_of_images() -> None:
    # A large image all right and a small one all wrong: the pool weighs pixels.
    first = confusion_matrix(np.zeros((10, 9), np.uint8), np.zeros((10, 9), np.uint8))
    second = confusion_matrix(np.zeros((2, 5), np.uint8), np.full((2, 5), 4, np.uint8))
    scores = summarize(first + second)
    assert scores["class_iou"][0] == pytest.approx(0.9)
    assert scores["miou"] == pytest.approx(0.45)


def test_all_void_gives_none_and_valid_json() -> None:
    scores = summarize(
        confusion_matrix(np.full((3, 4), VOID, np.uint8), np.zeros((3, 4), np.uint8))
    )
    assert scores == {"miou": None, "pixel_accuracy": None, "class_iou": [None] * NUM_CLASSES}
    assert "NaN" not in json.dumps(scores)
    assert np.isnan(class_iou(np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64))).all()


def test_large_images_do_not_overflow_small_integers() -> None:
    truth = np.full((300, 300), 12, np.uint8)
    assert confusion_matrix(truth, truth)[12, 12] == 90_000


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)),
        (np.zeros((2, 3), np.uint8), np.zeros((1, 3), np.uint8)),
        (row(13, 0), row(0, 0)),
        (row(254, 0), row(0, 0)),
        (row(0, 0), row(0, 13)),
        (row(0, 0), row(0, VOID)),
    ],
)
def test_illegal_input_raises(truth: np.ndarray, prediction: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"truth is|class ids"):
        confusion_matrix(truth, prediction)
