"""Test inference: the folds of an experiment, averaged, into a submission folder."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nyuseg.ahead import in_order
from nyuseg.checkpoint import check_release, open_release
from nyuseg.classes import CLASS_NAMES, NUM_CLASSES
from nyuseg.dataset import PredictionSet
from nyuseg.depth_check import sample_lines
from nyuseg.device import environment
from nyuseg.ensemble import Ensemble
from nyuseg.errors import UserError
from nyuseg.experiment import Experiment
from nyuseg.files import atomic_folder, read_json, sha256_file, write_json
from nyuseg.folds import fold_hash
from nyuseg.frames import FrameFolder, list_ids, require_depth, stored_kinds, write_png
from nyuseg.locks import only_writer
from nyuseg.predictor import Prediction, Predictor
from nyuseg.preview import preview_row, preview_sheet
from nyuseg.probe import require_views
from nyuseg.progress import progress
from nyuseg.submission import FILES, Sizes, digest, make_writer, usable_formats, verify

PREVIEWS = 5
MANIFEST = "manifest.json"
Watch = Callable[[Iterator[Prediction]], Iterator[Prediction]]


def load_folds(experiment: Experiment, folds: list[int]) -> tuple[list[nn.Module], dict[str, str]]:
    """Load the networks of some folds; returns them and the hash of each weight file, by fold.

    Raises UserError when a fold is missing or was validated on another fold table.
    """

    def check(fold: int) -> str:
        folder = experiment.fold_folder(fold)
        if not (folder / "weights.json").exists():
            raise UserError(
                f"{folder}: fold {fold} is not trained; run 'python src/train_folds.py --fold "
                f"{fold}', or predict with the others through --fold"
            )
        facts = check_release(folder)
        if facts["fold"] != fold or facts["folds"] != fold_hash(experiment.table):
            raise UserError(f"{folder}: these weights were validated on another fold table")
        return facts["sha256"]

    models, digests = [], {}
    # Hashing is what threads can do side by side, while this one builds networks.
    for fold, found in zip(folds, in_order(check, folds, threads=4, depth=4), strict=True):
        models.append(open_release(experiment.fold_folder(fold), experiment.config))
        digests[str(fold)] = found
    return models, digests


def load_predictor(
    experiment: Experiment,
    folds: list[int],
    device: torch.device | Sequence[torch.device],
    tta: bool,
) -> tuple[Predictor, dict[str, Any]]:
    """The Predictor of some folds of an experiment or a blend, and the hashes of the weights.

    Hashes by fold; of a blend, by fold and member. Raises UserError as load_folds does, and for a
    member that was trained again since it was blended.
    """
    ensembles, hashes = [], {}
    for part in experiment.parts:
        member = part.experiment
        if tta:
            require_views(member.config, member.config.predict.views)
        models, digests = load_folds(member, folds)
        if part.digests and any(part.digests[fold] != digests[fold] for fold in digests):
            raise UserError(
                f"{experiment.folder}: {member.config.name} was trained again since it was "
                "blended; run src/blend.py again"
            )
        weights = (part.weight, part.temperature)
        ensembles.append(Ensemble(models, member.config, device, tta, *weights))
        hashes[member.config.name] = digests
    by_fold = {str(fold): {name: one[str(fold)] for name, one in hashes.items()} for fold in folds}
    found = by_fold if experiment.members else next(iter(hashes.values()))
    return Predictor(ensembles, experiment.config), found


def infer(
    experiment: Experiment,
    folds: list[int],
    tta: bool,
    root: Path,
    folder: Path,
    formats: list[str] | None,
    device: torch.device | Sequence[torch.device],
) -> dict[str, Any]:
    """Predict root/test with the mean of some folds and write `folder`; returns the manifest.

    formats: None for all that the images allow. The folder appears whole, after each of its files
    was decoded again and compared.
    """
    started = time.monotonic()
    config = experiment.config
    _require_own(folder, config.name)
    usable = usable_formats(root, formats or list(FILES), asked=formats is not None)
    if any(part.experiment.config.data.uses_depth for part in experiment.parts):
        require_depth(root, "test", f"{config.name} was trained to see them")
    predictor, hashes = load_predictor(experiment, folds, device, tta)
    frames = PredictionSet(FrameFolder(root, "test"), list_ids(root, "test"), config.data)
    with only_writer(folder), atomic_folder(folder, MANIFEST) as temporary:
        manifest = {
            "experiment": config.name,
            "folds": hashes,
            "views": predictor.view_names,
            "cv": cv_scores(experiment),
            "notice": experiment.notice,
            **write_submission(predictor, frames, temporary, usable),
            "left_out": [name for name in formats or FILES if name not in usable],
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(temporary / MANIFEST, manifest)
    return manifest


def _require_own(folder: Path, name: str) -> None:
    """Raise UserError when a folder holds the submission of another experiment, such as x_tta."""
    there = folder / MANIFEST
    owner = read_json(there, ("experiment",))["experiment"] if there.exists() else name
    if owner != name:
        raise UserError(
            f"{folder}: holds a submission of the experiment {owner}, not of {name}; move it away, "
            "or write below another folder by --submissions DIR"
        )


def write_submission(
    predictor: Predictor,
    frames: PredictionSet,
    folder: Path,
    formats: list[str],
    watch: Watch = iter,
) -> dict[str, Any]:
    """Predict all frames into `folder`, in each format, decode every file again and compare.

    watch: sees the stream of predictions go by. Returns what a manifest says of the result.
    """
    config = predictor.config
    if predictor.frames(frames).depth:
        root, split = frames.source.root, frames.source.split
        for line in sample_lines(root, split, frames.ids, config.data)[1:]:
            print(line, flush=True)
    sizes, digests, pixels = _write_files(predictor, frames, folder, formats, watch)
    for name in formats:
        verify(folder / FILES[name], sizes, digests, config.submission)
    return {
        "images": len(sizes),
        "ids": list(sizes),  # In the order of the array's entries.
        "sizes": sorted({f"{height}x{width}" for height, width in sizes.values()}),
        "class_pixels": dict(zip(CLASS_NAMES, pixels.tolist(), strict=True)),
        "files": {FILES[name]: sha256_file(folder / FILES[name]) for name in formats},
        "encoding": config.submission.model_dump(),
        "depth": {"unit": config.data.depth_unit, "missing": list(config.data.depth_missing)},
        "seed": config.seed,
        "environment": environment(predictor.devices[0], config.train.precision),
    }


def _write_files(
    predictor: Predictor, frames: PredictionSet, folder: Path, formats: list[str], watch: Watch
) -> tuple[Sizes, dict[str, bytes], np.ndarray]:
    """Predict and write all formats and the preview; returns sizes, digests, pixels a class."""
    config, count = predictor.config, len(frames)
    wanted = {frames.ids[i] for i in np.linspace(0, count - 1, min(PREVIEWS, count)).astype(int)}
    sizes: Sizes = {}
    digests: dict[str, bytes] = {}
    pixels = np.zeros(NUM_CLASSES, np.int64)
    rows, kinds = [], stored_kinds(frames.source.root, frames.source.split)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(make_writer(name, folder, count, config.submission))
            for name in formats
        ]
        predictions = watch(predictor.predict(frames))
        for prediction in progress(predictions, "test", count):
            mask = prediction.mask
            for writer in writers:
                writer.add(prediction.id, mask)
            sizes[prediction.id], digests[prediction.id] = mask.shape, digest(mask)
            pixels += np.bincount(mask.ravel(), minlength=NUM_CLASSES)
            if prediction.id in wanted:
                frame = frames.read(prediction.id, kinds)
                rows.append(preview_row(frame["image"], frame.get("depth"), mask))
    titles = ["image", *["depth (red: near, black: missing)"][: len(kinds) - 1], "prediction"]
    write_png(folder / "preview.png", preview_sheet(rows, titles))
    return sizes, digests, pixels


def cv_scores(experiment: Experiment) -> dict[str, Any] | None:
    """The pooled out-of-fold scores of an experiment; None while folds are missing."""
    path = experiment.folder / "cv.json"
    if not path.exists():
        return None
    keys = ("miou", "pixel_accuracy")
    result = read_json(path, keys)
    return {key: result[key] for key in keys}
