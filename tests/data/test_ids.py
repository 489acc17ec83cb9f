"""Ids as hosts write them - blanks, umlauts, quotes, twins - from the data to the submission."""

import csv
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import blend
import infer
import package_kernel
import prepare_data
import score
import train_folds
from nyuseg.data.folds import read_folds, read_scenes, write_folds
from nyuseg.data.frames import list_ids, read_label
from nyuseg.data.integrity import full_check
from nyuseg.demo.data import write_demo
from nyuseg.experiment.folder import open_experiment
from nyuseg.inference.grid import to_mask
from nyuseg.kaggle.kernel import run
from nyuseg.submission.formats import read_masks
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, file_names, read_json, require_id

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "küche") for form in ("NFC", "NFD"))
HOSTILE = [
    *(COMPOSED, DECOMPOSED, "IMG_01", "img_01", "-x", "+@()=1", 'say "hi", you', " a  b "),
    *("x" * 240, "007"),
]
HOSTILE_TEST = ["日本 1", "nan", f"{COMPOSED},1", f"{DECOMPOSED},1", "A_3", "a_3", "1.50", "'#%&;$"]


@pytest.mark.parametrize("name", [*HOSTILE, *HOSTILE_TEST, "a..b", "a:b", "~", "NUL", "🛋"])
def test_what_a_host_may_write_is_accepted(name: str, tmp_path: Path) -> None:
    require_id(name, "x")
    (tmp_path / f"{name}.png").touch()


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "/x", "a/b", "a\\b", ".x", "a\0b", "a\nb", "a\rb", "a\x1bb"),
        *("a\u2028b", "a\udcffb"),
    ],
)
def test_what_leaves_a_folder_or_breaks_a_line_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be the id of an image") as error:
        require_id(name, "scenes.csv")
    assert str(error.value).isprintable()


def test_file_names_differ_on_every_file_system() -> None:
    ids = [
        *HOSTILE,
        *HOSTILE_TEST,
        "b.c",
        "B-D",
        "x" * 239,
        "Ä",
        "ä",
        "a b",
        "a_b",
        "a  b",
        "ſ",
        "s",
    ]
    names = file_names(ids)
    assert [i for i in ids if names[i] == i] == ["007", "nan", "1.50", "b.c", "B-D", "a_b", "s"]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names.values()}) == len(
        ids
    )
    for name in names.values():
        assert name.isascii() and len(name) < 130 and "/" not in name and name[0] not in "-."
    # The name of an id does not depend on the ids beside it, but for its own twin.
    assert file_names(["a b", "IMG_01"]) == {"a b": names["a b"], "IMG_01": "IMG_01"}


def test_tables_keep_ids_and_scenes_as_they_are(tmp_path: Path) -> None:
    with (tmp_path / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(image_id, f"room {image_id}", "00") for image_id in HOSTILE]
        csv.writer(file).writerows([("image_id", "scene", "scene_type"), *rows])
    table = read_scenes(tmp_path, HOSTILE)
    assert table.to_numpy().tolist() == [list(row) for row in rows]
    table["fold"] = [n % 2 for n in range(len(HOSTILE))]
    write_folds(tmp_path / "folds.csv", table)
    assert read_folds(tmp_path / "folds.csv")["image_id"].tolist() == HOSTILE


def rename(root: Path) -> dict[str, str]:
    """Give the frames of a demo folder hostile ids; returns the new id of each old one."""
    old = [*list_ids(root, "train"), *list_ids(root, "test")]
    new_of = dict(zip(old, [*HOSTILE, *HOSTILE_TEST], strict=True))
    for path in sorted(root.glob("*/**/*.png")):
        path.rename(path.with_name(f"{new_of[path.stem]}.png"))
    with (root / "scenes.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (root / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([new_of[row[0]], *row[1:]] for row in rows)])
    return new_of


def test_check_names_an_id_that_cannot_be(tiny_folder, tmp_path: Path, capsys) -> None:
    tiny_folder(tmp_path, [(8, 8), (8, 9)])
    for number, name in ((1, "a\nb.png"), (2, os.fsdecode(b"\xff.png"))):
        for kind in ("image", "depth", "label"):
            path = tmp_path / "train" / kind / f"90000{number}.png"
            path.rename(path.with_name(name))
    with pytest.raises(UserError, match="2 faults"):
        prepare_data.main(["check", "--input", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    shown = [r"a\nb.png: 'a\nb' cannot be the id", r"\udcff.png: '\udcff' cannot be the id"]
    assert all(any(part in line for line in lines) for part in shown)
    assert len([line for line in lines if line.startswith(str(tmp_path))]) == 2


@pytest.mark.slow
def test_hostile_ids_go_the_whole_way(tmp_path: Path, capsys) -> None:
    """The host's ids are in every file, each beside its own mask."""
    data, oof, out = (tmp_path / name for name in ("data", "oof", "out"))
    write_demo(data, scenes=5, frames=2, test_scenes=4, size=(48, 64), seed=1)
    rename(data)
    assert full_check(data) == []
    tiny = ("model.encoder=tu-test_resnet", "data.size=[48,64]", "train.epochs=1", "folds.count=2")
    config = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(data)]
    place = ["--oof", str(oof)]
    common = ["--fold", "all", *config, *place, *[f"--set={change}" for change in tiny]]
    train_folds.main(common)
    train_folds.main([*common, "--set=name=two", "--set=seed=1"])
    blend.main(["demo", "two", "--name", "both", *place])

    experiment = open_experiment("demo", oof)
    stored = [*experiment.fold_files(0).read_ids(), *experiment.fold_files(1).read_ids()]
    assert sorted(stored) == sorted(HOSTILE)
    names = {path.name for path in (oof / "demo/masks").iterdir()}
    assert names == {path.name for path in (oof / "both/masks").iterdir()}
    assert names == {f"{name}.png" for name in file_names(HOSTILE).values()}
    grids = np.load(oof / "demo/fold_1/oof_probs.npy")
    for image_id, grid in zip(experiment.fold_files(1).read_ids(), grids, strict=True):
        mask = to_mask(torch.from_numpy(grid.astype(np.float32)), (48, 64), (48, 64))
        # Two nearly equal classes may change places in half precision.
        assert (read_label(experiment.mask_path(image_id)) == mask).mean() > 0.99
    assert read_json(oof / "demo/cv.json")["images"] == len(HOSTILE)

    infer.main(["--experiment", "demo", *place, "--submissions", str(out)])
    sizes = dict.fromkeys(HOSTILE_TEST, (48, 64))
    files = [out / "demo" / f"submission.{kind}" for kind in ("npy", "csv", "zip")]
    one, *others = [dict(read_masks(path, sizes)) for path in files]
    for masks in others:
        assert masks.keys() == one.keys() == set(HOSTILE_TEST)
        assert all(np.array_equal(masks[image_id], one[image_id]) for image_id in one)
    with files[1].open(newline="", encoding="utf-8") as file:
        rows = [row[0] for row in csv.reader(file)][1:]
    assert rows == [f"{image_id}_{k}" for image_id in sorted(HOSTILE_TEST) for k in range(13)]
    with zipfile.ZipFile(files[2]) as archive:
        assert archive.namelist() == [f"{image_id}.png" for image_id in sorted(HOSTILE_TEST)]

    capsys.readouterr()
    score.main([*map(str, files), str(data / "test_label")])
    assert len({line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]}) == 1

    to = ["--owner", "alice", "--experiment", "demo", "--output", str(tmp_path / "kernel")]
    package_kernel.main([*to, *place, "--precision", "fp32", "--no-tta"])
    package = tmp_path / "kernel/dataset"
    found = read_json(package / "manifest.json")["fingerprint"]
    manifest = run(package, found, data, tmp_path / "kernel", 8)
    assert manifest.files == read_json(out / "demo/manifest.json")["files"]
