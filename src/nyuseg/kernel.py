"""What runs inside the Kaggle kernel: the package's networks on the competition's test images."""

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from nyuseg.budget import Budget
from nyuseg.config import Config, parse_config
from nyuseg.dataset import PredictionSet
from nyuseg.errors import UserError
from nyuseg.files import atomic_folder, read_json, sha256_file, write_json
from nyuseg.frames import list_ids
from nyuseg.infer import MANIFEST, write_submission
from nyuseg.model import build_model
from nyuseg.mounts import find_all
from nyuseg.predictor import Predictor

PACKAGE_KEYS = ("fingerprint", "files", "folds", "tta", "formats", "cv", "notice", "experiment")
END = "NYUSEG END: submission written and verified"


def run(
    package: Path, fingerprint: str, inputs: Path, working: Path, budget_hours: float
) -> dict[str, Any]:
    """Predict all test images found below `inputs` and write submission.* into `working`.

    package: the folder of the attached data set; fingerprint: the version that the kernel was made
    for. Uses all GPUs there are. Returns the manifest. Raises UserError for another version of the
    package, a damaged file, or test images that cannot be found.
    """
    started = time.monotonic()
    facts, config, models = load_package(package, fingerprint)
    frames = find_frames(inputs, config)
    devices = all_devices()
    predictor = Predictor(models, config, devices, facts["tta"])
    left = budget_hours * 3600 - (time.monotonic() - started)
    budget = Budget(predictor, len(frames), left)
    pace = announce(predictor, frames)
    budget.fit(pace, 0)
    with atomic_folder(working / "submission", MANIFEST) as folder:
        result = write_submission(predictor, frames, folder, facts["formats"], budget.watch)
        manifest = {
            **{key: facts[key] for key in ("experiment", "folds", "fingerprint", "cv", "notice")},
            "views": predictor.view_names,
            "budget": {"hours": budget_hours, "dropped": budget.dropped},
            **result,
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(folder / MANIFEST, manifest)
    for path in sorted((working / "submission").iterdir()):
        path.replace(working / path.name)
    (working / "submission").rmdir()
    print(f"{manifest['images']} images in {manifest['seconds']} s on {len(devices)} device(s)")
    print(END, flush=True)
    return manifest


def load_package(package: Path, fingerprint: str) -> tuple[dict[str, Any], Config, list[nn.Module]]:
    """Check the package and build its networks: its manifest, configuration and networks.

    Raises UserError when the version is another one or a file is missing or damaged.
    """
    facts = read_json(package / MANIFEST, PACKAGE_KEYS)
    if facts["fingerprint"] != fingerprint:
        raise UserError(
            f"{package}: the attached data set is version {facts['fingerprint'][:12]}, this kernel "
            f"was made for {fingerprint[:12]}; attach its newest version or push both again"
        )
    for name, digest in facts["files"].items():
        path = package / name
        if not path.is_file():
            kind = "unpacked into a folder" if path.is_dir() else "missing"
            raise UserError(f"{path}: {kind}; upload the data set again")
        if sha256_file(path) != digest:
            raise UserError(f"{path}: not the file that was packaged; upload the data set again")
    config = parse_config(read_json(package / "config.json"), str(package / "config.json"))
    models = [_load(package / f"fold_{fold}.safetensors", config) for fold in facts["folds"]]
    return facts, config, models


def _load(path: Path, config: Config) -> nn.Module:
    model = build_model(config, pretrained=False)
    model.load_state_dict(load_file(path))  # Copies half precision into the network's float32.
    return model


def find_frames(inputs: Path, config: Config) -> PredictionSet:
    """The test images of the competition, wherever they are mounted below `inputs`.

    Raises UserError, naming what is mounted, when there are none.
    """
    for folder in find_all(inputs, "test/image"):
        ids = list_ids(folder, "test")
        print(f"{len(ids)} test images in {folder}/test", flush=True)
        return PredictionSet(folder, "test", ids, config.data)
    mounted = ", ".join(str(path) for path in sorted(inputs.glob("*/*"))[:10]) or "nothing"
    raise UserError(f"{inputs}: no folder with test/image; mounted: {mounted}")


def all_devices() -> list[torch.device]:
    """Every GPU, or the processor when there is none."""
    count = torch.cuda.device_count()
    return [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]


def announce(predictor: Predictor, frames: PredictionSet) -> float:
    """Predict one batch for its time and memory, print what the whole will take.

    Returns the seconds an image will take.
    """
    size = min(len(frames), predictor.config.predict.batch_size)
    images = torch.stack([frames[index]["image"] for index in range(size)])
    predictor(images)  # The first call also chooses algorithms.
    started = time.monotonic()
    predictor(images)
    device = predictor.devices[0]
    memory = "on the CPU"
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        memory = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB of GPU memory"
    pace = (time.monotonic() - started) / size / len(predictor.devices)
    minutes = pace * len(frames) / 60
    print(
        f"{predictor.model_count} folds x {predictor.view_count} views on "
        f"{len(predictor.devices)} device(s): about {minutes:.1f} minutes, {memory}",
        flush=True,
    )
    return pace
