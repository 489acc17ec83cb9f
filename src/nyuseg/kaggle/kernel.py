"""What runs inside the Kaggle kernel: the package's networks on the competition's test images."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.data.frames import FrameFolder, list_ids, require_depth
from nyuseg.data.integrity import require_clean
from nyuseg.data.listing import list_files
from nyuseg.dataloading.dataset import Source
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.predictor import Prediction, Predictor
from nyuseg.kaggle.budget import Budget
from nyuseg.kaggle.mounts import describe, find_all
from nyuseg.kaggle.records import PackageMember, PackageRecord
from nyuseg.models.device import pick_devices
from nyuseg.models.network import load_network
from nyuseg.models.tensors import read_tensors
from nyuseg.submission.formats import usable_formats
from nyuseg.submission.manifest import MANIFEST, BudgetRecord, Manifest, Planned
from nyuseg.submission.writing import write_submission
from nyuseg.utils.errors import UserError, is_out_of_memory
from nyuseg.utils.files import atomic_folder, read_json, sha256_file

CONFIG = "config.json"
END = "NYUSEG END: submission written and verified"


def run(
    package: Path,
    fingerprint: str,
    inputs: Path,
    working: Path,
    budget_hours: float,
    started: float | None = None,
) -> Manifest:
    """Predict all test images found below `inputs` and write submission.* into `working`.

    package: the folder of the attached data set; fingerprint: the version that the kernel was made
    for; started: time.time() at the kernel's start, from which the budget counts. Uses all GPUs
    there are. Returns the manifest. Raises UserError for another version of the package, a damaged
    file, or test images that cannot be found or are at fault.
    """
    started = started or time.time()
    facts, predictor = load_package(package, fingerprint)
    source, ids = find_frames(inputs, facts.competition, predictor.uses_depth)
    if predictor.uses_depth:
        require_depth(source.root, "test", f"{facts.experiment} was trained to see them")
    formats = usable_formats(source.root, facts.formats)
    planned = Planned(folds=predictor.model_count, views=predictor.view_names)
    budget = Budget(predictor, len(ids), budget_hours * 3600 - (time.time() - started))
    print(f"loaded after {time.time() - started:.0f} s", flush=True)
    budget.fit(announce(predictor, source, ids), 0)

    def watched(source: Source, ids: Sequence[str]) -> Iterator[Prediction]:
        return budget.watch(predictor.predict(source, ids, masks=True))

    with atomic_folder(working / "submission", MANIFEST) as folder:
        written = write_submission(predictor, source, ids, folder, formats, watched)
        manifest = Manifest(
            **dict(written),
            experiment=facts.experiment,
            folds=facts.folds,
            fingerprint=facts.fingerprint,
            cv=facts.cv,
            notice=facts.notice,
            views=predictor.view_names,
            budget=BudgetRecord(hours=budget_hours, planned=planned, dropped=budget.dropped),
            left_out=[name for name in facts.formats if name not in formats],
            seconds=round(time.time() - started, 1),
        )
        manifest.write(folder / MANIFEST)
    # The manifest last: it marks the folder as ours, should a move fail.
    moved = sorted((working / "submission").iterdir(), key=lambda path: path.name == MANIFEST)
    for path in moved:
        path.replace(working / path.name)
    (working / "submission").rmdir()
    devices = len(set(predictor.devices))
    print(f"{manifest.images} images in {manifest.seconds} s on {devices} device(s)")
    print(END, flush=True)
    return manifest


def load_package(package: Path, fingerprint: str) -> tuple[PackageRecord, Predictor]:
    """Check the package and build its networks: its manifest and what predicts.

    Raises UserError when the version is another one, a file is missing or damaged, or the networks
    do not fit into the memory.
    """
    facts = PackageRecord.read(package / MANIFEST)
    if facts.fingerprint != fingerprint:
        raise UserError(
            f"{package}: the attached data set is version {facts.fingerprint[:12]}, this kernel "
            f"was made for {fingerprint[:12]}; attach its newest version or push both again"
        )
    if facts.digest() != fingerprint:
        raise UserError(f"{package / MANIFEST}: altered; upload the data set again")
    for name, digest in facts.files.items():
        path = package / name
        if not path.is_file():
            kind = "unpacked into a folder" if path.is_dir() else "missing"
            raise UserError(f"{path}: {kind}; upload the data set again")
        if sha256_file(path) != digest:
            raise UserError(f"{path}: not the file that was packaged; upload the data set again")
    devices = pick_devices()
    try:
        ensembles = [_load_member(package, member, facts, devices) for member in facts.members]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        count = len(facts.members) * len(facts.folds)
        raise UserError(
            f"{count} networks do not fit into the memory of {devices[0]} together; package fewer "
            "by --fold, or a blend of fewer experiments"
        ) from None
    return facts, Predictor(ensembles, _read_config(package / CONFIG))


def _load_member(
    package: Path, member: PackageMember, facts: PackageRecord, devices: list[torch.device]
) -> Ensemble:
    config = _read_config(package / f"{member.prefix}{CONFIG}")
    paths = [package / f"{member.prefix}fold_{fold}.safetensors" for fold in facts.folds]
    models = [_load(path, config) for path in paths]
    return Ensemble(models, config, devices, facts.tta, member.weight)


def _read_config(path: Path) -> Config:
    return parse_config(read_json(path), str(path))


def _load(path: Path, config: Config) -> nn.Module:
    try:
        return load_network(config.model, config.data, read_tensors(path))
    except RuntimeError:
        raise UserError(
            f"{path}: does not fit {config.model.encoder} as timm builds it here; package and push "
            "again"
        ) from None


def find_frames(
    inputs: Path, competition: str | None, depth: bool = True
) -> tuple[FrameFolder, list[str]]:
    """The test images of the competition and their ids, wherever they are mounted below `inputs`.

    A folder whose path names the competition goes first. depth: whether any is needed. Raises
    UserError, naming what is mounted, when there are none, and for the first fault of their files.
    """
    found = [path for path in find_all(inputs, "test/image") if list_files(path / "test/image")[0]]
    if not found:
        raise UserError(
            f"{inputs}: no test/image with PNG or JPEG files; mounted: {describe(inputs)}"
        )
    found.sort(key=lambda path: competition not in path.parts)
    root = found[0]
    require_clean(root, ["test"], depth)
    ids = list_ids(root, "test")
    others = f" (not of {', '.join(map(str, found[1:]))})" if found[1:] else ""
    print(f"{len(ids)} test images of {root}{others}", flush=True)
    return FrameFolder(root, "test"), ids


def _synchronize(predictor: Predictor) -> None:
    for device in predictor.devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def announce(predictor: Predictor, source: FrameFolder, ids: list[str]) -> float:
    """Predict one batch for its time and memory, print what the whole will take.

    Returns the seconds an image will take.
    """
    size = min(len(ids), predictor.batch_size)
    batch = predictor.read(source, ids[:size])
    devices = {device: replica for replica, device in enumerate(predictor.devices)}
    for replica in devices.values():  # The first call also chooses algorithms.
        predictor.answer(batch, replica)
    _synchronize(predictor)
    started = time.monotonic()
    predictor.answer(batch)
    _synchronize(predictor)
    pace = (time.monotonic() - started) / size / len(devices)
    cpu = "on the CPU"
    memory = ", ".join(
        f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on {device}"
        for device in devices
        if device.type == "cuda"
    )
    minutes, members = pace * len(ids) / 60, len(predictor.ensembles)
    blended = f"{members} experiments x " if members > 1 else ""
    print(
        f"{blended}{predictor.model_count} networks x {predictor.view_count} views on "
        f"{len(devices)} device(s): about {minutes:.1f} minutes, {memory or cpu}",
        flush=True,
    )
    return pace
