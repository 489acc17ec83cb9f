"""predict.balance: rare classes are found more often, and the training does not know of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from release_facts import release_facts
from safetensors.torch import load_file

import train_folds
from nyuseg.config.sections import Data, Model
from nyuseg.data.frames import png_path, read_label, write_png
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.models.balance import add_offsets, balanced, class_offsets
from nyuseg.models.network import build_model
from nyuseg.models.release import open_release, release_weights
from nyuseg.training.checkpoint import load_checkpoint
from nyuseg.utils.files import PROJECT, read_json

SIZE = (32, 64)
POWER = 0.7
SETTINGS = ["model.encoder=tu-test_resnet", f"data.size={list(SIZE)}", "train.batch_size=2"]
SETTINGS += [
    "train.ema=0.5",
    "train.epochs=2",
    "folds.count=2",
    "compute.precision=fp32",
    "predict.checkpoint=ema",
]


def test_offsets_are_a_power_of_the_shares_and_0_for_what_never_occurs() -> None:
    inverse = np.ones(13)
    inverse[[2, 5, 7]] = 4, 100, 0
    found = class_offsets(inverse, 0.5)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[[0, 2, 5, 7]].exp(), [1, 2, 10, 1], rtol=1e-6)
    assert class_offsets(None, 0) is None


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fpn", "dpt"])
def test_each_probability_is_divided_by_its_classes_power(decoder: str, tmp_path: Path) -> None:
    encoder = "tu-test_vit" if decoder == "dpt" else "tu-test_resnet"
    options = Model(encoder=encoder, decoder=decoder, encoder_weights=None)
    data = Data(size=SIZE)
    torch.manual_seed(0)
    network = build_model(options, data).eval()
    shares = np.geomspace(0.5, 0.001, 13)
    offsets = class_offsets(1 / shares, POWER)
    image, files = torch.randn(2, 4, *SIZE), FoldFiles(tmp_path)
    with torch.no_grad():
        plain = network(image)
        release_weights(files, network.state_dict(), release_facts(), offsets)
        for answer in (released(files, options, data, image), inside(network, offsets, image)):
            wanted = plain["logits"].softmax(1) / torch.from_numpy(shares**POWER)[:, None, None]
            wanted = (wanted / wanted.sum(1, keepdim=True)).float()
            torch.testing.assert_close(answer["logits"].softmax(1), wanted, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(answer["depth"], plain["depth"], rtol=1e-3, atol=1e-4)


def released(files: FoldFiles, options: Model, data: Data, image: torch.Tensor) -> dict:
    return open_release(files, options, data)(image)


def inside(network: torch.nn.Module, offsets: torch.Tensor, image: torch.Tensor) -> dict:
    with balanced(network, offsets):
        return network(image)


def test_afterwards_the_weights_are_what_they_were_whatever_happened() -> None:
    network = build_model(Model(encoder="tu-test_resnet", encoder_weights=None), Data(size=SIZE))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    offsets = torch.linspace(-3, 0.1, 13)
    with pytest.raises(ValueError, match="stopped"), balanced(network, offsets):
        changed = network.state_dict()
        assert [k for k, v in before.items() if not torch.equal(v, changed[k])] == [
            "segmentation_head.bias"
        ]
        raise ValueError("stopped")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert add_offsets(before, offsets)["segmentation_head.bias"].shape == (13,)


@pytest.fixture
def skewed(tiny_folder, tmp_path: Path) -> Path:
    """A data folder in which class 3 is most of the pixels, class 1 few, and class 9 none."""
    root = tmp_path / "data"
    shares = np.array([4, 1, 8, 60, 3, 3, 3, 3, 3, 0, 4, 4, 4]) / 100
    random = np.random.default_rng(1)
    for image_id in tiny_folder(root, [(32, 48)] * 6, list("aabbcd")):
        label = random.choice(13, (32, 48), p=shares).astype(np.uint8)
        label[:4] = 255
        write_png(png_path(root, "train", "label", image_id), label)
    return root


@pytest.mark.slow
def test_it_changes_what_is_predicted_and_not_what_is_learnt(skewed: Path, tmp_path: Path) -> None:
    words = ["--fold", "all", "--config", str(PROJECT / "configs/demo.yaml")]
    words += ["--input", str(skewed), *(f"--set={text}" for text in SETTINGS)]
    for oof, power in (("plain", 0), ("balanced", POWER)):
        train_folds.main([*words, "--oof", str(tmp_path / oof), f"--set=predict.balance={power}"])
    for fold in range(2):
        folders = [tmp_path / oof / f"demo/fold_{fold}" for oof in ("plain", "balanced")]
        plain, other = (load_checkpoint(folder / "last.pt")["model"] for folder in folders)
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[name], other[name]) for name in plain)
        # Of the images that this fold trained on alone.
        counts = np.zeros(13)
        for image_id in load_checkpoint(folders[1] / "last.pt")["train_ids"]:
            label = read_label(png_path(skewed, "train", "label", image_id))[::4, ::4]
            counts += np.bincount(label[label < 13], minlength=13)
        shares = np.where(counts > 0, counts / counts.sum(), 1)
        before, after = (load_file(folder / "weights.safetensors") for folder in folders)
        moved = after["segmentation_head.bias"] - before["segmentation_head.bias"]
        np.testing.assert_allclose(moved, -POWER * np.log(shares), atol=1e-5)
        raw, found = (np.load(folder / "oof_probs.npy").astype(np.float64) for folder in folders)
        wanted = raw / shares[:, None, None] ** POWER
        wanted /= wanted.sum(1, keepdims=True)
        inside = np.s_[..., : SIZE[0] // 4, : 48 // 4]
        np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-3)
        # What was validated is what predicts.
        with np.load(folders[1] / "checkpoints.npz") as file:
            validated = file["ema"].sum(0)
        with np.load(folders[0] / "checkpoints.npz") as file:
            assert (validated != file["ema"].sum(0)).any()
        mask_shares = np.bincount(found[inside].argmax(1).ravel(), minlength=13)
        assert abs(validated.sum(0) / validated.sum() - mask_shares / mask_shares.sum()).max() < 0.1
    scores = [read_json(tmp_path / oof / "demo/cv.json") for oof in ("plain", "balanced")]
    assert scores[0]["class_iou"] != scores[1]["class_iou"]
    checked = scores[1]["checkpoints"]["ema"]["miou"]
    assert scores[1]["miou"] == pytest.approx(checked, abs=0.01)
