"""A Ray cluster to work on: joining it, what a task may take of it, and which paths it sees."""

import logging
import os
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from nyuseg.utils.errors import UserError, first_line
from nyuseg.utils.signals import catch_signals, stop_if_asked

LOOK_S = 1.0
ANSWER_S = 120.0  # For a look at a path; a node that starts a process takes seconds.
SOURCE = Path(__file__).resolve().parents[2]
# Of this process's environment, what its tasks shall have, too: where weights lie, for example.
PASSED_ON = ("HF_", "HUGGINGFACE_", "TORCH_HOME", "NO_ALBUMENTATIONS_UPDATE")
SETTINGS = {
    "RAY_DEDUP_LOGS": "0",  # Two folds may well say the same.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": "3",  # A fold too large for a node would be tried for ever.
}


@dataclass(frozen=True)
class Share:
    """What a task takes for itself of the node that it runs on; beside: tasks on it, at most."""

    gpus: int
    cpus: int
    beside: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """As Ray's options of a task, which is run again on another node when its own dies."""
        threads = str(max(1, self.cpus))
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # To a submitted job Ray gives one.
            threads = os.environ.get("OMP_NUM_THREADS") or threads
        variables = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
        variables |= {"OMP_NUM_THREADS": threads, "LOCAL_WORLD_SIZE": str(self.beside)}
        return {
            "num_gpus": self.gpus,
            "num_cpus": self.cpus,
            "max_retries": 3,
            "runtime_env": {"env_vars": variables},
        }

    def fits(self, node: dict[str, Any]) -> int:
        """How many such tasks a node can run at once."""
        has = node["Resources"]
        wanted = {"GPU": self.gpus, "CPU": self.cpus}
        return min(int(has.get(kind, 0)) // count for kind, count in wanted.items() if count)


def join_cluster(address: str) -> Any:
    """Ray, connected: `local` starts a cluster of this machine that ends with this process.

    Raises UserError when Ray is not installed, or no cluster answers.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_COLOR_PREFIX", "1" if sys.stdout.isatty() else "0")
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise UserError("--ray: Ray is not installed; pip install 'nyuseg[ray]', or ray") from None
    if ray.is_initialized():
        return ray
    # Where tasks find this library: a path of which require_seen says whether each node sees it.
    known: dict[str, Any] = {
        "address": address,
        "runtime_env": {"env_vars": {"PYTHONPATH": str(SOURCE)}},
    }
    known |= {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(**known, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray {address}: {first_line(error)}; expected local, or auto or HOST:PORT on a "
            "machine of the cluster, which 'ray status' shows there"
        ) from None
    stop_if_asked()
    catch_signals()  # Ray has put handlers of its own in their place.
    return ray


def alive(ray: Any) -> list[dict[str, Any]]:
    """The cluster's nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def share_of(ray: Any, tasks: int) -> Share:
    """A GPU and its part of its node's cores, for each of so many tasks; without a GPU in the
    cluster, as many cores as let all run at once, or one. Raises UserError without either."""
    nodes = alive(ray)
    resources = [node["Resources"] for node in nodes]
    if with_gpu := [node for node in resources if node.get("GPU", 0) >= 1]:
        share = Share(1, min(int(one.get("CPU", 0) // one["GPU"]) for one in with_gpu))
    else:
        most = max((int(node.get("CPU", 0)) for node in resources), default=0)
        if not most:
            raise UserError("--ray: no node of the cluster has a GPU or a CPU for tasks")
        sizes = (Share(0, cpus) for cpus in range(most, 0, -1))
        share = next((one for one in sizes if sum(map(one.fits, nodes)) >= tasks), Share(0, 1))
    return Share(share.gpus, share.cpus, min(tasks, max(map(share.fits, nodes))))


def require_seen(
    ray: Any, share: Share, paths: Sequence[Path], written: Path | None = None
) -> None:
    """Raise UserError, naming the node, when one that can run such a task does not see the paths.

    written: where results go; each node must see there what is put there now, so that another
    folder of the same name will not do.
    """
    if written is None:
        return _look(ray, share, [SOURCE, *paths])
    written.mkdir(parents=True, exist_ok=True)
    token = written / f".seen-{secrets.token_hex(8)}"
    token.write_text("seen")
    try:
        _look(ray, share, [SOURCE, *paths, token])
    finally:
        token.unlink(missing_ok=True)


def _look(ray: Any, share: Share, paths: Sequence[Path]) -> None:
    on = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy

    def unseen(paths: list[str]) -> list[str]:
        # Sent as it is: a node that does not see this library could not import it.
        return [path for path in paths if not Path(path).exists()]

    look = ray.remote(num_cpus=0, max_retries=0)(unseen)
    nodes = [node for node in alive(ray) if share.fits(node)]
    places = [on(node["NodeID"], soft=False) for node in nodes]
    whole = [str(path.resolve()) for path in paths]
    asked = [look.options(scheduling_strategy=place).remote(whole) for place in places]
    for node, answer in zip(nodes, asked, strict=True):
        name = f"--ray: the node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for path in map(Path, _answer(ray, answer, name)):
            shown = path.parent if path.name.startswith(".seen-") else path
            raise UserError(
                f"{name} does not see {shown}; put it on a disk that all nodes mount at this path"
            )


def _answer(ray: Any, task: Any, name: str) -> list[str]:
    end = time.monotonic() + ANSWER_S
    while not ray.wait([task], timeout=LOOK_S)[0]:
        stop_if_asked()
        if time.monotonic() > end:
            raise UserError(f"{name} has not answered in {ANSWER_S:.0f} s; see 'ray status'")
    try:
        found: list[str] = ray.get(task)
    except ray.exceptions.RayError as error:
        raise UserError(f"{name} cannot run tasks: {first_line(error)}") from None
    return found
