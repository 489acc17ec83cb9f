"""What the networks of an experiment are called.

A fold's network goes by its number: 0, 1, ... Those that train on all images, with no fold left
out, are full0, full1, ... and differ in their random numbers alone.
"""

import re
from collections.abc import Sequence

from nyuseg.config.sections import Folds
from nyuseg.utils.errors import UserError

Fold = int | str
FULL = "full"
# What is drawn at random follows from a fold's number, and no fold has one as large as this.
FIRST_FULL = 10_000


def parse_folds(text: str, *options: Folds) -> list[Fold]:
    """The networks that --fold means, in order: '0..4', '3', 'all', 'full', 'full1', 'full0..full2'
    or several of these after commas. options: of experiments that it must mean the same in. Raises
    UserError."""
    meant = [_parse_folds(text, one) for one in options]
    if any(folds != meant[0] for folds in meant):
        raise UserError(f"--fold {text}: other folds in each of the configurations; name them")
    return meant[0]


def _parse_folds(text: str, options: Folds) -> list[Fold]:
    limits = {"": options.count, FULL: options.full}
    words = {"all": f"0..{options.count - 1}", FULL: f"{FULL}0..{FULL}{options.full - 1}"}
    found: list[Fold] = []
    for part in map(str.strip, text.split(",")):
        match = re.fullmatch(r"(full|)(\d{1,4})(?:\.\.\1(\d{1,4}))?", words.get(part, part))
        numbers = range(int(match[2]), int(match[3] or match[2]) + 1) if match else range(0)
        if not match or not numbers or numbers[-1] >= limits[match[1]]:
            raise _refusal(text, words)
        found += [f"{FULL}{number}" for number in numbers] if match[1] else numbers
    if len(set(found)) != len(found):
        raise _refusal(text, words)
    return sorted(found, key=fold_number)


def _refusal(text: str, words: dict[str, str]) -> UserError:
    return UserError(
        f"--fold {text}: expected a fold {words['all']}, a range such as {words['all']}, a list "
        f"such as 0,2 or all; or {FULL}, the networks on all images, which are {words[FULL]} as "
        "folds.full says"
    )


def parse_parallel(text: str | None) -> int | None:
    """Folds at a time that `--parallel` means: None without it, 0 for auto. Raises UserError."""
    if text is None:
        return None
    if text == "auto":
        return 0
    if not text.isdecimal() or not int(text):
        raise UserError(f"--parallel {text}: expected a number from 1 on, or auto")
    return int(text)


def parse_seeds(text: str | None) -> list[int]:
    """Seeds after commas, as --seeds has them; none without it. Raises UserError."""
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UserError(f"--seeds {text}: expected whole numbers after commas, such as 1,2,3")
    return [int(part) for part in parts]


def is_full(fold: Fold) -> bool:
    """Whether a network trains on all images, so that none is left to score it on."""
    return str(fold).startswith(FULL)


def fold_number(fold: Fold) -> int:
    """The number that a network's random numbers follow from, and its place among the others."""
    return FIRST_FULL + int(str(fold).removeprefix(FULL)) if is_full(fold) else int(fold)


def fold_list(folds: Sequence[Fold]) -> str:
    """Names as a sentence has them: 0, 2, full0."""
    return ", ".join(map(str, folds))


def subset_name(folds: Sequence[Fold], options: Folds) -> str:
    """What tells the mean of these networks from that of all folds in a folder's name.

    '' for all folds, '_full' for all networks on all images, '_all_full' for both.
    """
    for words, name in (("all", ""), (FULL, f"_{FULL}"), (f"all,{FULL}", f"_all_{FULL}")):
        if parse_folds(words, options) == list(folds):
            return name
    return "_fold" + "-".join(map(str, folds))


def uncovered(folds: Sequence[Fold]) -> str:
    """A line on the networks that no score covers; '' when there are none."""
    names = fold_list([fold for fold in folds if is_full(fold)])
    return f"no out-of-fold score covers {names}: trained on all images" if names else ""
