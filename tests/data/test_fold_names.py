"""What --fold means, and what the networks that it names are called."""

import pytest

from nyuseg.config.sections import Folds
from nyuseg.data.fold_names import fold_number, is_full, parse_folds, subset_name, uncovered
from nyuseg.utils.errors import UserError

FIVE = Folds(count=5, full=3)


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("0..4", [0, 1, 2, 3, 4]),
        ("all", [0, 1, 2, 3, 4]),
        ("3", [3]),
        ("0,2", [0, 2]),
        ("0, 2", [0, 2]),
        ("0..1,4", [0, 1, 4]),
        ("4..4", [4]),
        ("full", ["full0", "full1", "full2"]),
        ("full1", ["full1"]),
        ("full1..full2", ["full1", "full2"]),
        ("full2,full0", ["full0", "full2"]),
        ("full, 3,1", [1, 3, "full0", "full1", "full2"]),  # Folds come first, by their numbers.
        ("full0,all", [0, 1, 2, 3, 4, "full0"]),
    ],
)
def test_fold_forms(text: str, folds: list[int | str]) -> None:
    assert parse_folds(text, FIVE) == folds


REFUSED = "7 5 -1 4..0 0..5 0.. ..3 0...4 x , 0, 1,1 0..2,2 ALL all,0 1.0 0-4 99999999999"
REFUSED += (
    " full3 full2..full0 full0..2 0..full2 full0.. full,full1 full,full Full full-1 fullfull0"
)


@pytest.mark.parametrize("text", ["", "0 2", "full 0", *REFUSED.split()])
def test_refused_fold_forms(text: str) -> None:
    expected = r"--fold .*expected a fold 0\.\.4.* or all; or full.*full0\.\.full2 as folds\.full"
    with pytest.raises(UserError, match=expected) as error:
        parse_folds(text, FIVE)
    assert "\n" not in str(error.value)


def test_fold_forms_follow_the_counts() -> None:
    assert parse_folds("all", Folds(count=3)) == [0, 1, 2]
    assert parse_folds("7", Folds(count=10)) == [7]
    assert parse_folds("full", Folds(full=1)) == ["full0"]
    assert parse_folds("full4", Folds(full=5)) == ["full4"]
    with pytest.raises(UserError, match=r"0\.\.2"):
        parse_folds("3", Folds(count=3))


def test_numbers_of_ten_folds_and_ten_networks_on_all_images_are_in_order() -> None:
    many = Folds(count=12, full=12)
    names = parse_folds("full,all", many)
    assert names == [*range(12), *(f"full{number}" for number in range(12))]
    numbers = [fold_number(name) for name in names]
    assert numbers == sorted(set(numbers)) and numbers[:12] == list(range(12))
    assert [is_full(name) for name in names] == [False] * 12 + [True] * 12
    assert not is_full("11") and is_full("full11")  # As the keys of a manifest have them.


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("all", ""),
        ("0..4", ""),
        ("full", "_full"),
        ("full,0..4", "_all_full"),
        ("0,2", "_fold0-2"),
        ("full0", "_foldfull0"),
        ("all,full1", "_fold0-1-2-3-4-full1"),
    ],
)
def test_each_mean_has_a_folder_of_its_own(text: str, name: str) -> None:
    assert subset_name(parse_folds(text, FIVE), FIVE) == name


def test_what_no_score_covers_is_named() -> None:
    assert uncovered([0, 4]) == ""
    assert uncovered([0, "full0", "full2"]).startswith("no out-of-fold score covers full0, full2:")
