"""Intervals over scenes, against resampling done the slow way."""

import numpy as np
import pytest

from nyuseg.evaluation.bootstrap import difference, draw, resample, score
from nyuseg.evaluation.metrics import summarize
from nyuseg.evaluation.tables import difference_text

SIZES = (1, 2, 5, 9, 3, 4, 7)  # Images a scene: uneven, and not in order below.


def rooms(seed: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices and scenes: some rooms are harder, some lack classes; [31,13,13]."""
    rng = np.random.default_rng(seed)
    scenes = np.repeat([f"room_{k}" for k in range(len(SIZES))], SIZES)
    rng.shuffle(scenes)
    found = []
    for scene in scenes:
        number = int(scene[-1])
        matrix = rng.integers(0, 30, (13, 13))
        matrix[np.diag_indices(13)] += rng.integers(0, int(400 * skill) + 10 * number, 13)
        matrix[number % 13] = 0
        matrix[:, number % 13] = 0
        found.append(matrix)
    return np.stack(found), scenes


def slow_score(confusions: np.ndarray, scenes: np.ndarray, chosen: list[str]) -> float:
    """The score of some scenes, a scene as often as it was drawn, image by image."""
    total = np.zeros((13, 13), int)
    for name in chosen:
        for scene, matrix in zip(scenes, confusions, strict=True):
            if scene == name:
                total = total + matrix
    return summarize(total)["miou"]


def test_each_draw_is_the_score_of_its_scenes() -> None:
    confusions, scenes = rooms(1, 1.0)
    names = list(dict.fromkeys(scenes))
    draws = draw(len(names), 50, seed=3)
    assert (draws.sum(1) == len(names)).all() and draws.std(0).min() > 0.5
    pooled = resample(confusions, scenes, 50, seed=3)
    for counts, matrix in zip(draws, pooled, strict=True):
        chosen = [name for name, n in zip(names, counts, strict=True) for _ in range(int(n))]
        assert summarize(matrix)["miou"] == pytest.approx(slow_score(confusions, scenes, chosen))


def test_interval_is_that_of_brute_force() -> None:
    (a, scenes), (b, _) = rooms(1, 1.0), rooms(1, 0.9)
    names, rng = list(dict.fromkeys(scenes)), np.random.default_rng(77)
    gains = []
    for _ in range(2000):
        chosen = list(rng.choice(names, len(names)))
        gains.append(slow_score(a, scenes, chosen) - slow_score(b, scenes, chosen))
    found = difference(a, b, scenes)
    low, high = np.percentile(gains, [2.5, 97.5])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    assert found.value == slow_score(a, scenes, names) - slow_score(b, scenes, names)
    assert found.p_above == pytest.approx(np.mean(np.array(gains) > 0), abs=0.03)


def test_pairing_makes_a_difference_surer_than_its_parts() -> None:
    (a, scenes), (b, _) = rooms(1, 1.0), rooms(1, 0.9)
    one, two, gain = score(a, scenes), score(b, scenes), difference(a, b, scenes)
    assert gain.high - gain.low < min(one.high - one.low, two.high - two.low)
    assert gain.is_above and gain.p_above > 0.975


def test_a_model_does_not_beat_itself() -> None:
    a, scenes = rooms(1, 1.0)
    gain = difference(a, a, scenes)
    assert (gain.value, gain.low, gain.high, gain.p_above) == (0, 0, 0, 0.5)
    assert not gain.is_above


def test_sides_are_not_mixed_up() -> None:
    (a, scenes), (b, _) = rooms(1, 1.0), rooms(1, 0.9)
    there, back = difference(a, b, scenes), difference(b, a, scenes)
    assert back.value == -there.value and back.low == pytest.approx(-there.high)
    assert back.p_above == pytest.approx(1 - there.p_above)


def test_frames_of_one_room_count_as_one() -> None:
    a, scenes = rooms(1, 1.0)
    alone = score(a, [str(k) for k in range(len(a))])
    together = score(a, scenes)
    assert together.high - together.low > alone.high - alone.low


def test_one_room_says_nothing_of_others() -> None:
    (a, _), (b, _) = rooms(1, 1.0), rooms(1, 0.9)
    gain = difference(a, b, ["room"] * len(a))
    assert gain.value > 0 and not gain.is_above
    assert np.isnan([gain.low, gain.high, gain.p_above]).all()
    assert difference_text(gain) == f"{gain.value:+.4f} [-]"
    assert np.isnan(score(a, ["room"] * len(a)).low)


def test_other_images_are_refused() -> None:
    a, scenes = rooms(1, 1.0)
    with pytest.raises(ValueError, match="30 and 31 images"):
        difference(a[1:], a, scenes)
