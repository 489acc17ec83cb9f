"""A blend of experiments: weights chosen on some rooms, judged on others, kept like an experiment.

The weights of a room's fold are fitted on the other folds (nested cross-validation), so that the
score is one of rooms that the weights have not seen; the weights that predict the test images are
fitted on all. Equal weights are kept unless fitted ones are better beyond the bootstrap's interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nyuseg.config.loading import dump_config, parse_config
from nyuseg.config.schema import Config
from nyuseg.data.classes import VOID
from nyuseg.data.folds import fold_hash, write_folds
from nyuseg.data.frames import encode_png, frame_path, read_label
from nyuseg.data.integrity import frame_sizes
from nyuseg.ensembling.candidates import LabelledPixels, Weights, nested
from nyuseg.ensembling.stored import StoredGrids
from nyuseg.evaluation.bootstrap import difference
from nyuseg.evaluation.metrics import confusion_matrix, mean_iou
from nyuseg.evaluation.oof import check_pooling, common_scores, image_confusions, pooled_scores
from nyuseg.evaluation.tables import blend_table
from nyuseg.experiment.folder import BLEND, RECORD, Experiment
from nyuseg.experiment.records import (
    BlendRecord,
    CrossValidation,
    ExperimentRecord,
    FoldScores,
    MemberRecord,
    WeightsRecord,
)
from nyuseg.experiment.training_data import require_same_data
from nyuseg.models.device import free_memory
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder, write_text
from nyuseg.utils.locks import only_writer
from nyuseg.utils.prefetch import in_order
from nyuseg.utils.progress import progress

PIXELS = 1_000_000  # Of all images together, on which candidates are compared.
THREADS = 2
TRIM_EVERY = 16  # Images.
METHODS = ("equal", "fitted")


@dataclass(frozen=True)
class Scored:
    """A way to mix, judged on all images: confusion matrices int64 [n,13,13] and masks as PNG."""

    confusions: np.ndarray
    masks: list[bytes]

    @property
    def miou(self) -> float:
        return float(mean_iou(self.confusions.sum(0)))


def check_members(members: Sequence[Experiment]) -> None:
    """Raise UserError, naming them, unless all are finished and of the same folds and data."""
    if len(members) < 2:
        raise UserError("a blend needs two experiments or more")
    first = members[0]
    for member in members:
        if member.members:
            names = " ".join(part.experiment.config.name for part in member.members)
            raise UserError(f"{member.folder}: a blend itself; blend its members, {names}")
        check_pooling(member)
        require_same_data(member)
        if fold_hash(member.table) != fold_hash(first.table):
            raise UserError(f"{member.folder}: other folds than those of {first.folder}")
        if _depth(member) != _depth(first):
            raise UserError(f"{member.folder}: reads depth in another way than {first.folder}")
        if member.data_digest != first.data_digest:
            raise UserError(f"{member.folder}: trained on other data than {first.folder}")


def _depth(member: Experiment) -> tuple[Any, ...]:
    return member.config.data.depth_unit, member.config.data.depth_missing


def blend(members: Sequence[Experiment], folder: Path) -> BlendRecord:
    """Choose how to mix some experiments and write the blend's folder; returns its record.

    Raises UserError as check_members does, and when the folder is something else than a blend.
    """
    check_members(members)
    if folder.exists() and not (folder / BLEND).exists():
        raise UserError(f"{folder}: exists and is no blend; use --name for another name")
    first, stored = members[0], StoredGrids(members)
    reference = next(member for member in members if member.config.data.size == stored.size)
    config = parse_config(
        {**reference.config.model_dump(mode="json"), "name": folder.name}, "--name"
    )
    folds = first.table["fold"].to_numpy()
    per_fold, final, optimism = nested(_draw(first, stored))
    equal = (1 / len(members),) * len(members)
    scored = _judge(first, stored, [[equal] * len(folds), [per_fold[fold] for fold in folds]])
    result = _decide(members, scored, (equal, final), optimism)
    _write(first, config, folder, result, scored[METHODS.index(result.method)])
    return result


def _labels(experiment: Experiment, image_id: str) -> np.ndarray:
    return read_label(frame_path(experiment.input, "train", "label", image_id))


def _draw(experiment: Experiment, stored: StoredGrids) -> list[LabelledPixels]:
    """Random labelled pixels of every image, in proportion to how many it has; by fold."""
    table = experiment.table
    sizes = frame_sizes(experiment.input, "train", "label").values()
    share = min(1.0, PIXELS / sum(height * width for height, width in sizes))

    def draw(row: tuple[int, str]) -> tuple[torch.Tensor, torch.Tensor]:
        number, image_id = row
        label = _labels(experiment, image_id)
        valid = np.flatnonzero(label != VOID)
        generator = np.random.default_rng([0, number])
        pixels = np.sort(generator.choice(valid, round(share * valid.size), replace=False))
        values = stored.at_pixels(stored.read(image_id, label.shape), label.shape, pixels)
        return values, torch.from_numpy(label.ravel()[pixels])

    drawn = in_order(draw, enumerate(table["image_id"]), THREADS, 2 * THREADS)
    parts = []
    for part in progress(drawn, "sampling", len(table)):
        parts.append(part)
        if len(parts) % TRIM_EVERY == 0:  # What is kept lies scattered among what is freed.
            free_memory(torch.device("cpu"))
    folds = table["fold"].to_numpy()
    pixels = []
    for fold in range(folds.max() + 1):
        inside = [part for part, one in zip(parts, folds, strict=True) if one == fold]
        values, truth = (torch.cat(kind, -1) for kind in zip(*inside, strict=True))
        pixels.append(LabelledPixels(values, truth))
    return pixels


def _judge(experiment: Experiment, stored: StoredGrids, ways: list[list[Weights]]) -> list[Scored]:
    """Score some ways to mix, each with its weights by image, on every pixel of every image."""
    ids = experiment.table["image_id"]

    def judge(row: tuple[str, tuple[Weights, ...]]) -> list[tuple[np.ndarray, bytes]]:
        image_id, by_way = row
        label = _labels(experiment, image_id)
        grids = stored.read(image_id, label.shape)
        masks = [stored.mask(grids, label.shape, weights) for weights in by_way]
        return [(confusion_matrix(label, mask), encode_png(mask)) for mask in masks]

    rows = zip(ids, zip(*ways, strict=True), strict=True)
    judged = list(progress(in_order(judge, rows, THREADS, 2 * THREADS), "judging", len(ids)))
    return [
        Scored(np.stack([one[0] for one in way]), [one[1] for one in way])
        for way in zip(*judged, strict=True)
    ]


def _decide(
    members: Sequence[Experiment],
    scored: list[Scored],
    ways: tuple[Weights, Weights],
    optimism: dict[str, Any],
) -> BlendRecord:
    """What blend.json holds: equal weights, unless fitted ones are better beyond the interval."""
    scenes = members[0].table["scene"]
    alone = [image_confusions(member) for member in members]
    scores = [float(mean_iou(one.sum(0))) for one in alone]
    best = int(np.argmax(scores))
    advantage = difference(scored[1].confusions, scored[0].confusions, scenes)
    method = "fitted" if advantage.is_above else "equal"
    index = METHODS.index(method)
    rows = [
        _row(member, scores[number], number, ways[index], ways[1])
        for number, member in enumerate(members)
    ]
    return BlendRecord(
        members=[row for row in rows if row.weight],
        left_out=[row for row in rows if not row.weight],
        method=method,
        best_member=members[best].config.name,
        miou=dict(zip(METHODS, (one.miou for one in scored), strict=True)),
        advantage=advantage,
        gain=difference(scored[index].confusions, alone[best], scenes),
        **optimism,
    )


def _row(
    member: Experiment, miou: float, number: int, used: Weights, fitted: Weights
) -> MemberRecord:
    return MemberRecord(
        experiment=member.config.name,
        miou=miou,
        weight=used[number],
        fitted=fitted[number],
        weights=_digests(member),
    )


def _digests(member: Experiment) -> dict[str, str]:
    folds = range(member.config.folds.count)
    records = {str(fold): member.fold_files(fold).weights_record for fold in folds}
    return {fold: WeightsRecord.read(path).sha256 for fold, path in records.items()}


def _write(
    first: Experiment, config: Config, folder: Path, result: BlendRecord, chosen: Scored
) -> None:
    """Write the folder of a blend, all that an experiment's has but what training leaves."""
    record = ExperimentRecord.read(first.folder / RECORD)
    made = Experiment(folder, config, first.table, first.input)
    with only_writer(folder), atomic_folder(folder, BLEND) as inside:
        (inside / "masks").mkdir()
        for image_id, mask in zip(first.table["image_id"], chosen.masks, strict=True):
            (inside / "masks" / first.mask_path(image_id).name).write_bytes(mask)
        write_folds(inside / "folds.csv", first.table)
        write_text(inside / "config.yaml", dump_config(config))
        record.model_copy(update={"input": str(first.input.resolve())}).write(inside / RECORD)
        _scores(made, chosen.confusions).write(inside / made.scores_path.name)
        write_text(inside / "report.txt", blend_table(result) + "\n")
        result.write(inside / BLEND)


def _scores(made: Experiment, confusions: np.ndarray) -> CrossValidation:
    """The scores of a blend, under the names of those of its members."""
    folds = made.table["fold"].to_numpy()
    return CrossValidation(
        **common_scores(made, confusions),
        folds=[
            FoldScores(
                fold=fold,
                images=int((folds == fold).sum()),
                **pooled_scores(confusions[folds == fold].sum(0)),
            )
            for fold in range(folds.max() + 1)
        ],
    )
