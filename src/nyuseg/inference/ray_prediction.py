"""Test frames shared out over a Ray cluster: the masks are those of one process."""

import uuid
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nyuseg.data.fold_names import Fold
from nyuseg.data.frames import FrameFolder
from nyuseg.experiment.folder import Experiment
from nyuseg.inference.loading import load_predictor
from nyuseg.inference.predictor import Predictor, images_at_once
from nyuseg.models.device import pick_devices
from nyuseg.utils.ray_cluster import alive, join_cluster, require_seen, share_of
from nyuseg.utils.signals import stop_if_asked

LOOK_S = 1.0
PARTS = 4  # Of each node, or GPU: a faster one takes more of them.


@dataclass(frozen=True)
class Masked:
    """A frame's id and its mask, uint8 [H,W], 0..12."""

    id: str
    mask: np.ndarray


def predict_on_ray(
    address: str,
    experiment: Experiment,
    folds: Sequence[Fold],
    tta: bool,
    source: FrameFolder,
    ids: Sequence[str],
) -> Generator[Masked]:
    """The masks of frames in the order of their ids, from wherever a cluster has room.

    Each task has a GPU or a node to itself; one whose node dies is run again. Some wait for the
    caller, so that memory does not depend on the number of frames. Raises UserError for a node that
    does not see the frames or the experiment, or as load_predictor.
    """
    ray = join_cluster(address)
    nodes = alive(ray)
    share = share_of(ray, len(nodes))
    require_seen(ray, share, [source.root], experiment.folder.parent)
    slots = sum(share.fits(node) for node in nodes)
    views = len(experiment.config.tta.views) if tta else 1
    batch = images_at_once(experiment.config, views, on_gpu=share.gpus > 0)
    task = ray.remote(**share.options)(predict_on_node)
    networks = ray.put((uuid.uuid4().hex, experiment, list(folds), tta))
    waiting, running = deque(_parts(ids, slots * PARTS, batch)), deque[Any]()
    try:
        while waiting or running:
            while waiting and len(running) < 2 * slots:
                running.append(task.remote(networks, source, waiting.popleft()))
            while not ray.wait([running[0]], timeout=LOOK_S)[0]:
                stop_if_asked()
            yield from ray.get(running.popleft())
    finally:
        for one in running:
            ray.cancel(one, force=True)


def _parts(ids: Sequence[str], count: int, batch: int) -> list[list[str]]:
    """Ids in about so many parts, of whole batches, so that each is predicted beside the same."""
    size = max(1, round(len(ids) / count / batch)) * batch
    return [list(ids[first : first + size]) for first in range(0, len(ids), size)]


_loaded: dict[str, Predictor] = {}


def predict_on_node(
    networks: tuple[str, Experiment, list[Fold], bool], source: FrameFolder, ids: list[str]
) -> list[Masked]:
    """A task of a cluster: the masks of frames.

    networks: a key by which this process keeps them for its next task, and what load_predictor
    takes.
    """
    key, experiment, folds, tta = networks
    if key not in _loaded:
        _loaded.clear()
        _loaded[key], _ = load_predictor(experiment, folds, pick_devices(), tta)
    found = _loaded[key].predict(source, ids, masks=True)
    return [Masked(prediction.id, prediction.mask) for prediction in found]
