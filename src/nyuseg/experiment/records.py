"""What the JSON files of an experiment hold."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from nyuseg.data.fold_names import Fold
from nyuseg.utils.records import Record

# NaN here, null in a file: NaN is no JSON.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value),
]


class ExperimentRecord(Record):
    """experiment.json: what an experiment was begun with.

    input: the data's folder. folds: folds.fold_hash. data: fingerprint.digest of the training
    files. notice: why its scores are not to be believed, see folds.leak_notice.
    """

    input: str
    folds: str
    data: str
    notice: str | None


class EpochScore(Record):
    """How a fold's network predicted its held-out images after an epoch: int [13][13], summed."""

    epoch: int
    confusion: list[list[int]]


class FoldRecord(Record):
    """fold.json, which marks a fold as finished.

    fold: its name, see fold_names. epoch: after which the weights that predict were kept. best,
    last: scores while it trained; null for a network on all images, which has none to be scored on.
    environment: device.environment where it was trained.
    """

    fold: Fold
    epoch: int
    best: EpochScore | None
    last: EpochScore | None
    environment: dict[str, Any]


class WeightsRecord(FoldRecord):
    """weights.json, which stands beside the release weights of a fold.

    checkpoint: which one they are, see Predict. folds: the fold table's hash. valid_ids: the
    held-out images. sha256: of the weights' file.
    """

    experiment: str
    checkpoint: str
    folds: str
    valid_ids: list[str]
    sha256: str

    @property
    def of_fold(self) -> FoldRecord:
        """What of it fold.json holds."""
        return FoldRecord(**{key: getattr(self, key) for key in FoldRecord.model_fields})


class Estimate(Record):
    """A number and the interval that holds 95 % of its resampled values, see bootstrap.

    p_above: the share of resampled values above 0, ties counted half. Of a difference A - B it is
    the probability that A beats B. NaN where nothing defines a number; null in the file.
    """

    value: Number
    low: Number
    high: Number
    p_above: Number

    @property
    def is_above(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


class Scores(Record):
    """Of one confusion matrix, 0..1; null without a pixel."""

    miou: float | None
    pixel_accuracy: float | None


class FoldScores(Scores):
    """The row of a fold in cv.json; what only training knows is null for a blend."""

    fold: int
    images: int
    best_epoch: int | None = None
    best_miou: float | None = None
    last_miou: float | None = None
    environment: dict[str, Any] | None = None


class CheckpointScores(Scores):
    """A kind of checkpoint, as validated while training; over_last: its gain over the last."""

    over_last: Estimate | None


class Optimism(Record):
    """What optimism.optimism found, mIoU."""

    same: float
    other: float
    last: float
    optimism: float
    gain: float


class CrossValidation(Scores):
    """cv.json: the pooled out-of-fold scores; what only training knows is null for a blend.

    predicts: the kind of checkpoint. depth_mae_m: mean error of the depth head in metres.
    environment: where the masks were pooled.
    """

    experiment: str
    notice: str | None
    images: int
    class_iou: dict[str, float | None]
    folds: list[FoldScores]
    predicts: str | None = None
    depth_mae_m: float | None = None
    checkpoints: dict[str, CheckpointScores] | None = None
    optimism: Optimism | None = None
    seed: int | None = None
    environment: dict[str, Any] | None = None


class MemberRecord(Record):
    """A member of a blend.

    weight: as it is used; fitted: as it was fitted on all rooms. weights: SHA-256 of each fold's
    weights when it was blended.
    """

    experiment: str
    miou: Number
    weight: float
    fitted: float
    weights: dict[str, str]


class BlendRecord(Record):
    """blend.json: how experiments are mixed, and what that is worth on rooms of other folds.

    left_out: experiments of weight 0. miou: out-of-fold, of both methods. advantage: of fitted
    over equal weights. gain: of what is used over the best member. candidates: how many weights
    were tried. optimism: by how much the fitted ones are better on the rooms that chose them.
    """

    members: list[MemberRecord]
    left_out: list[MemberRecord]
    method: Literal["equal", "fitted"]
    best_member: str
    miou: dict[Literal["equal", "fitted"], Number]
    advantage: Estimate
    gain: Estimate
    candidates: int
    optimism: Number


class ViewsRecord(Record):
    """A set of test-time views: its out-of-fold mIoU, its gain over the identity alone, the seconds
    an image takes, and the setting that chooses it."""

    views: list[str]
    miou: Number
    gain: Estimate
    seconds: float
    setting: str


class ViewSearchRecord(Record):
    """tta.json: see tta_search.search."""

    experiment: str
    notice: str | None
    rows: list[ViewsRecord]
    best: ViewsRecord
    advised: ViewsRecord
    nested: Estimate
