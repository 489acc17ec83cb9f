"""A Ray cluster to work on: joining it, what a task may take of it, and which paths it sees."""

import logging
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import catch_signals, stop_if_asked

LOCAL = "local"
LOOK_S = 60.0  # For a look at a path; a node that starts a process takes seconds.
SOURCE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Share:
    """What a task takes for itself of the node that it runs on."""

    gpus: int
    cpus: int

    @property
    def options(self) -> dict[str, Any]:
        """As Ray's options of a task, which is run again on another node when its own dies."""
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self.cpus))}
        return {
            "num_gpus": self.gpus,
            "num_cpus": self.cpus,
            "max_retries": 3,
            "runtime_env": {"env_vars": threads},
        }

    def fits(self, node: dict[str, Any]) -> int:
        """How many such tasks a node can run at once."""
        has = node["Resources"]
        if self.gpus:
            return int(has.get("GPU", 0)) // self.gpus
        return int(has.get("CPU", 0)) // self.cpus


def join_cluster(address: str) -> Any:
    """Ray, connected: `local` starts a cluster of this machine that ends with this process.

    Raises UserError when Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Two folds may well say the same.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "1" if sys.stdout.isatty() else "0")
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise UserError("--ray: Ray is not installed; pip install 'nyuseg[ray]', or ray") from None
    if ray.is_initialized():
        return ray
    # Where tasks find this library: a path of which require_seen says whether each node sees it.
    environment = {"env_vars": {"PYTHONPATH": str(SOURCE)}}
    known = {} if address == LOCAL else {"address": address}
    try:
        ray.init(
            **known,
            runtime_env=environment,
            include_dashboard=False if address == LOCAL else None,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--ray {address}: no cluster answers there ({reason})") from None
    stop_if_asked()
    catch_signals()  # Ray has put handlers of its own in their place.
    return ray


def alive(ray: Any) -> list[dict[str, Any]]:
    """The cluster's nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def share_of(ray: Any, tasks: int) -> Share:
    """A GPU and its part of its node's cores, for each of so many tasks; without a GPU in the
    cluster, an equal part of all cores that fits on each node. Raises UserError without either."""
    nodes = [node["Resources"] for node in alive(ray)]
    if with_gpu := [node for node in nodes if node.get("GPU", 0) >= 1]:
        return Share(1, max(1, min(int(one.get("CPU", 1) // one["GPU"]) for one in with_gpu)))
    counts = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not counts:
        raise UserError("--ray: no node of the cluster has a GPU or a CPU for tasks")
    return Share(0, max(1, min(sum(counts) // tasks, *counts)))


def require_seen(ray: Any, share: Share, folders: Sequence[Path], written: Path) -> None:
    """Raise UserError, naming the node, when one that can run such a task does not see the folders.

    written: where results go; each node must see there what is put there now, so that another
    folder of the same name will not do.
    """
    on = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy

    def unseen(paths: list[str]) -> list[str]:
        # Sent as it is: a node that does not see this library could not import it.
        return [path for path in paths if not Path(path).exists()]

    written.mkdir(parents=True, exist_ok=True)
    token = written / f".seen-{secrets.token_hex(8)}"
    token.write_text("seen")
    try:
        nodes = [node for node in alive(ray) if share.fits(node)]
        paths = [str(path.resolve()) for path in (SOURCE, *folders, token)]
        look = ray.remote(num_cpus=0)(unseen)
        asked = [
            look.options(scheduling_strategy=on(node["NodeID"], soft=False)).remote(paths)
            for node in nodes
        ]
        for node, answer in zip(nodes, asked, strict=True):
            for path in map(Path, ray.get(answer, timeout=LOOK_S)):
                raise UserError(
                    f"--ray: the node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) "
                    f"does not see {path.parent if path.name == token.name else path}; put it on a "
                    "disk that all nodes mount at this path"
                )
    finally:
        token.unlink(missing_ok=True)
