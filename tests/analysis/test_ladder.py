"""benchmarks/ladder.py: what its table says of runs whose scores are known, and what it keeps."""

from pathlib import Path

import ladder
import ladder_arms
import numpy as np
import pytest
from ladder import Run, is_hopeless, keep, table

from nyuseg.utils.arrays import write_npz


def confusion(wrong: float) -> np.ndarray:
    """Two classes of 1000 pixels, of each of which a share is taken for the other."""
    found = np.zeros((13, 13), np.int64)
    missed = round(1000 * wrong)
    found[:2, :2] = [[1000 - missed, missed], [missed, 1000 - missed]]
    return found


def read_results(work: Path, where: str = "one") -> dict[Run, ladder.Result]:
    return ladder.read_results(work)[where]


def finish(
    work: Path, arm: str, seed: int, wrong: float, seconds: float = 100, where: str = "one"
) -> Run:
    """A finished run whose average of the weights makes no mistake."""
    run = Run(work, arm, seed, (seed - 1) % ladder.FOLDS)
    parts = {"last": confusion(wrong), "ema": confusion(0)}
    run.result.parent.mkdir(parents=True, exist_ok=True)
    facts = {"cpu_seconds": np.array(seconds), "machine": np.array(where)}
    write_npz(run.result, {**parts, **facts})
    return run


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ladder, "KEPT", tmp_path / "kept" / "ladder.npz")
    return tmp_path / "work"


def test_an_arm_is_compared_with_the_base_seed_by_seed_and_its_epochs_with_its_last(work) -> None:
    for seed, wrong in ((1, 0.2), (2, 0.1)):
        finish(work, "base", seed, wrong)
        finish(work, "FPN", seed, wrong / 2, seconds=150)
    finish(work, "FPN", 3, 0.5)  # The base lacks this seed.
    found = table(read_results(work)).set_index(["arm", "checkpoint"])
    last = found.loc["FPN", "last"]
    # Both classes have 1 - w pixels right of 1 + w.
    gains = [0.9 / 1.1 - 0.8 / 1.2, 0.95 / 1.05 - 0.9 / 1.1]
    assert last["difference"] == pytest.approx(np.mean(gains))
    assert last["seeds"] == " ".join(f"{gain:+.4f}" for gain in gains)
    assert last["cpu"] == pytest.approx(1.5)
    assert found.loc["base", "last"]["difference"] == 0
    assert found.loc["base", "ema"]["difference"] == pytest.approx(
        1 - np.mean([0.8 / 1.2, 0.9 / 1.1])
    )
    assert last["error"] > 0


def test_one_seed_has_no_error(work) -> None:
    finish(work, "base", 1, 0.2)
    finish(work, "FPN", 1, 0.1)
    assert table(read_results(work))["error"].isna().all()


def test_only_what_is_far_below_with_its_first_seed_gets_no_others(work) -> None:
    base = finish(work, "base", 1, 0.1)
    far, near = finish(work, "FPN", 1, 0.3), finish(work, "Dice 0.5", 1, 0.105)
    for run, wrong in ((far, 0.3), (near, 0.105)):
        found = {**ladder.read_npz(run.result), "ema": confusion(wrong)}
        write_npz(run.result, found)
    results = read_results(work)
    assert [is_hopeless(run, results) for run in (base, far, near)] == [False] * 3
    again = [Run(work, run.arm, 2, 1) for run in (base, far, near)]
    assert [is_hopeless(run, results) for run in again] == [False, True, False]


def test_what_is_kept_needs_no_folder_and_is_added_to(work) -> None:
    first = finish(work, "base", 1, 0.2)
    keep(work)
    first.result.unlink()
    second = finish(work, "lr 6e-4", 1, 0.3)
    keep(work)
    second.result.unlink()
    results = read_results(work)
    assert set(results) == {first, second}
    assert np.array_equal(results[second]["last"], confusion(0.3))
    assert results[first]["cpu_seconds"] == 100


def test_runs_of_one_machine_are_not_compared_with_those_of_another(work) -> None:
    finish(work, "base", 1, 0.2, where="one")
    keep(work)
    finish(work, "base", 1, 0.3, where="other")  # The same run, done again.
    finish(work, "FPN", 1, 0.1, where="other")
    keep(work)
    for folder in (work, work / "empty"):  # From the folder, and from what is kept alone.
        found = table(read_results(folder, "other")).set_index(["arm", "checkpoint"])
        assert found.loc["FPN", "last"]["difference"] == pytest.approx(0.9 / 1.1 - 0.7 / 1.3)
        assert set(table(read_results(folder, "one"))["arm"]) == {"base"}


def test_what_is_left_out_of_the_best_is_compared_with_the_best(work) -> None:
    finish(work, "base", 1, 0.2)
    finish(work, "best", 1, 0.1)  # Its average makes no mistake, and is what predicts.
    finish(work, "best without slopes", 1, 0.15)
    found = table(read_results(work), "best").set_index(["arm", "checkpoint"])
    assert found.loc["best", "ema"]["difference"] == 0
    assert found.loc["best without slopes", "last"]["difference"] == pytest.approx(0.85 / 1.15 - 1)


def test_each_part_of_the_best_is_left_out_once_and_all_are_in_it() -> None:
    whole = set(ladder_arms.INGREDIENTS["best"])
    for name, part in ladder_arms.BEST.items():
        without = set(ladder_arms.INGREDIENTS[f"best without {name}"])
        # Crops around rare classes are crops.
        gone = {*part, *(ladder_arms.BEST["rare crops"] if name == "zoomed crops" else ())}
        assert gone <= whole and not gone & without
        assert {c for c in whole - without if not c.startswith("train.epochs")} == gone
