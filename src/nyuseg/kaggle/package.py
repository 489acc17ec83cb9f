"""Packaging an experiment for Kaggle: a data set with all that a kernel needs, and the kernel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save

from nyuseg.data.fold_names import Fold, uncovered
from nyuseg.experiment.folder import Experiment
from nyuseg.inference.loading import check_predictor
from nyuseg.kaggle.kernel import CONFIG
from nyuseg.kaggle.licences import licence_texts
from nyuseg.kaggle.metadata import (
    DATASET_FILE,
    KERNEL_FILE,
    SUFFIXES,
    KernelMetadata,
    dataset_metadata,
    kernel_metadata,
    slugify,
)
from nyuseg.kaggle.notebook import import_nbformat, make_notebook, make_script
from nyuseg.kaggle.records import PackageMember, PackageRecord
from nyuseg.kaggle.wheels import own_wheel, repack
from nyuseg.models.tensors import read_tensors
from nyuseg.submission.manifest import MANIFEST
from nyuseg.submission.writing import cv_scores
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder, sha256_file, write_bytes, write_json
from nyuseg.utils.locks import only_writer

# What Kaggle's image lacks of what inference needs, and timm, of which it may have a version that
# does not know the encoder or builds another one; all are pure Python.
EXTRA_WHEELS = ("segmentation-models-pytorch", "timm", "ttach")


@dataclass(frozen=True)
class Options:
    """What the user chose; precision `half` stores the weights in 2 bytes, `fp32` in 4.

    licences: paths of files with the texts that go with the weights, see licence_texts.
    """

    owner: str
    folds: list[Fold]
    tta: bool
    formats: list[str]
    precision: str
    competition: str | None
    kernel_type: Literal["notebook", "script"]
    budget_hours: float
    title: str
    licences: list[str]


def build(experiment: Experiment, options: Options, folder: Path) -> PackageRecord:
    """Write folder/dataset and folder/kernel; returns the package's manifest.

    Raises UserError, before anything is written, for metadata that Kaggle would refuse, for folds
    that are missing or do not belong to the experiment, for a licence as licence_texts, and for a
    notebook without nbformat.
    """
    if not 0 < options.budget_hours <= 12:  # Kaggle's longest session; NaN is refused too.
        raise UserError(f"--budget-hours {options.budget_hours}: must be above 0, at most 12")
    title, data_title = f"{options.title} kernel", f"{options.title} package"
    subtitle = "Weights and library of an RGB-D segmentation kernel"
    data_meta = dataset_metadata(options.owner, data_title, subtitle)
    source = slugify(title) + SUFFIXES[options.kernel_type]
    data_id = f"{options.owner}/{slugify(data_title)}"
    kind, competition = options.kernel_type, options.competition
    kernel_meta = kernel_metadata(options.owner, title, source, kind, data_id, competition)
    if kind == "notebook":
        import_nbformat()
    texts = licence_texts(experiment, [*map(Path, options.licences)])
    hashes = check_predictor(experiment, options.folds, options.tta)
    if uncovered(options.folds):
        print(uncovered(options.folds))
    with only_writer(folder / "dataset"), atomic_folder(folder / "dataset", DATASET_FILE) as inside:
        for name, content in texts.items():
            write_bytes(inside / name, content)
        facts = _write_package(experiment, options, hashes, inside)
        data_meta.write(inside / DATASET_FILE)
    with only_writer(folder / "kernel"), atomic_folder(folder / "kernel", KERNEL_FILE) as inside:
        script = make_script(facts.fingerprint, options.budget_hours)
        text = make_notebook(script) if kind == "notebook" else script
        (inside / source).write_text(text, encoding="utf-8")
        kernel_meta.write(inside / KERNEL_FILE)
        KernelMetadata.read(inside / KERNEL_FILE)  # Checks the code file.
    return facts


def kernel_name(owner: str, title: str) -> str:
    """Kaggle's name of a packaged kernel: owner/slug."""
    return f"{owner}/{slugify(f'{title} kernel')}"


def _write_package(
    experiment: Experiment, options: Options, hashes: dict[str, str], folder: Path
) -> PackageRecord:
    write_json(folder / CONFIG, experiment.config.model_dump(mode="json"))
    members = []
    for number, part in enumerate(experiment.parts):
        prefix = f"member_{number}_" if experiment.members else ""
        _write_member(part.experiment, options, folder, prefix)
        name = part.experiment.config.name
        members.append(PackageMember(experiment=name, prefix=prefix, weight=part.weight))
    own_wheel(folder)
    for name in EXTRA_WHEELS:
        repack(name, folder)
    facts = PackageRecord(
        experiment=experiment.config.name,
        folds=hashes,
        members=members,
        tta=options.tta,
        formats=options.formats,
        precision=options.precision,
        competition=options.competition,
        cv=cv_scores(experiment, options.folds),
        notice=experiment.notice,
        files={path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        fingerprint="",
    )
    facts = facts.model_copy(update={"fingerprint": facts.digest()})
    facts.write(folder / MANIFEST)
    return facts


def _write_member(member: Experiment, options: Options, folder: Path, prefix: str) -> None:
    write_json(folder / f"{prefix}{CONFIG}", member.config.model_dump(mode="json"))
    for fold in options.folds:
        state = read_tensors(member.fold_files(fold).weights)
        if options.precision == "half":
            state = {key: to_half(key, tensor) for key, tensor in state.items()}
        write_bytes(folder / f"{prefix}fold_{fold}.safetensors", save(state))


def to_half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A weight in float16; vectors (BatchNorm's, biases) and counters stay as they are.

    Raises UserError for a value that float16 cannot hold.
    """
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise UserError(f"{name}: too large for half precision; use --precision fp32")
    return half
