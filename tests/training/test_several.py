"""Several experiments of one command: their folds train as if each had been given alone."""

import shutil
from pathlib import Path

import pytest

import train_folds
from nyuseg.config.loading import load_configs
from nyuseg.data.fold_names import parse_folds, parse_seeds
from nyuseg.experiment.folder import open_experiment
from nyuseg.training import pipeline
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

DEMO, FPN = PROJECT / "configs/demo.yaml", PROJECT / "configs/demo_fpn.yaml"
SETTINGS = ["model.encoder=tu-test_resnet", "data.size=[32,64]", "train.batch_size=2"]
SETTINGS += ["train.epochs=1", "folds.count=2", "compute.precision=fp32"]


@pytest.mark.slow
def test_seeds_are_experiments_with_the_files_of_each_alone(
    tiny_folder, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny_folder(tmp_path / "data", [(32, 48)] * 6, list("aabbcd"))

    def train(oof: str, *words: str) -> str:
        sets = [f"--set={text}" for text in SETTINGS]
        where = ["--input", str(tmp_path / "data"), "--oof", str(tmp_path / oof)]
        train_folds.main(["--fold", "all", "--config", str(DEMO), *where, *sets, *words])
        return capfd.readouterr().out

    printed = train("both", "--seeds", "7,3")
    assert "demo_seed3 fold 1" in printed and printed.count("Out-of-fold scores of demo_seed") == 2
    train("alone", "--set=seed=3", "--set=name=demo_seed3")
    for fold in (0, 1):
        one, other = (
            tmp_path / oof / f"demo_seed3/fold_{fold}/weights.safetensors"
            for oof in ("both", "alone")
        )
        assert one.read_bytes() == other.read_bytes()
    scores = [read_json(tmp_path / f"both/demo_seed{seed}/cv.json")["miou"] for seed in (3, 7)]
    assert scores[0] != scores[1]
    again = train("both", "--seeds", "7,3")
    assert "demo_seed7 fold 0: already finished, skipped" in again


@pytest.mark.slow
def test_what_fails_leaves_the_others_alone(tiny_folder, tmp_path: Path, capsys) -> None:
    """One after the other as side by side: a night's queue does not end with its first fault."""
    tiny_folder(tmp_path / "data", [(32, 48)] * 6, list("aabbcd"))

    def train(folds: str, *configs: Path) -> None:
        sets = [f"--set={text}" for text in SETTINGS]
        where = ["--input", str(tmp_path / "data"), "--oof", str(tmp_path / "oof")]
        train_folds.main(["--fold", folds, *where, *sets, "--config", *map(str, configs)])

    train("1", DEMO, FPN)
    demo, fpn = (open_experiment(name, tmp_path / "oof") for name in ("demo", "demo_fpn"))
    says = pytest.raises(UserError, match=r"^demo failed, 1 of 2 finished; .* the same command")
    with demo.lock(0), says:
        train("0", DEMO, FPN)
    told = capsys.readouterr().err
    assert "demo failed: " in told and "being written by" in told
    assert fpn.is_finished(0) and fpn.scores_path.exists() and not demo.is_finished(0)
    shutil.rmtree(demo.fold_files(1).folder)
    with demo.lock(0), pytest.raises(UserError, match=r"^fold 0 failed, 1 of 2 finished"):
        train("0..1", DEMO)
    assert demo.is_finished(1) and not demo.scores_path.exists()


def test_a_fresh_start_is_one_experiments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--fresh: one configuration and seed at a time"):
        pipeline.train(load_configs([DEMO], [], [1, 2]), [0], tmp_path, tmp_path, fresh=True)


def test_each_configuration_is_taken_with_each_seed() -> None:
    found = load_configs([DEMO, FPN], ["train.lr=0.5"], [5, 4])
    names = ["demo_seed5", "demo_seed4", "demo_fpn_seed5", "demo_fpn_seed4"]
    assert [config.name for config in found] == names
    assert [config.seed for config in found] == [5, 4, 5, 4]
    assert {config.train.lr for config in found} == {0.5}


def test_two_experiments_need_two_names() -> None:
    with pytest.raises(UserError, match="--config: 2 are named x; give each a name of its own"):
        load_configs([DEMO, FPN], ["name=x"])


@pytest.mark.parametrize("text", ["", "1,", "1.5", "-1", "two", "3,03"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--seeds .*: expected whole numbers after commas"):
        parse_seeds(text)
    assert parse_seeds(None) == [] and parse_seeds("7, 3") == [7, 3]


def test_folds_must_mean_the_same_in_all_configurations() -> None:
    five, three = (config.folds for config in load_configs([DEMO, FPN]))
    three = three.model_copy(update={"count": 3})
    assert parse_folds("0..2", five, three) == [0, 1, 2]
    with pytest.raises(UserError, match="--fold all: other folds in each of the configurations"):
        parse_folds("all", five, three)
