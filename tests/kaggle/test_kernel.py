"""The Kaggle kernel: what is packaged, how it is found, what it does, and that it is the same."""

import ast
import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from fake_kaggle import FakeKaggle, local_environment
from manifests import make_manifest
from nbclient import NotebookClient
from safetensors.torch import load_file

import check_kernel
import infer
import package_kernel
import train_folds
from nyuseg.config.loading import parse_config
from nyuseg.config.prediction import Submission, View
from nyuseg.data.integrity import frame_sizes
from nyuseg.demo.data import write_demo
from nyuseg.kaggle.budget import Budget
from nyuseg.kaggle.kernel import END, find_frames, load_package, run
from nyuseg.kaggle.kernel_check import (
    LAYOUTS,
    _require_same_plan,
    agreement,
    check,
    kaggle_like,
    mount,
    run_kernel,
    script_of,
)
from nyuseg.kaggle.mounts import find_all
from nyuseg.kaggle.notebook import SCRIPT
from nyuseg.kaggle.package import to_half
from nyuseg.kaggle.wheels import own_wheel, repack
from nyuseg.submission.formats import make_writer, usable_formats
from nyuseg.submission.manifest import Dropped
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json, write_json

# Finding


def test_the_nearest_marker_comes_first_and_frames_are_not_searched(tmp_path: Path) -> None:
    for place in ("b/x/x", "a", "train/image", "c/1/2/3/4/5/6"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "manifest.json").write_text("{}")
    found = [str(path.relative_to(tmp_path)) for path in find_all(tmp_path, "manifest.json")]
    assert found == ["a", "b/x/x"]
    assert len(find_all(tmp_path, "manifest.json", depth=7)) == 3


def test_missing_test_images_say_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "datasets/alice").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"no test/image with PNG or JPEG files; mounted: .*datasets/alice"
    ):
        find_frames(tmp_path, None)


def test_the_competition_goes_before_other_test_images(tiny_folder, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "extra", [(8, 8)], test=[(8, 8), (8, 8)])
    tiny_folder(tmp_path / "competitions/slug", [(8, 8)], test=[(8, 8), (9, 7)])
    (tmp_path / "a/test/image").mkdir(parents=True)  # Without a picture.
    source, ids = find_frames(tmp_path, "slug")
    assert source.root == tmp_path / "competitions/slug" and ids == ["990001", "990002"]
    assert usable_formats(source.root, ["npy", "rle"]) == ["rle"]
    assert find_frames(tmp_path, None)[0].root == tmp_path / "extra"
    next((tmp_path / "extra/test/depth").iterdir()).unlink()
    with pytest.raises(UserError, match="missing; only image"):
        find_frames(tmp_path, "extra")


# Wheels


def test_wheels_are_reproducible_and_their_records_are_right(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for make in (own_wheel, lambda folder: repack("ttach", folder)):
        one, two = make(tmp_path / "one"), make(tmp_path / "two")
        assert one.read_bytes() == two.read_bytes() and one.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(one) as archive:
            record = next(name for name in archive.namelist() if name.endswith("/RECORD"))
            lines = archive.read(record).decode().splitlines()
            assert {line.split(",")[0] for line in lines} == set(archive.namelist())
            for line in lines[:-1]:
                name, digest, size = line.split(",")
                assert int(size) == len(archive.read(name)) and digest.startswith("sha256=")
            assert not any("pyc" in name for name in archive.namelist())


def test_the_wheel_holds_what_the_kernel_imports_and_nothing_else(tmp_path: Path) -> None:
    wheel = own_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        modules = [name[:-3].replace("/", ".") for name in archive.namelist() if name[-3:] == ".py"]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = f"import sys\nfor name in {modules}: __import__(name)\n"
    code += "print([name for name in sys.modules if name.startswith('nyuseg')])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(ast.literal_eval(done.stdout)) == sorted(modules)
    unused = ("demo", "training", "analysis", "ensembling.blend", "kaggle.push", "kaggle.package")
    assert "nyuseg.kaggle.kernel" in modules
    assert not [name for name in modules if name.removeprefix("nyuseg.").startswith(unused)]


def test_compiled_or_absent_packages_are_not_shipped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="numpy: not a pure-Python package"):
        repack("numpy", tmp_path)
    with pytest.raises(UserError, match="is not installed"):
        repack("no-such-package", tmp_path)


# Budget


class Pace:
    """A predictor's stand-in on a clock of its own: an image takes models x views seconds."""

    batch_size = 4
    devices = (None,)

    def __init__(self, models: int, views: int) -> None:
        self.now, self.model_count, self.view_count = 0.0, models, views

    def limit(self, models: int, views: int) -> None:
        self.model_count, self.view_count = models, views

    def images(self, count: int):
        self.now += 30  # Reading starts slowly.
        for number in range(count):
            if number % 4 == 0:  # A batch at a time.
                self.now += 4 * self.model_count * self.view_count
            yield number


def spend(seconds: float, models: int = 5, views: int = 2, images: int = 100):
    pace = Pace(models, views)
    budget = Budget(pace, images, seconds, clock=lambda: pace.now)
    assert list(budget.watch(pace.images(images))) == list(range(images))
    return pace, budget


def test_a_run_within_its_budget_drops_nothing() -> None:
    pace, budget = spend(1200)
    assert (budget.dropped, pace.model_count, pace.view_count) == ([], 5, 2)


def test_the_flipped_view_goes_first_then_folds_and_the_budget_is_kept() -> None:
    pace, budget = spend(800)
    assert (pace.model_count, pace.view_count) == (5, 1) and pace.now <= 800
    pace, budget = spend(500)
    assert pace.view_count == 1 and 1 <= pace.model_count < 5 and pace.now <= 500
    assert budget.dropped[0].image == 24  # Two batches to settle, four to measure.
    assert budget.dropped[-1].models == pace.model_count


def test_one_fold_and_one_view_always_remain() -> None:
    pace, budget = spend(1)
    assert (pace.model_count, pace.view_count) == (1, 1) and len(budget.dropped) == 1


def test_odd_batches_do_not_look_slow() -> None:
    class Odd(Pace):
        batch_size = 12

        def images(self, count: int):
            for number in range(count):
                if number % 12 == 0:
                    self.now += 12 * self.model_count * self.view_count
                yield number

    pace = Odd(5, 2)
    budget = Budget(pace, 120, 1500, clock=lambda: pace.now)
    list(budget.watch(pace.images(120)))
    assert not budget.dropped


# Packaging

SETTINGS = (
    *("model.encoder=tu-test_resnet", "data.size=[48,64]", "train.epochs=2"),
    *("compute.precision=fp32", "folds.count=2"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny data, an experiment on it, its submission and its fp32 package."""
    work = tmp_path_factory.mktemp("kernel")
    write_demo(work / "data", scenes=5, frames=2, test_scenes=5, size=(48, 64), seed=1)
    config = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / "data")]
    options = [f"--set={text}" for text in SETTINGS]
    train_folds.main(["--fold", "all", *config, "--oof", str(work / "oof"), *options])
    place = ["--oof", str(work / "oof"), "--submissions", str(work / "out")]
    infer.main(["--experiment", "demo", "--tta", *place])
    package(work, "fp32", "--precision", "fp32")
    return work


def package(work: Path, name: str, *more: str) -> Path:
    place = ["--oof", str(work / "oof"), "--output", str(work / name)]
    package_kernel.main(["--owner", "alice", "--experiment", "demo", *place, *more])
    return work / name


def test_a_package_holds_what_kaggle_leaves_alone(work: Path) -> None:
    names = {path.name for path in (work / "fp32/dataset").iterdir()}
    suffixes = {Path(name).suffix for name in names}
    assert suffixes == {".json", ".safetensors", ".whl"}
    assert {"manifest.json", "config.json", "fold_0.safetensors", "fold_1.safetensors"} <= names
    facts = read_json(work / "fp32/dataset/manifest.json")
    for name, digest in facts["files"].items():
        data = (work / "fp32/dataset" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
    kernel = read_json(work / "fp32/kernel/kernel-metadata.json")
    assert kernel["enable_internet"] is False and kernel["enable_gpu"] is True
    assert kernel["dataset_sources"] == [
        read_json(work / "fp32/dataset/dataset-metadata.json")["id"]
    ]


def test_what_infer_was_told_is_told_to_the_kernel(work: Path) -> None:
    folder = package(
        work, "row", "--set", "submission.order=row", "--set", "tta.views=[{flip: false}]"
    )
    config = read_json(folder / "dataset/config.json")
    assert config["submission"]["order"] == "row"
    assert parse_config(config, "x").tta.views == (View(),)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("folds", {"0": "other", "1": "weights"}, "other weights"),
        ("views", ["identity"], r"other views .*\['identity', .*, there \['identity'\]"),
        (
            "encoding",
            {"order": "row", "base": 1, "empty": ""},
            r"submission.order .* \(column, there row\)",
        ),
    ],
)
def test_a_kernel_that_means_to_write_something_else_is_told(
    work: Path, tmp_path: Path, key: str, value: object, what: str
) -> None:
    own = work / "out/demo_tta"
    assert _require_same_plan(own, own)  # On a processor.
    write_json(tmp_path / "manifest.json", read_json(own / "manifest.json") | {key: value})
    with pytest.raises(UserError, match=f"the kernel has .*{what}"):
        _require_same_plan(own, tmp_path)


def test_half_precision_halves_matrices_and_keeps_vectors(work: Path) -> None:
    half = load_file(package(work, "half") / "dataset/fold_0.safetensors")
    full = load_file(work / "fp32/dataset/fold_0.safetensors")
    for key, tensor in full.items():
        expected = torch.float16 if tensor.ndim > 1 else tensor.dtype
        assert half[key].dtype == expected
        assert torch.allclose(half[key].float(), tensor.float(), rtol=1e-3, atol=1e-6)
    with pytest.raises(UserError, match=r"conv\.weight: too large"):
        to_half("conv.weight", torch.full((2, 2), 7e4))


def test_the_same_experiment_gives_the_same_package(work: Path) -> None:
    again = package(work, "again", "--precision", "fp32")
    for path in (work / "fp32").glob("*/*.*"):
        assert (again / path.relative_to(work / "fp32")).read_bytes() == path.read_bytes()


def test_script_and_notebook_are_the_same_code_for_this_data_set(work: Path) -> None:
    options = ("--precision", "fp32", "--budget-hours", "7.25", "--type")
    script, notebook = (
        package(work, f"as_{kind}", *options, kind) / "kernel" for kind in ("script", "notebook")
    )
    text, code = (ast.parse(script_of(folder)) for folder in (script, notebook))
    about = text.body.pop(0).value.value
    assert ast.dump(text) == ast.dump(code)
    constants = {ast.unparse(n.targets[0]): n.value for n in code.body if type(n) is ast.Assign}
    assert ast.literal_eval(constants["FINGERPRINT"]) == fingerprint(work)
    assert ast.literal_eval(constants["BUDGET_HOURS"]) == 7.25
    cells = nbformat.read(next(notebook.glob("*.ipynb")), as_version=4).cells
    assert [cell.cell_type for cell in cells] == ["markdown", *["code"] * 4]
    assert cells[0].source == about.strip()


def test_a_notebook_needs_nbformat_and_a_script_does_not(work: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "nbformat", None)
    with pytest.raises(UserError, match="pip install nbformat, or use --type script"):
        package(work, "refused")
    assert not (work / "refused/dataset").exists()
    package(work, "without_nbformat", "--type", "script")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--owner", "a/b"], "owner"),
        (["--competition", "https://kaggle.com/c/x"], "competition"),
        (["--budget-hours", "0"], "budget-hours"),
        (["--budget-hours", "nan"], "budget-hours"),
        (["--push"], "--competition"),
        (["--title", "a title that is much too long for the server of Kaggle"], "title"),
        (["--fold", "5"], "--fold 5"),
        (["--format", "gif"], "gif"),
        (["--submit", "3"], "--competition"),
        (["--submit", "3", "--competition", "nyu"], "which file the competition takes"),
    ],
)
def test_what_kaggle_would_refuse_is_refused_before_anything_is_written(work, more, message):
    with pytest.raises(UserError, match=message):
        package(work, "refused", *more)
    assert not (work / "refused/dataset").exists()


def test_a_missing_fold_is_not_packaged(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "oof", tmp_path / "oof")
    shutil.rmtree(tmp_path / "oof/demo/fold_1")
    with pytest.raises(UserError, match="fold 1 is not trained"):
        package(tmp_path, "out")


# Loading


def fingerprint(work: Path) -> str:
    return read_json(work / "fp32/dataset/manifest.json")["fingerprint"]


def test_another_version_or_a_damaged_file_is_refused(work: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(work / "fp32/dataset", tmp_path / "dataset"))
    with pytest.raises(UserError, match=r"is version .* this kernel was made for 000"):
        load_package(folder, "0" * 64)
    weights = folder / "fold_0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="not the file that was packaged"):
        load_package(folder, fingerprint(work))
    manifest = folder / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"tta": true', '"tta": false'))
    with pytest.raises(UserError, match=r"manifest\.json: altered"):
        load_package(folder, fingerprint(work))
    manifest.write_text(whole)
    weights.unlink()
    with pytest.raises(UserError, match="missing"):
        load_package(folder, fingerprint(work))
    weights.mkdir()
    with pytest.raises(UserError, match="unpacked into a folder"):
        load_package(folder, fingerprint(work))


def test_a_budget_that_is_too_small_still_ends_with_a_submission(work, tmp_path, capsys) -> None:
    package_folder = work / "fp32/dataset"
    manifest = run(package_folder, fingerprint(work), work / "data", tmp_path, 1e-9)
    assert manifest.views == ["identity"]
    assert manifest.budget.dropped[0] == Dropped(image=0, models=1, views=1)
    out = capsys.readouterr().out
    assert "too slow for the budget" in out and END in out
    assert np.load(tmp_path / "submission.npy").shape == (10, 48, 64)
    assert (tmp_path / "preview.png").exists() and not (tmp_path / "submission").exists()


# As Kaggle runs it


@pytest.mark.slow
def test_the_kernel_gives_the_bytes_of_inference(work: Path, tmp_path: Path) -> None:
    folders = (work / "fp32/kernel", work / "fp32/dataset", work / "data/test")
    lines = check(*folders, work / "out/demo_tta", tmp_path, ["unpacked twice", "plain"])
    assert len(lines) == 2 and all("100.0000%" in line for line in lines)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_package_and_frames_are_found_wherever_they_are_mounted(
    tiny_folder, tmp_path: Path, layout: str, monkeypatch
) -> None:
    tiny_folder(tmp_path / "data", [(8, 9)], test=[(8, 9)] * 2)
    package = tmp_path / "package"
    package.mkdir()
    (package / "manifest.json").write_text('{"fingerprint": "0ther"}')
    (package / "nyuseg-1-py3-none-any.whl").touch()
    inputs = mount(tmp_path, layout, package, tmp_path / "data/test")
    monkeypatch.setenv("NYUSEG_INPUT", str(inputs))
    with pytest.raises(SystemExit, match="is version 0ther, this kernel was made for"):
        runpy.run_path(str(SCRIPT))
    source, ids = find_frames(inputs, "data")
    assert ids == ["990001", "990002"] and source.root.name == "data"


def test_masks_of_several_sizes_are_compared_image_by_image(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    masks = {f"00000{k}": random.integers(0, 13, (4 + k, 9), np.uint8) for k in range(3)}
    sizes = {name: mask.shape for name, mask in masks.items()}
    options = Submission(order="row")
    for place, formats in (("one", ["png", "rle"]), ("other", ["rle"]), ("third", ["png"])):
        make_manifest(encoding=options).write(tmp_path / place / "manifest.json")
        for name in formats:
            with make_writer(name, tmp_path / place, 3, options) as writer:
                for number, (image_id, mask) in enumerate(masks.items()):
                    turned = number == 2 and place != "one"
                    writer.add(image_id, mask[::-1].copy() if turned else mask)
    last = masks["000002"]
    share = (9 * (4 + 5) + np.sum(last == last[::-1])) / (9 * (4 + 5 + 6))
    for other in ("other", "third"):
        assert agreement(tmp_path / "one", tmp_path / other, sizes) == share
    with pytest.raises(UserError, match=r"no format in common; give package_kernel\.py and"):
        agreement(tmp_path / "other", tmp_path / "third", sizes)


@pytest.mark.slow
def test_the_check_takes_relative_folders(work: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(work)
    folders = ["--submission", "out/demo_tta", "--input", "data", "--kernel", "fp32"]
    check_kernel.main([*folders, "--layout", "by owner"])
    assert "the kernel gives the masks of infer.py" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_at_half_precision_agrees(work: Path, tmp_path: Path) -> None:
    folder = package(work, "script", "--type", "script")
    inputs = mount(tmp_path, "by owner", folder / "dataset", work / "data/test")
    working = run_kernel(folder / "kernel", tmp_path, inputs)
    sizes = frame_sizes(work / "data", "test")
    assert agreement(working, work / "out/demo_tta", sizes) > 0.99  # A network of two epochs.


@pytest.mark.slow
def test_the_wrong_version_or_nothing_attached_fails_in_one_line(work, tmp_path) -> None:
    other = package(work, "other", "--no-tta")
    for name, dataset, message in (
        ("wrong", other / "dataset", "this kernel was made for"),
        ("nothing", None, "is not attached; mounted:"),
    ):
        place = tmp_path / name
        place.mkdir()
        if dataset is None:
            inputs = place / "input"
            (inputs / "datasets/someone").mkdir(parents=True)
        else:
            inputs = mount(place, "plain", dataset, work / "data/test")
            inputs.chmod(0o755)
            for number, text in enumerate(("null", "[1]", "{", "\xff", "3")):
                (inputs / f"other_{number}").mkdir()
                (inputs / f"other_{number}/manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=message):
            run_kernel(work / "fp32/kernel", place, inputs)


@pytest.mark.slow
def test_the_notebook_is_valid_and_runs_top_to_bottom(work: Path, tmp_path: Path) -> None:
    path = next((work / "fp32/kernel").glob("*.ipynb"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    python = kaggle_like(tmp_path / "image")
    spec = tmp_path / "jupyter/kernels/kaggle/kernel.json"
    spec.parent.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "k", "language": "python"}))
    inputs = mount(tmp_path, "by owner", work / "fp32/dataset", work / "data/test")
    working = tmp_path / "working"
    working.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        patch.setenv("NYUSEG_INPUT", str(inputs))
        patch.setenv("NYUSEG_WORKING", str(working))
        patch.delenv("PYTHONPATH", raising=False)
        client = NotebookClient(notebook, kernel_name="kaggle", timeout=300)
        client.execute(cwd=str(working))
    outputs = [str(output) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(END in output for output in outputs) and "END" in outputs[-1]
    assert any("image/png" in output for output in outputs)
    assert agreement(working, work / "out/demo_tta", frame_sizes(work / "data", "test")) == 1


def test_namespaces_are_probed_without_leaving_anything(tmp_path: Path) -> None:
    from nyuseg.kaggle.kernel_check import isolation

    prefix = isolation(tmp_path)
    if not prefix:
        pytest.skip("this machine lets no user make namespaces; the socket guard stands in")
    write = [*prefix, str(tmp_path), "sh", "-c", f"touch {tmp_path}/x || echo read-only"]
    done = subprocess.run(write, capture_output=True, text=True)
    assert "read-only" in done.stdout and not list(tmp_path.iterdir())
    call = "import socket; socket.create_connection(('127.0.0.1', 9), 2)"
    reach = [*prefix, str(tmp_path), "python3", "-c", call]
    assert subprocess.run(reach, capture_output=True).returncode != 0


# The command, with the real client and a server of our own


def push_command(work: Path, home: Path, port: int, **more: str) -> subprocess.CompletedProcess:
    place = ["--oof", str(work / "oof"), "--output", str(home / "pushed")]
    script = [sys.executable, str(PROJECT / "src/package_kernel.py"), "--owner", "alice"]
    credentials = {"KAGGLE_USERNAME": "alice", "KAGGLE_KEY": "5ecret"}
    client = {**local_environment(port), **credentials}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **client, **more}
    return subprocess.run(
        [*script, "--experiment", "demo", "--competition", "nyu", "--push", *place],
        capture_output=True,
        text=True,
        env={key: value for key, value in environment.items() if value},
    )


@pytest.mark.slow
def test_push_sends_the_package_and_the_kernel(work: Path, tmp_path: Path) -> None:
    with FakeKaggle() as server:
        done = push_command(work, tmp_path, server.port)
        assert done.returncode == 0, done.stderr
        assert "https://www.kaggle.com/code/alice/demo-kernel" in done.stdout
        assert "5ecret" not in done.stdout + done.stderr
        uploaded = {blob["name"]: blob["data"] for blob in server.blobs.values()}
    sent = {path.name: path.read_bytes() for path in (tmp_path / "pushed/dataset").iterdir()}
    sent.pop("dataset-metadata.json")
    assert uploaded == sent


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["server error", "no server", "no credentials"])
def test_a_push_that_fails_is_one_line_and_exit_code_1(work, tmp_path, fault: str) -> None:
    with FakeKaggle(push_error="Notebook is locked" if fault == "server error" else "") as server:
        port = server.port
        more = {"KAGGLE_USERNAME": "", "KAGGLE_KEY": ""} if fault == "no credentials" else {}
        done = push_command(work, tmp_path, 9 if fault == "no server" else port, **more)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    expected = {"server error": "Notebook is locked", "no credentials": "KAGGLE_USERNAME"}
    assert expected.get(fault, "error: ") in lines[0]
