"""--ray: folds and images on a cluster leave the files of one process, whatever dies meanwhile."""

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.cluster_utils import Cluster
from tiny_data import write_tiny_folder

import infer
import train_folds
from nyuseg.config.sections import Compute
from nyuseg.data.frames import FrameFolder
from nyuseg.experiment.folder import Experiment
from nyuseg.inference import ray_prediction
from nyuseg.utils import ray_cluster
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT
from nyuseg.utils.ray_cluster import Share, join_cluster, require_seen, share_of

SAME = ("weights.safetensors", "oof_probs.npy", "oof_depth.npy", "oof_ids.txt", "checkpoints.npz")
EPOCHS = 8


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and serial/, what a run of one process has left; it changes nothing."""
    work = tmp_path_factory.mktemp("ray")
    write_tiny_folder(work / "data", [(32, 48)] * 9, list("aabbccdde"), [(32, 48)] * 5 + [(48, 32)])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(work, "serial")
    subprocess.run(words, check=True, capture_output=True, env=environment)
    return work


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes with a core each, and a head that runs nothing."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        found.add_node(num_cpus=1)
    yield found
    found.shutdown()


def command(work: Path, oof: str, *words: str, epochs: int = EPOCHS) -> list[str]:
    settings = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "train.batch_size=2"]
    settings += [f"train.epochs={epochs}", "folds.count=2", "compute.precision=fp32"]
    return [
        *(sys.executable, str(PROJECT / "src/train_folds.py"), "--fold", "all", *words),
        *("--config", str(PROJECT / "configs/demo.yaml")),
        *("--input", str(work / "data"), "--oof", str(work / oof)),
        *[f"--set={text}" for text in settings],
    ]


def started(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        words, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment
    )


def until_both_train(child: subprocess.Popen[str]) -> dict[str, str]:
    """Read on until each fold has ended an epoch; returns what Ray calls their tasks."""
    tasks, said = {}, []
    for line in child.stdout:
        said.append(line)
        if found := re.match(r"\((fold \d) (pid=\d+.*?)\) fold \d epoch", line):
            tasks[found[1]] = found[2]
        if len(tasks) == 2:
            return tasks
    raise AssertionError("".join(said))


def require_same(work: Path, one: str, other: str) -> None:
    """The folds' files are the same, and each epoch was counted once."""
    for fold in range(2):
        folders = [work / oof / f"demo/fold_{fold}" for oof in (one, other)]
        for name in SAME:
            first, second = (folder / name for folder in folders)
            assert first.read_bytes() == second.read_bytes(), (fold, name)
        with (folders[1] / "metrics.csv").open() as file:
            epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
        assert epochs == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_killed_task_is_run_again_and_the_files_are_those_of_one_process(
    work: Path, monkeypatch
) -> None:
    # Also on a machine that knows of a cluster, which may be gone.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    child = started(*command(work, "ray", "--ray", "local"))
    task = until_both_train(child)["fold 1"]
    os.kill(int(re.search(r"\d+", task)[0]), signal.SIGKILL)
    printed = child.stdout.read()
    assert child.wait() == 0, printed
    require_same(work, "serial", "ray")
    assert "fold 1: encoder tu-test_resnet, going on after epoch" in printed
    assert printed.count("Out-of-fold scores of demo") == 1  # Pooled once, at the end.
    words = ["--experiment", "demo", "--tta", "--oof", "serial", "--submissions"]
    monkeypatch.chdir(work)  # A task runs in another folder.
    infer.main([*words, "one"])
    script = [sys.executable, str(PROJECT / "src/infer.py")]
    done = subprocess.run(
        [*script, *words, "shared", "--ray", "local"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "6 images in 6 parts on 1 node(s)" in done.stdout
    files = sorted(path.name for path in (work / "one/demo_tta").iterdir())
    assert len(files) >= 4 and files == sorted(
        path.name for path in (work / "shared/demo_tta").iterdir()
    )
    for name in set(files) - {"manifest.json"}:  # Which tells the time.
        one, other = (work / where / "demo_tta" / name for where in ("one", "shared"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.slow
def test_what_a_removed_node_trained_is_gone_on_with_on_another(work: Path, cluster) -> None:
    child = started(*command(work, "removed", "--ray", cluster.address))
    until_both_train(child)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    printed = child.stdout.read()
    assert child.wait() == 0, printed
    assert re.search(r"fold \d: encoder tu-test_resnet, going on after epoch", printed)
    require_same(work, "serial", "removed")


@pytest.mark.slow
def test_a_signal_stops_all_tasks_with_their_state_kept(work: Path) -> None:
    child = started(*command(work, "stopped", "--ray", "local", epochs=2000))
    until_both_train(child)
    child.send_signal(signal.SIGINT)
    printed = child.stdout.read()
    assert child.wait(60) == 130 and "stopped by SIGINT" in printed
    mine = os.fsencode(work / "stopped")
    commands = [one for path in Path("/proc").glob("[0-9]*/cmdline") for one in [text_of(path)]]
    assert not [one for one in commands if mine in one]
    for fold in (0, 1):
        assert (work / f"stopped/demo/fold_{fold}/last.pt").exists()


def text_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # The process has ended.
        return b""


@pytest.mark.slow
def test_a_node_that_does_not_see_a_folder_is_named(cluster, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ray_cluster, "catch_signals", lambda: None)  # Of the tests' process.
    ray = join_cluster(cluster.address)
    try:
        share = share_of(ray, 5)
        assert share == Share(0, 1)
        assert sorted(share.fits(one) for one in ray_cluster.alive(ray)) == [0, 1, 1]
        require_seen(ray, share, [tmp_path], tmp_path / "oof")
        assert not list((tmp_path / "oof").iterdir())  # What was put there to be seen is gone.
        with pytest.raises(UserError, match=r"the node \S+ \(.*\) does not see /no/where; put it"):
            require_seen(ray, share, [tmp_path, Path("/no/where")], tmp_path / "oof")
    finally:
        ray.shutdown()


def nodes(*resources: dict[str, float]) -> SimpleNamespace:
    found = [{"Alive": True, "Resources": one} for one in resources]
    found.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    return SimpleNamespace(nodes=lambda: found)


@pytest.mark.parametrize(
    ("cluster", "tasks", "share"),
    [
        ([{"CPU": 16.0}], 5, Share(0, 3, 5)),
        ([{"CPU": 16.0}, {}], 1, Share(0, 16, 1)),
        ([{"CPU": 16.0}, {"CPU": 4.0}], 2, Share(0, 8, 2)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 3, Share(0, 1, 3)),  # All at once.
        ([{"CPU": 1.0}, {"CPU": 64.0}], 5, Share(0, 12, 5)),  # A small node holds nobody back.
        ([{"CPU": 2.0}], 5, Share(0, 1, 2)),
        ([{"CPU": 12.0, "GPU": 2.0}, {"CPU": 64.0}], 5, Share(1, 6, 2)),
        ([{"CPU": 12.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}], 5, Share(1, 2, 4)),
        ([{"CPU": 2.0, "GPU": 8.0}], 5, Share(1, 0, 5)),  # All GPUs work.
        ([{"GPU": 1.0}], 5, Share(1, 0, 1)),
    ],
)
def test_a_task_takes_a_gpu_or_its_share_of_the_cores(cluster, tasks: int, share: Share) -> None:
    assert share_of(nodes(*cluster), tasks) == share


def test_a_task_has_the_threads_of_its_share_or_those_that_were_asked_for(monkeypatch) -> None:
    def threads() -> str:
        return Share(1, 6).options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads() == "6"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads() == "2"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # Ray, not the user, has set it.
    assert threads() == "6"


def test_a_cluster_that_runs_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no node of the cluster has a GPU or a CPU"):
        share_of(nodes({}, {"CPU": 0.0}), 5)


def test_without_ray_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray: Ray is not installed; pip install 'nyuseg\[ray\]"):
        join_cluster("local")


@pytest.mark.slow
def test_where_no_cluster_answers_the_error_names_the_address() -> None:
    with pytest.raises(UserError, match=r"--ray auto: .*; expected local, or auto or HOST:PORT"):
        join_cluster("auto")


@pytest.mark.slow
def test_an_empty_address_is_no_cluster_and_not_this_process() -> None:
    with pytest.raises(UserError, match="--ray :"):
        join_cluster("")


def test_two_ways_to_train_side_by_side_are_one_too_many() -> None:
    with pytest.raises(UserError, match="--parallel and --ray: one of them"):
        train_folds.main(["--fold", "0", "--parallel", "2", "--ray", "local"])


def test_a_node_with_other_weights_is_an_error(monkeypatch, tmp_path: Path) -> None:
    answer = ray_prediction.TaskResult([], {"0": "other"}, {"device": "cuda"})
    fakes = {
        "join_cluster": lambda _: None,
        "alive": lambda _: [{"Resources": {"CPU": 2.0}}],
        "share_of": lambda *_: Share(0, 2),
        "require_seen": lambda *_: None,
        "_answers": lambda *_: iter([answer]),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(ray_prediction, name, fake)
    config = SimpleNamespace(tta=SimpleNamespace(views=[1, 2]), compute=Compute())
    experiment = Experiment(tmp_path, config, None, tmp_path)
    elsewhere = ray_prediction.OnRay("local", experiment, [0], True)
    source = FrameFolder(tmp_path, "test")
    with pytest.raises(UserError, match=r"a node sees other weights at .*; put it on a disk"):
        list(elsewhere.predict({"0": "mine"}, source, ["a", "b"]))
    list(elsewhere.predict({"0": "other"}, source, ["a", "b"]))
    assert elsewhere.environment == {"device": "cuda"}


def test_the_images_are_parted_in_whole_batches() -> None:
    config = SimpleNamespace(
        tta=SimpleNamespace(views=[1, 2]), compute=Compute(predict_batch_size=6)
    )
    ids = [str(n) for n in range(50)]
    elsewhere = ray_prediction.OnRay("local", SimpleNamespace(config=config), [0], True)
    parts = elsewhere._parts(ids, Share(0, 2), slots=2)
    assert [one for part in parts for one in part] == ids
    assert {len(part) % 3 for part in parts[:-1]} == {0} and len(parts) > 4
    assert len(elsewhere._parts(ids, Share(1, 2), slots=4)) == 4  # One for each GPU.
