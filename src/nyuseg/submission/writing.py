"""Test inference written as a submission folder: every format, verified, with a manifest."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from nyuseg.config.schema import Config
from nyuseg.data.classes import CLASS_NAMES, NUM_CLASSES
from nyuseg.data.depth_check import sample_lines
from nyuseg.data.fold_names import Fold, is_full
from nyuseg.data.frames import FrameFolder, list_ids, require_depth, write_png
from nyuseg.dataloading.dataset import Source, read_frame
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import CrossValidation, Scores
from nyuseg.inference.loading import load_predictor
from nyuseg.inference.predictor import Predictor
from nyuseg.models.device import environment
from nyuseg.submission.formats import (
    FILES,
    Sizes,
    digest,
    make_writer,
    order_notice,
    usable_formats,
    verify,
)
from nyuseg.submission.manifest import MANIFEST, DepthRecord, Manifest, Written
from nyuseg.submission.preview import preview_row, preview_sheet
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder, sha256_file
from nyuseg.utils.locks import only_writer
from nyuseg.utils.progress import progress

PREVIEWS = 5


class Masked(Protocol):
    """A frame's id and its mask, uint8 [H,W], 0..12."""

    @property
    def id(self) -> str: ...
    @property
    def mask(self) -> np.ndarray: ...


# The masks of frames, in the order of their ids.
Predict = Callable[[Source, Sequence[str]], Iterator[Masked]]


class Elsewhere(Protocol):
    """The networks on other machines; environment: of those, once they have predicted."""

    environment: dict[str, Any]

    def predict(
        self, hashes: dict[str, Any], source: FrameFolder, ids: Sequence[str]
    ) -> Iterator[Masked]:
        """As Predict; hashes: of the weights that they must have."""


def infer(
    experiment: Experiment,
    folds: Sequence[Fold],
    tta: bool,
    root: Path,
    folder: Path,
    formats: list[str] | None,
    device: torch.device | Sequence[torch.device],
    elsewhere: Elsewhere | None = None,
) -> Manifest:
    """Predict root/test with the mean of some folds and write `folder`; returns the manifest.

    formats: None for all that the images allow; elsewhere: what predicts instead of the networks
    here. The folder appears whole, after each of its files was decoded again and compared.
    """
    started = time.monotonic()
    config = experiment.config
    _require_own(folder, config.name)
    usable = usable_formats(root, formats or list(FILES), asked=formats is not None)
    if any(part.experiment.config.data.uses_depth for part in experiment.parts):
        require_depth(root, "test", f"{config.name} was trained to see them")
    if elsewhere:  # Then the networks here only answer for what they are.
        device = torch.device("cpu")
    predictor, hashes = load_predictor(experiment, folds, device, tta)
    source, ids = FrameFolder(root, "test"), list_ids(root, "test")
    predict = (lambda _, ids: elsewhere.predict(hashes, source, ids)) if elsewhere else None
    with only_writer(folder), atomic_folder(folder, MANIFEST) as temporary:
        written = write_submission(predictor, source, ids, temporary, usable, predict)
        if elsewhere:
            written = written.model_copy(update={"environment": elsewhere.environment})
        manifest = Manifest(
            **dict(written),
            experiment=config.name,
            folds=hashes,
            views=predictor.view_names,
            cv=cv_scores(experiment, folds),
            notice=experiment.notice,
            left_out=[name for name in formats or FILES if name not in usable],
            seconds=round(time.monotonic() - started, 1),
        )
        manifest.write(temporary / MANIFEST)
    return manifest


def _require_own(folder: Path, name: str) -> None:
    """Raise UserError when a folder holds the submission of another experiment, such as x_tta."""
    there = folder / MANIFEST
    advice = "move it away, or write below another folder by --submissions DIR"
    try:
        owner = Manifest.read(there).experiment if there.exists() else name
    except UserError as error:
        raise UserError(f"{error}; {advice}") from None
    if owner != name:
        raise UserError(
            f"{folder}: holds a submission of the experiment {owner}, not of {name}; {advice}"
        )


def write_submission(
    predictor: Predictor,
    source: Source,
    ids: Sequence[str],
    folder: Path,
    formats: list[str],
    predict: Predict | None = None,
) -> Written:
    """Predict frames into `folder`, in each format, decode every file again and compare.

    predict: what makes the masks, other than the predictor here, whose networks it stands for.
    """
    config = predictor.config
    if predictor.uses_depth:
        for line in sample_lines(source.root, source.split, ids, config.data, trained=True)[1:]:
            print(line, flush=True)
    if "npy" in formats and (notice := order_notice(ids)):
        print(f"!! {notice} !!", flush=True)
    predict = predict or partial(predictor.predict, masks=True)
    kinds = ("image", "depth") if predictor.uses_depth else ("image",)
    sizes, digests, pixels = _write_files(config, source, ids, folder, formats, predict, kinds)
    for name in formats:
        verify(folder / FILES[name], sizes, digests, config.submission)
    return Written(
        images=len(sizes),
        ids=list(sizes),
        sizes=sorted({f"{height}x{width}" for height, width in sizes.values()}),
        class_pixels=dict(zip(CLASS_NAMES, pixels.tolist(), strict=True)),
        files={FILES[name]: sha256_file(folder / FILES[name]) for name in formats},
        encoding=config.submission,
        depth=DepthRecord(unit=config.data.depth_unit, missing=list(config.data.depth_missing)),
        seed=config.seed,
        environment=environment(predictor.devices[0], config.compute.precision),
    )


def _write_files(
    config: Config,
    source: Source,
    ids: Sequence[str],
    folder: Path,
    formats: list[str],
    predict: Predict,
    kinds: Sequence[str],
) -> tuple[Sizes, dict[str, bytes], np.ndarray]:
    """Predict and write all formats and a preview, which shows `kinds` of some frames; returns
    sizes, digests, pixels a class."""
    count = len(ids)
    wanted = {ids[i] for i in np.linspace(0, count - 1, min(PREVIEWS, count)).astype(int)}
    sizes: Sizes = {}
    digests: dict[str, bytes] = {}
    pixels = np.zeros(NUM_CLASSES, np.int64)
    rows = []
    with ExitStack() as stack:
        writers = [
            stack.enter_context(make_writer(name, folder, count, config.submission))
            for name in formats
        ]
        for prediction in progress(predict(source, ids), "test", count):
            mask = prediction.mask
            for writer in writers:
                writer.add(prediction.id, mask)
            sizes[prediction.id], digests[prediction.id] = mask.shape, digest(mask)
            pixels += np.bincount(mask.ravel(), minlength=NUM_CLASSES)
            if prediction.id in wanted:
                frame = read_frame(source, prediction.id, kinds, config.data)
                rows.append(preview_row(frame["image"], frame.get("depth"), mask))
    titles = ["image", *["depth (red: near, black: missing)"][: len(kinds) - 1], "prediction"]
    write_png(folder / "preview.png", preview_sheet(rows, titles))
    return sizes, digests, pixels


def cv_scores(experiment: Experiment, folds: Sequence[Fold]) -> Scores | None:
    """The pooled out-of-fold scores of an experiment; None while folds are missing, or when none
    of them predicts."""
    if not experiment.scores_path.exists() or all(map(is_full, folds)):
        return None
    result = CrossValidation.read(experiment.scores_path)
    return Scores(miou=result.miou, pixel_accuracy=result.pixel_accuracy)
