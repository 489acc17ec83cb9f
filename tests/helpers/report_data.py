"""Small experiments whose rooms have hostile names, for reports."""

from pathlib import Path

import numpy as np
from tiny_data import write_tiny_folder

import train_folds
from nyuseg.data.frames import png_path, write_png
from nyuseg.utils.files import PROJECT

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script>"
SCENES = ["a", "a", "b", "b", HOSTILE, HOSTILE, "c", "d"]
SIZE = (96, 128)


def train(root: Path, oof: Path, name: str, *changes: str) -> None:
    settings = ["model.encoder=tu-test_resnet", "data.size=[64,96]", "train.batch_size=2"]
    settings += ["train.epochs=2", "folds.count=2", "compute.precision=fp32", f"name={name}"]
    train_folds.main(
        ["--fold", "all", "--config", str(PROJECT / "configs/demo.yaml")]
        + ["--input", str(root), "--oof", str(oof)]
        + [f"--set={text}" for text in (*settings, *changes)]
    )


def write_blocks(root: Path) -> None:
    """Labels of large regions, so that there is an inside and a boundary."""
    random = np.random.default_rng(5)
    ids = write_tiny_folder(root, [SIZE] * len(SCENES), test=[SIZE, (48, 128), SIZE])
    rows = [
        f'{i},"{s.replace(chr(34), 2 * chr(34))}",x\n' for i, s in zip(ids, SCENES, strict=True)
    ]
    (root / "scenes.csv").write_text("image_id,scene,scene_type\n" + "".join(rows))
    for image_id in ids:
        label = random.integers(0, 13, (3, 4), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
        label[40:50, 60:90] = 255
        write_png(png_path(root, "train", "label", image_id), label)
