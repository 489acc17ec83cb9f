"""Experiments that differ in the split alone: how optimistic the leaky one is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nyuseg.config.loading import is_free
from nyuseg.evaluation.bootstrap import LEVEL, Estimate, difference
from nyuseg.evaluation.leaderboard import score_submission
from nyuseg.evaluation.metrics import mean_iou
from nyuseg.evaluation.oof import image_confusions
from nyuseg.experiment import Experiment, flatten, open_experiment
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json

Pair = tuple[Experiment, Experiment]
VIEWS = ("_tta", "")


@dataclass(frozen=True)
class Twins:
    """Scores of an experiment by scene and of its twin at random; hidden: None where unknown."""

    names: tuple[str, str]
    miou: tuple[float, float]
    optimism: Estimate
    hidden: tuple[float | None, float | None]


def find_twins(oof: Path, root: Path | None = None) -> list[Pair]:
    """Pooled experiments below `oof` of the same configuration and data, by scene and at random.

    One whose scenes are unknown has no fold that could be believed, and is nobody's twin. One that
    cannot be opened is named and left out. root: where the data is now, when it moved.
    """
    found = list(_pooled(oof, root))
    honest = [e for e in found if e.config.folds.group == "scene" and e.notice is None]
    leaky = [e for e in found if e.config.folds.group == "random"]
    return [pair for pair in product(honest, leaky) if _essence(pair[0]) == _essence(pair[1])]


def _pooled(oof: Path, root: Path | None) -> Iterator[Experiment]:
    for path in sorted(oof.glob("*/cv.json")):
        try:
            experiment = open_experiment(path.parent.name, oof, root=root)
        except UserError as error:
            print(f"left out: {error}")
            continue
        # A run that --fresh moved aside lies in a folder of another name; a blend has no split.
        if experiment.config.name == experiment.folder.name and not experiment.members:
            yield experiment


def _essence(experiment: Experiment) -> tuple[dict[str, Any], str]:
    """All that twins share: the configuration without name and split, and the data."""
    values = flatten(experiment.config.model_dump())
    kept = {k: v for k, v in values.items() if not is_free(k) and k not in ("name", "folds.group")}
    return kept, read_json(experiment.folder / "experiment.json", ("data",))["data"]


def compare(pair: Pair, submissions: Path, labels: Path | None) -> Twins:
    """Pooled scores of twins and their paired difference over scenes: random minus scene.

    With a folder of hidden labels also the scores of their submissions: of those with TTA or, when
    not both are there, of those without. Raises UserError for a file that is missing or broken.
    """
    honest, leaky = pair
    ids = leaky.table["image_id"].tolist()
    order = [ids.index(image_id) for image_id in honest.table["image_id"]]
    scene, random = image_confusions(honest), image_confusions(leaky)[order]
    return Twins(
        (honest.config.name, leaky.config.name),
        (float(mean_iou(scene.sum(0))), float(mean_iou(random.sum(0)))),
        difference(random, scene, honest.table["scene"].tolist()),
        _hidden(honest.config.name, leaky.config.name, submissions, labels),
    )


def _hidden(
    honest: str, leaky: str, submissions: Path, labels: Path | None
) -> tuple[float | None, float | None]:
    for views in VIEWS if labels else ():
        folders = [submissions / f"{name}{views}" for name in (honest, leaky)]
        if all(folder.exists() for folder in folders):
            first, second = (score_submission(folder, labels)["miou"] for folder in folders)
            return first, second
    return None, None


def twin_table(rows: Sequence[Twins]) -> str:
    """A row for each pair: out-of-fold scores, optimism with its interval, hidden scores."""
    width = max(len(name) for row in rows for name in row.names) + 2
    split = f"{'':{2 * width}}{'out-of-fold mIoU':>18}{'':30}{'hidden mIoU':>18}"
    interval = f"{LEVEL:.0%} interval"
    lines = [
        "The same experiment, folds by scene and at random (optimism: random minus scene):",
        split.rstrip(),
        f"{'by scene':{width}}{'at random':{width}}{'scene':>9}{'random':>9}{'optimism':>11}"
        f"{interval:>19}{'scene':>9}{'random':>9}",
    ]
    for row in rows:
        gain = row.optimism
        span = f"{gain.low:+.4f} .. {gain.high:+.4f}"
        lines.append(
            f"{row.names[0]:{width}}{row.names[1]:{width}}{row.miou[0]:>9.4f}{row.miou[1]:>9.4f}"
            f"{gain.value:>+11.4f}{span:>19}{_number(row.hidden[0]):>9}{_number(row.hidden[1]):>9}"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
