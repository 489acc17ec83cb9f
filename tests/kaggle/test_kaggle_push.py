"""Pushing with Kaggle's real client to a fake server on 127.0.0.1, and all ways to fail."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_kaggle import FakeKaggle, error, local_environment

from nyuseg.kaggle import client as kaggle_client
from nyuseg.kaggle.metadata import dataset_metadata, kernel_metadata
from nyuseg.kaggle.push import push, push_dataset, push_kernel, submit
from nyuseg.kaggle.records import PackageRecord
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_json

KEY = "5ecret0f32hexadecimaldigits00000"
DATASET, KERNEL = "alice/nyuv2-weights", "alice/nyuv2-inference"
MANIFEST = PackageRecord(
    experiment="exp060",
    folds={"0": "c0ffee"},
    members=[],
    tta=True,
    formats=["npy"],
    precision="half",
    competition=None,
    cv=None,
    notice=None,
    files={},
    fingerprint="abc123",
)
URL = f"https://www.kaggle.com/code/{KERNEL}"


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Kaggle setting of the person who runs the tests, no server yet; home is temporary."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", None)  # Python remembers the folder from before.
    use_port(monkeypatch, 9)  # 'discard': nobody listens there.
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    monkeypatch.setenv("KAGGLE_KEY", KEY)


def use_port(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name, value in local_environment(port).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    with FakeKaggle() as fake:
        use_port(monkeypatch, fake.port)
        yield fake


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of a small data set and kernel."""
    dataset, kernel = tmp_path / "dataset", tmp_path / "kernel"
    dataset.mkdir()
    kernel.mkdir()
    (dataset / "fold0.safetensors").write_bytes(bytes(range(256)) * 40)
    MANIFEST.write(dataset / "manifest.json")
    subtitle = "Weights of the five folds for the kernel"
    described = dataset_metadata("alice", "NYUv2 weights", subtitle)
    described.write(dataset / "dataset-metadata.json")
    write_json(kernel / "nyu.ipynb", {"cells": [], "metadata": {}, "nbformat": 4})
    kernel_meta = kernel_metadata(
        "alice", "NYUv2 inference", "nyu.ipynb", "notebook", DATASET, "nyu"
    )
    kernel_meta.write(kernel / "kernel-metadata.json")
    return dataset, kernel


def refusal(action: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert KEY not in message
    return message


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let a few lines of Python run instead of `import kaggle`."""
    path = tmp_path / "stub/kaggle/__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"import os, sys, time\n{code}\n")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))


# With the real client


def test_create_then_version(server: FakeKaggle, package, tmp_path: Path, capfd) -> None:
    server.states = ["blobs_received"]
    assert push(*package, poll_s=0.01) == f"{URL}, version 1"
    first = [request.name for request in server.requests if request.method == "POST"]
    assert first == [
        "GetDatasetStatus",
        "GetDatasetStatus",  # The client asks once more before it creates.
        *["StartBlobUpload"] * 2,
        "CreateDataset",
        *["GetDatasetStatus"] * 2,
        "SaveKernel",
    ]
    created = server.called("CreateDataset")[0].json
    assert created["ownerSlug"] == "alice"
    assert created["slug"] == "nyuv2-weights"
    assert created["title"] == "NYUv2 weights"
    assert created["licenseName"] == "other"
    assert created["isPrivate"] is True
    check_upload(server, created["files"], package[0])

    server.requests.clear()
    server.blobs.clear()
    assert push(*package, poll_s=0.01) == f"{URL}, version 2"
    assert not server.blobs and "uploaded before" in capfd.readouterr().out
    MANIFEST.model_copy(update={"fingerprint": "def456"}).write(package[0] / "manifest.json")
    assert push(*package, poll_s=0.01) == f"{URL}, version 3"
    assert not server.called("CreateDataset")
    version = server.called("CreateDatasetVersion")[0].json
    assert (version["ownerSlug"], version["datasetSlug"]) == tuple(DATASET.split("/"))
    assert version["body"]["versionNotes"] == "fingerprint def456"
    check_upload(server, version["body"]["files"], package[0])
    output = capfd.readouterr()
    assert KEY not in output.out + output.err
    assert "uploading 2 files" in output.out
    assert list((tmp_path / "TMPDIR").iterdir()) == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def check_upload(server: FakeKaggle, files: list[dict[str, str]], folder: Path) -> None:
    blobs = [server.blobs[file["token"]] for file in files]
    assert {blob["name"]: blob["data"] for blob in blobs} == {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "dataset-metadata.json"
    }
    for request in server.requests:
        assert ("Authorization" in request.headers) == (request.method == "POST")


def test_kernel_request(server: FakeKaggle, package) -> None:
    assert push_kernel(package[1]) == (URL, 1)
    sent = server.called("SaveKernel")[0].json
    text = sent.pop("text")
    assert json.loads(text)["cells"] == []
    assert sent == {
        "slug": KERNEL,
        "newTitle": "NYUv2 inference",
        "language": "python",
        "kernelType": "notebook",
        "datasetDataSources": [DATASET],
        "competitionDataSources": ["nyu"],
        "isPrivate": True,
        "enableGpu": True,
        "enableTpu": False,
        "enableInternet": False,
        "dockerImagePinningType": "original",
        "machineShape": "NvidiaTeslaT4",
    }


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Notebook is not editable", ""),
        ("Maximum batch GPU session count of 2 reached", "wait for a running session"),
    ],
)
def test_push_error_with_exit_code_0(server: FakeKaggle, package, reason: str, advice: str) -> None:
    server.push_error = reason
    message = refusal(push_kernel, package[1])
    assert message.startswith(f"kernel {KERNEL} was not pushed: {reason}")
    assert advice in message


def test_answers_that_say_neither_yes_nor_no(server: FakeKaggle, package) -> None:
    server.errors = {"SaveKernel": (200, {"url": URL})}
    assert "was not pushed: Kaggle's answer names no version" in refusal(push_kernel, package[1])
    server.errors = {"CreateDataset": (200, {"status": "queued"})}
    assert "was not uploaded: Kaggle's answer has the status 'queued'" in refusal(push, *package)


def test_a_key_in_an_answer_is_hidden(server: FakeKaggle, package) -> None:
    server.push_error = f'Wrong "key" {KEY}'
    expected = f'kernel {KERNEL} was not pushed: Wrong "key" ***'
    assert refusal(push_kernel, package[1]) == expected
    server.submit_message = f"Successfully submitted with {KEY}"
    assert submit("nyu", KERNEL, 3, "a.csv", "text") == "Successfully submitted with ***"


@pytest.mark.parametrize("kind", ["Dataset", "Competition", "Kernel", "Model"])
def test_invalid_sources(server: FakeKaggle, package, kind: str) -> None:
    server.invalid_sources = {f"invalid{kind}Sources": ["bob/other"]}
    assert f"invalid {kind.lower()} sources ['bob/other']" in refusal(push_kernel, package[1])


@pytest.mark.parametrize(
    ("code", "advice"),
    [(401, "renew"), (403, "owner"), (409, "another title"), (500, "later"), (503, "later")],
)
def test_http_errors_of_the_kernel(server: FakeKaggle, package, code: int, advice: str) -> None:
    server.errors = {"SaveKernel": (code, {})}
    message = refusal(push_kernel, package[1])
    assert "Authentication required" in message if code == 401 else str(code) in message
    assert advice in message


def test_slug_of_somebody_else(server: FakeKaggle, package) -> None:
    # Theirs and private: Kaggle hides it, until one wants to create it.
    reason = "The requested title is already in use"
    answer = {"status": "error", "error": reason, "url": "", "ref": ""}
    server.errors = {"CreateDataset": (200, answer)}
    message = refusal(push, *package)
    assert message.startswith(f"data set {DATASET} was not uploaded: {reason} (the title is taken")
    # Theirs and public: it is there, but a version is refused.
    server.datasets.add(DATASET)
    server.errors = {"CreateDatasetVersion": error(403, "Permission 'datasets.update' was denied")}
    message = refusal(push, *package)
    assert "Permission 'datasets.update' was denied (is the owner your Kaggle user name" in message
    assert not server.called("SaveKernel")


def test_slug_that_appears_in_between(server: FakeKaggle, package) -> None:
    server.datasets.add(DATASET)
    server.states = [403]
    assert "already in use" in refusal(push, *package)
    assert not server.called("SaveKernel")


@pytest.mark.parametrize("code", [403, 404])
def test_a_data_set_that_is_not_there_yet(server: FakeKaggle, package, code: int) -> None:
    server.datasets.add(DATASET)
    server.states = [code, code]
    push_dataset(package[0], poll_s=0.01)
    assert server.called("CreateDataset")


def test_server_is_down(package) -> None:
    message = refusal(push, *package)
    assert "Max retries exceeded" in message
    assert message.endswith("(Kaggle cannot be reached now; run the same command later)")
    assert "Kaggle cannot be reached" in refusal(push_kernel, package[1])


def test_server_fails_on_the_first_question(server: FakeKaggle, package) -> None:
    server.datasets.add(DATASET)
    server.states = [503]
    assert refusal(push, *package).startswith(f"data set {DATASET}: no state")
    assert [request.name for request in server.requests] == ["GetDatasetStatus"]


def test_a_file_that_does_not_arrive(server: FakeKaggle, package) -> None:
    server.broken_uploads = {"fold0.safetensors"}
    expected = "fold0.safetensors could not be uploaded; run the same command again"
    assert refusal(push, *package) == f"data set {DATASET} was not uploaded: {expected}"
    server.datasets.add(DATASET)
    assert expected in refusal(push, *package)
    for name in ("CreateDataset", "CreateDatasetVersion", "SaveKernel"):
        assert not server.called(name)


def test_token_instead_of_key(server: FakeKaggle, package, monkeypatch) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_0123456789")
    assert push_kernel(package[1]) == (URL, 1)
    sent = server.called("SaveKernel")[0]
    assert sent.headers["Authorization"] == "Bearer KGAT_0123456789"


def test_submit(server: FakeKaggle) -> None:
    answer = submit("nyu", KERNEL, 3, "submission.csv", "-5 folds, 'TTA'")
    assert "Successfully submitted" in answer
    assert server.called("CreateCodeSubmission")[0].json == {
        "competitionName": "nyu",
        "kernelOwner": "alice",
        "kernelSlug": "nyuv2-inference",
        "kernelVersion": 3,
        "fileName": "submission.csv",
        "submissionDescription": "-5 folds, 'TTA'",
    }


def test_submit_refused(server: FakeKaggle) -> None:
    server.submit_message = "Your daily limit is reached"
    message = refusal(submit, "nyu", KERNEL, 3, "submission.csv", "text")
    assert "Your daily limit is reached; look at the competition's list" in message
    server.submit_message = "Not submitted"
    assert "Not submitted" in refusal(submit, "nyu", KERNEL, 3, "submission.csv", "text")
    server.errors = {"CreateCodeSubmission": error(404, "Competition not found")}
    message = refusal(submit, "nyu", KERNEL, 3, "submission.csv", "text")
    assert "Competition not found" in message


# Without it


@pytest.mark.parametrize(
    "change",
    [{"competition": "c/nyu"}, {"kernel": "nyuv2"}, {"version": 0}, {"file_name": "a/b.csv"}],
)
def test_submit_checks_first(change: dict[str, object]) -> None:
    arguments = {
        "competition": "nyu",
        "kernel": KERNEL,
        "version": 3,
        "file_name": "submission.csv",
        "message": "text",
    }
    with pytest.raises(UserError, match=next(iter(change)).partition("_")[0]):
        submit(**(arguments | change))


def test_nothing_is_sent_when_the_package_is_wrong(package, monkeypatch, tmp_path: Path) -> None:
    stub(tmp_path, monkeypatch, "open(__file__ + '.called', 'w')")
    dataset, kernel = package
    (dataset / "wheels").mkdir()
    assert "wheels: not a file" in refusal(push, dataset, kernel)
    (dataset / "wheels").rmdir()
    write_json(dataset / "manifest.json", MANIFEST.model_dump(exclude={"fingerprint"}))
    assert "manifest.json: lacks fingerprint" in refusal(push, dataset, kernel)
    (dataset / "manifest.json").unlink()
    assert "manifest.json: no such file" in refusal(push, dataset, kernel)
    MANIFEST.write(dataset / "manifest.json")
    path = kernel / "kernel-metadata.json"
    meta = json.loads(path.read_text())
    write_json(path, meta | {"dataset_sources": ["alice/other-data"]})
    assert f"dataset_sources: {DATASET} is missing" in refusal(push, dataset, kernel)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(meta).encode())
    assert "BOM" in refusal(push, dataset, kernel)
    assert not list(tmp_path.rglob("*.called"))


def test_missing_client(package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = refusal(push, *package)
    assert message == f"Kaggle's client is not installed: {kaggle_client.INSTALL}"


def test_a_folder_named_kaggle_is_no_client(package, monkeypatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda _: importlib.machinery.ModuleSpec("x", None)
    )
    assert "not installed" in refusal(push, *package)


def test_client_without_six(package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub(tmp_path, monkeypatch, "import six_that_is_missing")
    message = refusal(push, *package)
    assert "No module named 'six_that_is_missing'" in message
    assert kaggle_client.INSTALL in message


def test_missing_credentials(package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub(tmp_path, monkeypatch, "open(__file__ + '.called', 'w')")
    monkeypatch.delenv("KAGGLE_KEY")
    for action in (lambda: push(*package), lambda: submit("nyu", KERNEL, 1, "a.csv", "text")):
        message = refusal(action)
        for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "~/.kaggle"):
            assert name in message
    assert not list(tmp_path.rglob("*.called"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HOME/.kaggle/kaggle.json", {"username": "alice", "key": KEY}),
        ("XDG_CONFIG_HOME/kaggle/kaggle.json", {"username": "alice", "key": KEY}),
        ("HOME/.kaggle/access_token", KEY),
        ("HOME/.kaggle/credentials.json", {"refresh_token": KEY}),
    ],
)
def test_credentials_in_files_are_found_and_hidden(
    package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: object
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.delenv("KAGGLE_USERNAME")
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    stub(tmp_path, monkeypatch, f"sys.stderr.write('bad key {KEY}'); os._exit(1)")
    assert refusal(push_kernel, package[1]) == f"kernel {KERNEL} was not pushed: bad key ***"


def test_credentials_are_hidden_in_all_forms(package, monkeypatch, tmp_path: Path) -> None:
    code = (
        "import base64\n"
        "key = os.environ['KAGGLE_KEY']\n"
        "coded = base64.b64encode(f'alice:{key}'.encode()).decode()\n"
        "raise ValueError(f'failed {key} KGAT_abc Basic x1 Bearer y2 {coded}')"
    )
    stub(tmp_path, monkeypatch, code)
    message = refusal(push_kernel, package[1])
    assert message.endswith("failed *** *** Basic *** Bearer *** ***")


def test_the_real_site_is_never_taken_for_a_test_server(package, monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    assert "real site" in refusal(push, *package)


def test_these_tests_cannot_reach_the_real_site(server, package, monkeypatch) -> None:
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT")
    message = refusal(push_kernel, package[1])
    assert "ProxyError" in message and "api.kaggle.com" in message
    assert not server.requests


def test_every_call_has_a_fresh_temporary_folder(package, monkeypatch, tmp_path: Path) -> None:
    code = "raise ValueError(f\"{os.environ['TMPDIR']} {os.listdir(os.environ['TMPDIR'])}\")"
    stub(tmp_path, monkeypatch, code)
    first, second = refusal(push_kernel, package[1]), refusal(push_kernel, package[1])
    assert first != second
    assert first.endswith(" []")
    assert not Path(first.split()[-2]).exists()
    assert list((tmp_path / "TMPDIR").iterdir()) == []


def test_a_client_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub(tmp_path, monkeypatch, "time.sleep(60)")
    assert "no answer in 0.2 s" in refusal(kaggle_client.call, "kernels_push", 0.2)


def test_a_client_that_says_nothing(package, monkeypatch, tmp_path: Path) -> None:
    stub(tmp_path, monkeypatch, "os._exit(0)")
    assert "no answer, exit code 0" in refusal(push_kernel, package[1])


def test_a_data_set_that_never_gets_ready(server: FakeKaggle, package) -> None:
    server.datasets.add(DATASET)
    server.states = ["ready", *["blobs_received"] * 100]
    message = refusal(push_dataset, package[0], 0.2, 0.01)
    assert f"data set {DATASET}: still 'blobs_received' after 0.2 s" in message


@pytest.mark.parametrize("word", ["failed", "deleted"])
def test_a_data_set_that_cannot_be_unpacked(server: FakeKaggle, package, word: str) -> None:
    server.datasets.add(DATASET)
    server.states = ["ready", word]
    assert f"Kaggle says '{word}'" in refusal(push_dataset, package[0], 30, 0.01)


def test_a_deleted_data_set(server: FakeKaggle, package) -> None:
    server.datasets.add(DATASET)
    server.states = ["deleted"]
    assert "deleted on Kaggle; choose another title" in refusal(push_dataset, package[0])


def test_one_lost_answer_while_waiting_is_told(server: FakeKaggle, package, capsys) -> None:
    server.datasets.add(DATASET)
    server.states = ["ready", 503]
    push_dataset(package[0], 30, 0.01)
    told = f"data set {DATASET}: no state (Kaggle cannot be reached now"
    assert told in capsys.readouterr().out
