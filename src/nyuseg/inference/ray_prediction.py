"""Test frames shared out over a Ray cluster: the masks are those of one process."""

import uuid
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nyuseg.data.fold_names import Fold
from nyuseg.data.frames import FrameFolder
from nyuseg.experiment.folder import Experiment
from nyuseg.inference.loading import load_predictor
from nyuseg.inference.predictor import Predictor, images_at_once
from nyuseg.models.device import environment, pick_devices
from nyuseg.utils.errors import UserError, first_line
from nyuseg.utils.ray_cluster import (
    LOOK_S,
    Share,
    alive,
    join_cluster,
    require_seen,
    share_of,
)
from nyuseg.utils.signals import stop_if_asked

# Of each node: a faster one takes more of them. A GPU's task is a process of its own, which loads
# all networks, so that there is one for each GPU.
PARTS = 4
MOST = 64  # Images of a part on a processor, whose masks are held at once.


@dataclass(frozen=True)
class Masked:
    """A frame's id and its mask, uint8 [H,W], 0..12."""

    id: str
    mask: np.ndarray


@dataclass(frozen=True)
class TaskResult:
    """What a task has found: masks, the hashes of its weights, and device.environment there."""

    masks: list[Masked]
    hashes: dict[str, Any]
    environment: dict[str, Any]


@dataclass
class OnRay:
    """Networks that predict on a cluster, with or without TTA; environment: of where they did."""

    address: str
    experiment: Experiment
    folds: Sequence[Fold]
    tta: bool
    environment: dict[str, Any] = field(default_factory=dict)

    def predict(
        self, hashes: dict[str, Any], source: FrameFolder, ids: Sequence[str]
    ) -> Generator[Masked]:
        """The masks of frames in the order of their ids, from wherever the cluster has room.

        hashes: of the weights, as load_predictor gives them. Each task has a GPU or a share of a
        node to itself; one whose node dies is run again. Raises UserError for a node that does not
        see the frames or the experiment, or sees others.
        """
        ray = join_cluster(self.address)
        nodes = alive(ray)
        share = share_of(ray, sum(node["Resources"].get("CPU", 0) >= 1 for node in nodes) or 1)
        experiment, source = _absolute(self.experiment), FrameFolder(source.root.resolve(), "test")
        folders = [part.experiment.folder for part in experiment.parts]
        require_seen(ray, share, [source.root, *folders])
        parts = self._parts(ids, share, sum(map(share.fits, nodes)))
        print(f"{len(ids)} images in {len(parts)} parts on {len(nodes)} node(s)", flush=True)
        networks = (uuid.uuid4().hex, experiment, list(self.folds), self.tta)
        for answer in _answers(ray, share, networks, source, parts):
            if answer.hashes != hashes:
                raise UserError(
                    f"--ray: a node sees other weights at {experiment.folder}; put it on a disk "
                    "that all nodes mount"
                )
            self.environment = answer.environment
            yield from answer.masks

    def _parts(self, ids: Sequence[str], share: Share, slots: int) -> list[list[str]]:
        """Ids in parts of whole batches, so that most are predicted beside the same."""
        views = len(self.experiment.config.tta.views) if self.tta else 1
        batch = images_at_once(self.experiment.config, views, on_gpu=share.gpus > 0)
        size = -(-len(ids) // slots) if share.gpus else min(MOST, len(ids) // (slots * PARTS))
        size = max(1, -(-size // batch)) * batch
        return [list(ids[first : first + size]) for first in range(0, len(ids), size)]


def _absolute(experiment: Experiment) -> Experiment:
    """An experiment whose folders have the same names in any working directory."""
    members = tuple(
        replace(part, experiment=_absolute(part.experiment)) for part in experiment.members
    )
    return replace(experiment, folder=experiment.folder.resolve(), members=members)


def _answers(
    ray: Any, share: Share, networks: tuple[Any, ...], source: FrameFolder, parts: list[list[str]]
) -> Generator[TaskResult]:
    """The tasks' answers in the order of the parts; some wait for the caller, and not all."""
    task = ray.remote(**share.options)(predict_on_node)
    known = ray.put(networks)
    window = 2 * sum(map(share.fits, alive(ray)))
    waiting, running = deque(parts), deque[Any]()
    try:
        while waiting or running:
            while waiting and len(running) < window:
                running.append(task.remote(known, source, waiting.popleft()))
            while not ray.wait([running[0]], timeout=LOOK_S)[0]:
                stop_if_asked()
            yield ray.get(running.popleft())
    except UserError:  # Also a task's, which is an error of Ray's as well.
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"--ray: {first_line(error)}") from None
    finally:
        for one in running if ray.is_initialized() else ():
            ray.cancel(one, force=True)


_loaded: dict[str, tuple[Predictor, dict[str, Any]]] = {}


def predict_on_node(
    networks: tuple[str, Experiment, list[Fold], bool], source: FrameFolder, ids: list[str]
) -> TaskResult:
    """A task of a cluster: the masks of frames.

    networks: a key by which this process, if it has no GPU, keeps them for its next task, and what
    load_predictor takes.
    """
    key, experiment, folds, tta = networks
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_predictor(experiment, folds, pick_devices(), tta)
    predictor, hashes = _loaded[key]
    found = predictor.predict(source, ids, masks=True)
    masks = [Masked(prediction.id, prediction.mask) for prediction in found]
    here = environment(predictor.devices[0], experiment.config.compute.precision)
    return TaskResult(masks, hashes, here)
