"""A licence that has to travel with weights is in the package, or there is no package."""

import dataclasses
import hashlib
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch

import infer
import package_kernel
import train_folds
from nyuseg.config.loading import parse_config
from nyuseg.demo.data import write_demo
from nyuseg.experiment.folder import Experiment, Part
from nyuseg.kaggle.kernel import load_package
from nyuseg.kaggle.kernel_check import check
from nyuseg.kaggle.licences import licence_texts
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

TEXT = "You may use it, ä, as long as this text goes along.\r\n"


@pytest.fixture
def licensed(monkeypatch: pytest.MonkeyPatch):
    """Let timm record licences of its test networks: a function of their names by the networks."""
    original = timm.get_pretrained_cfg

    def set_licences(**names: str | None) -> None:
        def found(name: str, **options: bool) -> object:
            facts = original(name, **options)
            return dataclasses.replace(facts, license=names[name]) if name in names else facts

        monkeypatch.setattr(timm, "get_pretrained_cfg", found)

    return set_licences


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny data and a fold whose encoder began with a local file of weights."""
    work = tmp_path_factory.mktemp("licences")
    write_demo(work / "data", scenes=4, frames=2, test_scenes=1, size=(48, 64), seed=1)
    torch.save(timm.create_model("test_resnet").state_dict(), work / "weights.pth")
    train(work, f"model.encoder_weights={work / 'weights.pth'}")
    return work


def train(work: Path, *more: str) -> None:
    settings = (
        *("model.encoder=tu-test_resnet", "data.size=[48,64]", "train.epochs=1"),
        *("compute.precision=fp32", "folds.count=2", "compute.workers=0", *more),
    )
    config = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / "data")]
    options = [f"--set={text}" for text in settings]
    train_folds.main(["--fold", "0", *config, "--oof", str(work / "oof"), *options])


def package(work: Path, output: Path, *more: str) -> Path:
    place = ["--oof", str(work / "oof"), "--output", str(output), "--type", "script"]
    options = ["--owner", "alice", "--experiment", "demo", "--fold", "0", "--precision", "fp32"]
    package_kernel.main([*options, *place, *more])
    return output


def test_without_its_licence_nothing_is_packaged(work: Path, tmp_path: Path, licensed) -> None:
    licensed(test_resnet="dinov3-license")
    with pytest.raises(UserError) as caught:
        package(work, tmp_path / "out")
    line = str(caught.value)
    assert line.startswith("--licence FILE: a copy of dinov3-license has to go with")
    assert "test_resnet" in line and "\n" not in line
    assert line.endswith("https://huggingface.co/timm/test_resnet.r160_in1k")
    assert not (tmp_path / "out").exists()


def test_a_copy_goes_along_and_is_part_of_the_version(work: Path, tmp_path: Path, licensed) -> None:
    licensed(test_resnet="dinov3-license")
    text = tmp_path / "LICENSE.md"
    text.write_bytes(TEXT.encode())
    out = package(work, tmp_path / "out", "--licence", str(text)) / "dataset"
    copy = out / "LICENSE-test_resnet.md"
    assert copy.read_bytes() == TEXT.encode()
    facts = read_json(out / "manifest.json")
    assert facts["files"][copy.name] == hashlib.sha256(TEXT.encode()).hexdigest()
    load_package(out, facts["fingerprint"])
    copy.unlink()
    with pytest.raises(UserError, match=r"LICENSE-test_resnet\.md: missing"):
        load_package(out, facts["fingerprint"])


@pytest.mark.parametrize("name", ["apache-2.0", None])
def test_others_need_none(work: Path, tmp_path: Path, licensed, name: str | None) -> None:
    licensed(test_resnet=name)
    out = package(work, tmp_path / "out")
    assert not list(out.rglob("LICENSE*"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"No such file"),
        (b"", r"empty; give the text"),
        (b" \n\t\n", r"empty; give the text"),
        (b"PK\x03\x04\xff\xfe", r"not a text in UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_refused(work, tmp_path, licensed, content, words) -> None:
    licensed(test_resnet="nvidia-open-model-license")
    path = tmp_path / "LICENSE"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^--licence .*LICENSE: {words}"):
        package(work, tmp_path / "out", "--licence", str(path))
    assert not (tmp_path / "out").exists()


def experiment(*encoders: str, weights: str | None = "imagenet") -> Experiment:
    """A blend of networks with these encoders, or one alone."""
    made = []
    for encoder in encoders:
        model = {"encoder": encoder, "encoder_weights": weights}
        config = parse_config({"name": "x", "model": model}, "test")
        made.append(Experiment(Path("x"), config, pd.DataFrame(), Path("data")))
    if len(made) == 1:
        return made[0]
    return dataclasses.replace(made[0], members=tuple(Part(one) for one in made))


def test_each_licence_of_a_blend_needs_its_file(tmp_path: Path, licensed) -> None:
    licensed(test_vit="dinov3-license", test_vit2="dinov3-license", test_convnext="gemma")
    blend = experiment(
        "resnet18", "tu-test_resnet", "tu-test_vit", "tu-test_convnext", "tu-test_vit2"
    )
    first, second, third = (tmp_path / name for name in ("LICENSE", "b.zip", "NOTICE.txt"))
    for path in (first, second, third):
        path.write_text(f"text of {path.name}")
    order = r"one for each of dinov3-license, gemma, in this order"
    with pytest.raises(UserError, match=rf"{order}\): a copy of dinov3-license .* test_vit's"):
        licence_texts(blend, [])
    with pytest.raises(UserError, match=r"a copy of gemma has to go .* test_convnext's"):
        licence_texts(blend, [first])
    assert licence_texts(blend, [first, second, third]) == {
        "LICENSE-test_vit.txt": b"text of LICENSE",
        "LICENSE-test_convnext.txt": b"text of b.zip",  # Kaggle would unpack a .zip.
        "LICENSE-3.txt": b"text of NOTICE.txt",
    }


def test_random_weights_need_none(licensed) -> None:
    licensed(test_vit="dinov3-license")
    assert licence_texts(experiment("tu-test_vit", weights=None), []) == {}


def test_training_tells_what_is_not_for_commercial_use(work, tmp_path, licensed, capsys) -> None:
    licensed(test_resnet="cc-by-nc-4.0")
    more = f"model.encoder_weights={work / 'weights.pth'}"
    train(work, more)  # It is finished.
    assert "warning: test_resnet: its weights are under cc-by-nc-4.0" in capsys.readouterr().out
    licensed(test_resnet="dinov3-license")
    train(work, more)
    assert "its weights are under" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_kernel_runs_with_a_licence_beside_its_weights(work, tmp_path, licensed) -> None:
    licensed(test_resnet="dinov3-license")
    text = tmp_path / "LICENSE.html"
    text.write_text(TEXT)
    out = package(work, tmp_path / "out", "--licence", str(text))
    place = ["--oof", str(work / "oof"), "--submissions", str(work / "out")]
    infer.main(["--experiment", "demo", "--fold", "0", "--tta", *place])
    expected = next((work / "out").iterdir())
    (tmp_path / "run").mkdir()
    folders = (out / "kernel", out / "dataset", work / "data/test", expected, tmp_path / "run")
    (line,) = check(*folders, ["by owner"])
    assert "100.0000%" in line
