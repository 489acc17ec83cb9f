"""One training step and one prediction of every configuration, at its real size, from random
weights: whether it works at all, its seconds and its memory. Frames are noise; nothing is written.

Two frames a step, whatever the batch; networks above 100 M parameters compute their activations
again. Each runs in a process of its own, one after the other: 20 GB of memory will do.

examples:
  python benchmarks/recipes.py
  python benchmarks/recipes.py configs/exp060.yaml configs/dinov3_vitb.yaml
"""

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.config.loading import load_config, override_config
from nyuseg.config.schema import Config
from nyuseg.data.classes import NUM_CLASSES
from nyuseg.data.frames import Frame
from nyuseg.dataloading.dataset import TrainingSet
from nyuseg.dataloading.inputs import training_inputs
from nyuseg.dataloading.loader import collate
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.predictor import Predictor
from nyuseg.models.device import pick_device, to_device
from nyuseg.models.network import MultiTaskNet, build_model, load_network
from nyuseg.models.normalisation import resolve_normalisation
from nyuseg.training.optimization import TrainingStep

NATIVE = (480, 640)  # As NYUv2's frames.
LARGE = 1e8  # Parameters.
SETTINGS = ("model.encoder_weights=null", "train.batch_size=2", "compute.accumulate=1")


@dataclass(frozen=True)
class Attempt:
    """What came of a configuration: seconds and loss of its step, classes of its prediction."""

    parameters: int
    seconds: float
    loss: float
    mask: np.ndarray

    @property
    def fault(self) -> str | None:
        """What is wrong with the loss or the classes; None when nothing is."""
        if not math.isfinite(self.loss):
            return f"the loss is {self.loss}"
        wrong = self.mask.dtype != np.uint8 or self.mask.max() >= NUM_CLASSES
        return "the mask holds no classes" if wrong else None


class Noise:
    """Frames without a file: each pixel is random, a tenth without depth and without class."""

    root, split = Path("noise"), "train"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def read(self, image_id: str, kinds: Sequence[str] = ("image", "depth")) -> Frame:
        """A frame as FrameFolder.read gives it, a function of its id."""
        random, size = np.random.default_rng(int(image_id)), self.size
        known = random.random((2, *size)) > 0.1
        frame = {
            "image": random.integers(0, 256, (*size, 3), dtype=np.uint8),
            "depth": (random.integers(500, 9000, size) * known[0]).astype(np.uint16),
            "label": np.where(known[1], random.integers(0, NUM_CLASSES, size), 255).astype("uint8"),
        }
        return {kind: frame[kind] for kind in kinds}


def attempt(config: Config, native: tuple[int, int] = NATIVE) -> Attempt:
    """Take a step on two frames, then predict one with all views, as training and infer.py do.

    native: height and width of the frames.
    """
    config, device = resolve_normalisation(config), pick_device()
    source, ids = Noise(native), ["1", "2"]
    torch.manual_seed(config.seed)
    network = to_device(build_model(config.model, config.data), device)
    parameters = sum(one.numel() for one in network.parameters())
    if parameters > LARGE:
        config = override_config(config, ["compute.checkpointing=true"])
    frames = TrainingSet(source, ids, config, fold=0)
    batch = collate([frames[0, index] for index in range(len(frames))])
    assert tuple(batch["image"].shape[1:3]) == config.training_size
    loss, seconds = _step(network, config, training_inputs(batch, config.data, device), device)
    weights = {n: w for n, w in network.state_dict().items() if not n.startswith("auxiliary_head.")}
    trained = load_network(config.model, config.data, weights)
    predictor = Predictor([Ensemble([trained], config, device, tta=True)])
    (prediction,) = predictor.predict(source, ids[:1])
    return Attempt(parameters, seconds, loss, prediction.mask)


def _step(
    network: MultiTaskNet, config: Config, batch: dict[str, object], device: torch.device
) -> tuple[float, float]:
    step = TrainingStep(network.train(), config.train, config.compute, device)
    started = time.perf_counter()
    loss = float(step(batch)[0])
    return loss, time.perf_counter() - started


def report(path: Path) -> str | None:
    """Print a line about a configuration; returns what is wrong with its answer."""
    tried = attempt(load_config(path, SETTINGS))
    gpu = torch.cuda.is_available()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    memory = torch.cuda.max_memory_allocated() / 1e9 if gpu else memory
    print(
        f"{path.stem:16}{tried.parameters / 1e6:6.1f} M{tried.seconds:8.1f} s{memory:6.1f} GB"
        f"{tried.loss:8.3f}  {'x'.join(map(str, tried.mask.shape))}",
        flush=True,
    )
    return tried.fault


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("configs", nargs="*", type=Path, help="default: all of configs/")
    parser.add_argument("--one", action="store_true", help="in this process")
    options = parser.parse_args()
    paths = options.configs or sorted((PROJECT / "configs").glob("*.yaml"))
    if options.one:
        sys.exit(report(paths[0]))
    print("configuration   network     step  memory    loss  mask", flush=True)
    failed = []
    for path in paths:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(path)]
        if subprocess.run(command).returncode:
            failed.append(path.stem)
            print(f"{path.stem}: failed", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
