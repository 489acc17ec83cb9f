"""manifest.json: what a submission was made of, and what it holds."""

from typing import Any

from nyuseg.config.prediction import Submission
from nyuseg.config.values import DepthUnit
from nyuseg.experiment.records import Scores
from nyuseg.utils.records import Record

MANIFEST = "manifest.json"


class DepthRecord(Record):
    """How depth was read: see config.sections.Data."""

    unit: DepthUnit
    missing: list[int]


class Planned(Record):
    """What was to be averaged: networks of an experiment, and views."""

    folds: int
    views: list[str]


class Dropped(Record):
    """What is still averaged from an image on, counted from 0."""

    image: int
    models: int
    views: int


class BudgetRecord(Record):
    """How a kernel kept within its time."""

    hours: float
    planned: Planned
    dropped: list[Dropped]


class Written(Record):
    """What was written: ids in the order of the array's entries, native sizes, pixels of each
    class, and the SHA-256 of each file."""

    images: int
    ids: list[str]
    sizes: list[str]
    class_pixels: dict[str, int]
    files: dict[str, str]
    encoding: Submission
    depth: DepthRecord
    seed: int
    environment: dict[str, Any]


class Manifest(Written):
    """A whole manifest.

    folds: SHA-256 of the weights by fold, see fold_names; of a blend, by fold and member. cv:
    out-of-fold, of the folds; null while some are missing, or when none predicts. left_out:
    formats that the images do not allow. Only a kernel has a fingerprint, of its package, and a
    budget.
    """

    experiment: str
    folds: dict[str, str] | dict[str, dict[str, str]]
    views: list[str]
    cv: Scores | None
    notice: str | None
    left_out: list[str]
    seconds: float
    fingerprint: str | None = None
    budget: BudgetRecord | None = None
