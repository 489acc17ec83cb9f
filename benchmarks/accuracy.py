"""What speed costs in accuracy: the predict path against slow references, on trained weights.

Each training frame is predicted, with its flipped view, by the fold that did not train on it; each
test frame by all folds (without labels: only the masks are compared). Three ways:

  fast   the Predictor, as validation, out-of-fold prediction, infer.py and the kernel use it
  exact  float32, every layer as it was trained, one frame and one view at a time
  full   as exact, but averaging at the frame's full resolution instead of the decoder's grid

example:
  python benchmarks/accuracy.py demo
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.data.classes import NUM_CLASSES
from nyuseg.data.frames import FrameFolder, frame_path, list_ids, read_label
from nyuseg.dataloading.dataset import Source
from nyuseg.dataloading.inputs import Sample, network_images
from nyuseg.evaluation.metrics import confusion_matrix, summarize
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.experiment.training_data import training_frames
from nyuseg.inference.grid import from_grid, to_mask
from nyuseg.inference.loading import load_predictor
from nyuseg.models.atrous import AtrousDepthwise
from nyuseg.models.device import autocast_dtype, pick_devices
from nyuseg.models.network import build_model
from nyuseg.utils.files import find

WAYS = ("fast", "exact", "full")
Masks = dict[str, np.ndarray]


def reference(experiment: Experiment, fold: int) -> nn.Module:
    """A fold's network as it was trained: BatchNorm in its place, the library's convolutions."""
    config = experiment.config
    model = build_model(config.model, config.data, pretrained=False).eval()
    model.load_state_dict(load_file(experiment.fold_files(fold).weights))
    fast: list[nn.Module] = [m for m in model.modules() if isinstance(m, AtrousDepthwise)]
    for module in fast:
        module.__class__ = nn.Conv2d
    return model


@torch.inference_mode()
def slow_masks(models: list[nn.Module], experiment: Experiment, batch: Sample) -> Masks:
    """The masks of a batch of one frame by the two references."""
    data, native = experiment.config.data, tuple(batch["size"][0])
    image = network_images(batch, data, torch.device("cpu"))
    grids, planes = [], []
    for model in models:
        for flipped in (False, True):
            logits = model(image.flip(-1) if flipped else image)["logits"][0]
            logits = logits.flip(-1) if flipped else logits
            grids.append(logits.softmax(0))
            planes.append(from_grid(logits, native, data.size).softmax(0))
    exact = to_mask(torch.stack(grids).mean(0), native, data.size)
    return {"exact": exact, "full": torch.stack(planes).mean(0).argmax(0).numpy()}


def predict(
    experiment: Experiment, folds: list[int], source: Source, ids: list[str]
) -> Iterator[Masks]:
    """The masks of each frame in all ways."""
    fast, _ = load_predictor(experiment, folds, pick_devices(), tta=True)
    slow = [reference(experiment, fold) for fold in folds]
    for prediction in fast.predict(source, ids):
        batch = fast.read(source, [prediction.id])
        yield {"fast": prediction.mask, **slow_masks(slow, experiment, batch)}


class Comparison:
    """Shares of equal pixels and, where there are labels, the mIoU of each way."""

    def __init__(self) -> None:
        self.pixels, self.equal = 0, {"fast": 0, "full": 0}
        self.confusion = {way: np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64) for way in WAYS}

    def add(self, masks: Masks, label: np.ndarray | None = None) -> None:
        self.pixels += masks["exact"].size
        for way in self.equal:
            self.equal[way] += int((masks[way] == masks["exact"]).sum())
        if label is not None:
            for way in WAYS:
                self.confusion[way] += confusion_matrix(label, masks[way])

    def result(self, labelled: bool) -> dict[str, dict[str, float]]:
        shares = {f"{way} = exact": count / self.pixels for way, count in self.equal.items()}
        if not labelled:
            return {"equal pixels": shares}
        scores = {way: float(summarize(self.confusion[way])["miou"]) for way in WAYS}
        return {"equal pixels": shares, "mIoU": scores}


def compare(experiment: Experiment) -> dict[str, dict[str, dict[str, float]]]:
    """Both parts; the first one has labels."""
    folds = list(range(experiment.config.folds.count))
    held_out, test = Comparison(), Comparison()
    source = training_frames(experiment)
    for fold in folds:
        ids = experiment.ids(fold, held_out=True)
        for image_id, masks in zip(ids, predict(experiment, [fold], source, ids), strict=True):
            path = frame_path(experiment.input, "train", "label", image_id)
            held_out.add(masks, read_label(path))
    ids = list_ids(experiment.input, "test")
    source = FrameFolder(experiment.input, "test")
    for masks in predict(experiment, folds, source, ids):
        test.add(masks)
    return {
        f"held-out training frames, one fold + flip ({held_out.pixels} pixels)": held_out.result(
            labelled=True
        ),
        f"test frames, {len(folds)} folds + flip ({test.pixels} pixels)": test.result(
            labelled=False
        ),
    }


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("experiment", help="a trained one: its name below --oof")
    parser.add_argument("--oof", metavar="DIR", default="oof")
    options = parser.parse_args()
    experiment = open_experiment(options.experiment, find(options.oof))
    dtype = autocast_dtype(torch.device("cpu"), experiment.config.compute.precision)
    print(f"{options.experiment}: fast is in {str(dtype).removeprefix('torch.')}")
    print(json.dumps(compare(experiment), indent=2))


if __name__ == "__main__":
    main()
