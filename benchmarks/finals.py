"""Recipes against each other over five folds, on as many machines and evenings as it takes.

Trains every recipe on a fold, side by side with one thread each, before it goes on to the next.
What a run scored, room by room, is kept as a small file in benchmarks/nyuv2_small/finals, to be
committed, and not trained again on such a machine. Two processors round differently, and the same
seed may score .015 apart on them: so a fold only counts where one machine has trained all the
recipes. CPU seconds grow with what runs beside: compare those of recipes that ran together.

Names are those of files in configs/; the first is what the others are compared with.

examples:
  python benchmarks/finals.py run --work DIR --input NYUV2 --set model.encoder_weights=FILE \\
      nyuv2_small nyuv2_small_best
  python benchmarks/finals.py run --work DIR --input NYUV2 --fold 3 nyuv2_small nyuv2_small_best
  python benchmarks/finals.py table nyuv2_small nyuv2_small_best
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ladder import call, machine, read_npz

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.config.loading import load_config
from nyuseg.config.schema import Config
from nyuseg.evaluation.bootstrap import difference
from nyuseg.evaluation.metrics import mean_iou
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.models.normalisation import resolve_normalisation
from nyuseg.utils.arrays import write_npz
from nyuseg.utils.files import find

CONFIGS, FOLDS = PROJECT / "configs", 5
KEPT = PROJECT / "benchmarks/nyuv2_small/finals"
KINDS = ("last", "ema")
# Where the weights and the data lie does not belong to a recipe, nor how it is computed.
ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("name", "compute", "tta", "submission"), True),
    "model": {"encoder_weights"},
}


@dataclass(frozen=True)
class Score:
    """What a recipe scored on a fold.

    kinds: int64 [rooms,13,13], in the order of `rooms`, for each of KINDS that it has. recipe:
    recipe_text of what was trained. machine: see ladder.machine.
    """

    rooms: list[str]
    kinds: dict[str, np.ndarray]
    seconds: float
    machine: str
    recipe: str


Scores = dict[tuple[str, int, str], Score]  # By recipe, fold and machine.


def recipe_text(config: Config) -> str:
    """What a configuration trains, apart from ELSEWHERE and from what is as usual."""
    changed = config.model_dump(mode="json", exclude=ELSEWHERE, exclude_defaults=True)
    return json.dumps({**changed, "random": config.model.encoder_weights is None}, sort_keys=True)


def recipe_of(name: str) -> str:
    """The recipe_text of a file of configs/."""
    return recipe_text(resolve_normalisation(load_config(CONFIGS / f"{name}.yaml")))


def require_recipes(names: Sequence[str], changes: Sequence[str]) -> None:
    """Raises SystemExit when changes would train something else than the files say, and for a
    recipe that predicts with an epoch which was chosen by the score."""
    for name in names:
        config = load_config(CONFIGS / f"{name}.yaml", changes)
        if config.predict.checkpoint not in KINDS:
            given, expected = config.predict.checkpoint, " or ".join(KINDS)
            raise SystemExit(f"{name}: predict.checkpoint={given}: expected {expected}")
        if recipe_text(resolve_normalisation(config)) != recipe_of(name) or config.name != name:
            said = " ".join(changes) or f"name={config.name}"
            raise SystemExit(f"--set {said}: {name} is then another recipe; write a file for it")


def require_machine(work: Path) -> None:
    """Raises SystemExit when a machine that rounds otherwise has begun what lies in the folder."""
    note = work / "machine.txt"
    if note.exists() and note.read_text() != machine():
        raise SystemExit(f"{work}: begun on {note.read_text()}; give another --work")
    work.mkdir(parents=True, exist_ok=True)
    note.write_text(machine())


def read_score(experiment: Experiment, fold: int, seconds: float) -> Score:
    """The score of a finished fold, summed over the images of each room."""
    rows = experiment.table[experiment.table["fold"] == fold]
    codes, rooms = pd.factorize(rows["scene"])
    found = read_npz(experiment.fold_files(fold).checkpoint_scores)
    kinds = {k: np.zeros((len(rooms), 13, 13), np.int64) for k in KINDS if k in found}
    for kind, sums in kinds.items():
        np.add.at(sums, codes, found[kind])
    return Score(list(rooms), kinds, seconds, machine(), recipe_text(experiment.config))


def keep(name: str, fold: int, score: Score) -> None:
    """Write the score of a recipe on a fold into KEPT, in place of one of the same machine."""
    facts = {"rooms": score.rooms, "cpu_seconds": score.seconds, "name": name, "fold": fold}
    facts |= {"machine": score.machine, "recipe": score.recipe}
    own = hashlib.sha256(f"{score.machine} {score.recipe}".encode()).hexdigest()[:8]
    KEPT.mkdir(parents=True, exist_ok=True)
    new = {key: np.array(value) for key, value in facts.items()} | score.kinds
    write_npz(KEPT / f"{name}_f{fold}_{own}.npz", new)


def read_kept(names: Sequence[str]) -> Scores:
    """The scores in KEPT of what these files of configs/ say today."""
    recipes = {name: recipe_of(name) for name in names}
    found = {}
    for path in sorted(KEPT.glob("*.npz")):
        own = read_npz(path)
        name, fold, where = str(own["name"]), int(own["fold"]), str(own["machine"])
        if str(own["recipe"]) == recipes.get(name):
            kinds = {kind: own[kind] for kind in KINDS if kind in own}
            seconds, rooms = float(own["cpu_seconds"]), own["rooms"].tolist()
            found[name, fold, where] = Score(rooms, kinds, seconds, where, recipes[name])
    return found


def paired(scores: Scores, names: Sequence[str]) -> dict[int, str]:
    """A machine that has trained all the recipes, for each fold for which there is one."""
    found = {}
    for fold in range(FOLDS):
        of_each = ({w for n, k, w in scores if (n, k) == (name, fold)} for name in names)
        for where in sorted(set.intersection(*of_each))[:1]:
            found[fold] = where
    return found


def train(name: str, fold: int, options: argparse.Namespace) -> None:
    """Train a recipe on a fold and keep its score; exits, naming its log, if that fails."""
    oof, log = options.work / "oof", options.work / f"{name}_f{fold}.log"
    spent = options.work / "cpu" / f"{name}_f{fold}.json"
    if not (oof / name / f"fold_{fold}").exists():  # It was another recipe's of this name.
        spent.unlink(missing_ok=True)
    command = [sys.executable, str(PROJECT / "src/train_folds.py"), "--fold", str(fold)]
    command += ["--config", str(CONFIGS / f"{name}.yaml"), "--input", str(find(options.input))]
    command += ["--oof", str(oof), *(part for text in options.set for part in ("--set", text))]
    seconds = call(command, log, spent)
    keep(name, fold, read_score(open_experiment(name, oof), fold, seconds))
    print(f"{name}, fold {fold}: {seconds:.0f} s", flush=True)


def table(scores: Scores, names: Sequence[str]) -> pd.DataFrame:
    """A row for each recipe: its score by fold and pooled over the folds that count, with what it
    predicts with, and by how much it exceeds the first, with an interval over rooms.

    Raises SystemExit when no fold counts.
    """
    folds = paired(scores, names)
    if not folds:
        raise SystemExit(f"{KEPT}: no fold on which one machine trained {' and '.join(names)}")
    rooms = [room for k, where in folds.items() for room in scores[names[0], k, where].rooms]
    pooled, rows = {}, []
    for name in names:
        kind = load_config(CONFIGS / f"{name}.yaml").predict.checkpoint
        own = {fold: scores[name, fold, where] for fold, where in folds.items()}
        pooled[name] = np.concatenate([score.kinds[kind] for score in own.values()])
        over = difference(pooled[name], pooled[names[0]], rooms)
        rows.append(
            {"recipe": name, "checkpoint": kind}
            | {f"fold {k}": float(mean_iou(one.kinds[kind].sum(0))) for k, one in own.items()}
            | {"pooled": float(mean_iou(pooled[name].sum(0)))}
            | {"difference": over.value, "from": over.low, "to": over.high}
            | {"cpu_seconds": round(sum(score.seconds for score in own.values()))}
        )
    return pd.DataFrame(rows)


def run(options: argparse.Namespace) -> None:
    """Train what such a machine has not trained yet, fold by fold."""
    require_recipes(options.recipe, options.set)
    require_machine(options.work)
    for fold in options.fold or range(FOLDS):
        kept = read_kept(options.recipe)
        todo = [name for name in options.recipe if (name, fold, machine()) not in kept]
        with ThreadPoolExecutor(len(options.recipe)) as side_by_side:
            list(side_by_side.map(lambda name, fold=fold: train(name, fold, options), todo))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("recipe", nargs="+", help="files of configs/; the first is the base")
    parser.add_argument("--work", type=Path, help="folder for what is trained")
    parser.add_argument("--input", default=str(PROJECT / "input"), metavar="DIR")
    parser.add_argument("--fold", type=int, action="append", choices=range(FOLDS))
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        help="KEY=VALUE: where the weights are, how to compute",
    )
    options = parser.parse_args()
    if options.what == "run":
        if not options.work:
            parser.error("run: give --work, a folder for what is trained")
        run(options)
    found = table(read_kept(options.recipe), options.recipe)
    print(found.to_string(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
