"""Kaggle's metadata: every field explicit, and each limit, one by one."""

import json
from pathlib import Path
from typing import Any

import pytest

from nyuseg.kaggle.metadata import (
    DATASET_FILE,
    KERNEL_FILE,
    LICENSES,
    DatasetMetadata,
    KernelMetadata,
    dataset_metadata,
    kernel_metadata,
    slugify,
)
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_json

SUBTITLE = "Weights of the five folds for the kernel"
MISSING = object()


def dataset(**changes: Any) -> dict[str, Any]:
    """Valid metadata with some fields changed; a changed title changes the slug too."""
    meta = dataset_metadata("alice", "NYUv2 weights", SUBTITLE)
    return change(meta.model_dump(), changes)


def kernel(**changes: Any) -> dict[str, Any]:
    meta = kernel_metadata(
        "alice", "NYUv2 inference", "nyu.ipynb", "notebook", "alice/nyuv2-weights", "nyu-depth"
    )
    return change(meta.model_dump(), changes)


def change(meta: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    if isinstance(changes.get("title"), str):
        meta["id"] = f"alice/{slugify(changes['title'])}"
    meta |= changes
    return {field: value for field, value in meta.items() if value is not MISSING}


def check_dataset(values: dict[str, Any]) -> None:
    DatasetMetadata.check(values, DATASET_FILE)


def check_kernel(values: dict[str, Any]) -> None:
    KernelMetadata.check(values, KERNEL_FILE)


def refusal(check: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("NYUv2 weights", "nyuv2-weights"),
        ("  NYUv2: exp060_5 folds + TTA!  ", "nyuv2-exp060-5-folds-tta"),
        ("a--b__c", "a-b-c"),
        ("v0.5 (half)", "v0-5-half"),
        ("***", ""),
    ],
)
def test_slug_is_kaggles(title: str, slug: str) -> None:
    assert slugify(title) == slug
    external = pytest.importorskip("slugify", reason="comes with Kaggle's client")
    assert external.slugify(title) == slug


def test_every_field_is_explicit_and_safe() -> None:
    assert kernel() == {
        "id": "alice/nyuv2-inference",
        "title": "NYUv2 inference",
        "code_file": "nyu.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "docker_image_pinning_type": "original",
        "keywords": [],
        "dataset_sources": ["alice/nyuv2-weights"],
        "competition_sources": ["nyu-depth"],
        "kernel_sources": [],
        "model_sources": [],
    }
    script = kernel_metadata("alice", "NYUv2 script", "a.py", "script", "bob/some-data", None)
    assert script.competition_sources == []
    assert script.kernel_type == "script"
    meta = dataset()
    assert meta["id"] == "alice/nyuv2-weights"
    assert meta["isPrivate"] is True
    assert meta["licenses"] == [{"name": "other"}]
    fields = "id title subtitle description licenses isPrivate keywords resources"
    assert list(meta) == fields.split()


@pytest.mark.parametrize("length", [6, 50])
def test_data_set_titles_at_the_limits(length: int) -> None:
    check_dataset(dataset(title="t" * length))


@pytest.mark.parametrize("length", [5, 50])
def test_kernel_titles_at_the_limits(length: int) -> None:
    check_kernel(kernel(title="t" * length))


@pytest.mark.parametrize("length", [20, 80])
def test_subtitles_at_the_limits(length: int) -> None:
    check_dataset(dataset(subtitle="s" * length))


@pytest.mark.parametrize("name", LICENSES)
def test_licences_that_kaggle_knows(name: str) -> None:
    check_dataset(dataset(licenses=[{"name": name}]))


# Field and a value of it that must be refused with the field's name.
WRONG_IN_BOTH = [
    ("title", 7),
    ("title", "t" * 51),
    ("title", "Überwachte Räume"),
    ("title", "don't do it"),
    ("title", "NYU 1,449 rooms"),
    ("title", "INSERT_TITLE_HERE"),
    ("id", "alice/INSERT_SLUG_HERE"),
    ("id", "alice/another-slug"),
    ("id", "nyuv2-weights"),
    ("id", "/nyuv2-weights"),
    ("id", "al/ice/nyuv2-weights"),
    ("id", "alice/nyuv2_weights"),
    ("id", "alice/NYUv2-weights"),
    ("id", "https://www.kaggle.com/alice/nyuv2-weights"),
    ("id", "datasets/nyuv2-weights"),
    ("id", 12345),
    ("keywords", "nyu"),
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *WRONG_IN_BOTH,
        ("title", "short"),
        ("subtitle", ""),
        ("subtitle", "s" * 19),
        ("subtitle", "s" * 81),
        ("subtitle", None),
        ("licenses", []),
        ("licenses", [{"name": "CC0-1.0"}, {"name": "other"}]),
        ("licenses", ["CC0-1.0"]),
        ("licenses", [{"name": "MIT"}]),
        ("licenses", [{"name": "cc0-1.0"}]),
        ("licenses", [{"name": []}]),
        ("licenses", "other"),
        ("isPrivate", False),
        ("isPrivate", "true"),
        ("isPrivate", 1),
        ("resources", None),
        ("id_no", 7),
        *((field, MISSING) for field in DatasetMetadata.model_fields),
    ],
)
def test_data_set_refuses(field: str, value: Any) -> None:
    message = refusal(check_dataset, dataset(**{field: value}))
    assert message.startswith(f"dataset-metadata.json: {field}: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *WRONG_IN_BOTH,
        ("title", "four"),
        ("code_file", "nyu.py"),
        ("code_file", "folder/nyu.ipynb"),
        ("code_file", "../nyu.ipynb"),
        ("code_file", "INSERT_CODE_FILE_PATH_HERE"),
        ("code_file", None),
        ("language", "r"),
        ("kernel_type", "rmarkdown"),
        ("kernel_type", []),
        ("is_private", False),
        ("is_private", "true"),
        ("enable_gpu", "true"),
        ("enable_gpu", 1),
        ("enable_tpu", True),
        ("enable_internet", True),
        ("enable_internet", "false"),
        ("enable_internet", 0),
        ("machine_shape", ""),
        ("machine_shape", None),
        ("machine_shape", "NvidiaTeslaP100"),
        ("docker_image_pinning_type", "newest"),
        ("dataset_sources", "alice/nyuv2-weights"),
        ("dataset_sources", ["datasets/alice/nyuv2-weights"]),
        ("dataset_sources", ["alice/nyuv2-weights/3"]),
        ("dataset_sources", ["nyuv2-weights"]),
        ("dataset_sources", [7]),
        ("competition_sources", "nyu-depth"),
        ("competition_sources", ["c/nyu-depth"]),
        ("competition_sources", ["competitions/nyu-depth"]),
        ("competition_sources", ["https://www.kaggle.com/c/nyu-depth"]),
        ("competition_sources", [""]),
        ("kernel_sources", None),
        ("model_sources", {}),
        ("docker_image", "gcr.io/kaggle-images/python@sha256:0"),
        *((field, MISSING) for field in KernelMetadata.model_fields),
    ],
)
def test_kernel_refuses(field: str, value: Any) -> None:
    message = refusal(check_kernel, kernel(**{field: value}))
    assert message.startswith(f"kernel-metadata.json: {field}: ")


def test_slug_is_short_though_the_title_is_long() -> None:
    assert "id: 'a' has 1 characters" in refusal(check_dataset, dataset(title="a" + " " * 9))
    assert "id: 'ab' has 2 characters" in refusal(check_kernel, kernel(title="(ab)+ "))


def test_kernel_and_data_set_of_the_same_name() -> None:
    message = refusal(
        kernel_metadata, "bob", "NYUv2 weights", "a.py", "script", "alice/nyuv2-weights", None
    )
    assert "409" in message


def test_builders_check() -> None:
    assert "title" in refusal(dataset_metadata, "alice", "short", SUBTITLE)
    assert "id: 'a b/" in refusal(dataset_metadata, "a b", "NYUv2 weights", SUBTITLE)
    arguments = ("nyu.ipynb", "notebook", "alice/nyuv2-weights", "c/nyu")
    assert "competition" in refusal(kernel_metadata, "alice", "NYUv2 inference", *arguments)


@pytest.mark.parametrize("value", [[], "text", 7, None])
def test_metadata_that_is_no_object(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "meta.json", value)
    for kind in (DatasetMetadata, KernelMetadata):
        message = refusal(kind.read, tmp_path / "meta.json")
        assert message.startswith(f"{tmp_path}/meta.json: lacks an object")


def test_metadata_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / DATASET_FILE
    dataset_metadata("alice", "NYUv2 weights", SUBTITLE).write(path)
    assert json.loads(path.read_text()) == dataset()
    assert DatasetMetadata.read(path).model_dump() == dataset()
    path.write_text(path.read_text().replace('"isPrivate": true', '"isPrivate": false'))
    assert refusal(DatasetMetadata.read, path).startswith(f"{path}: isPrivate: ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "No such file"),
        (b'\xef\xbb\xbf{"cells": []}', "BOM"),
        ('{"cells": ["ä"]}'.encode("latin-1"), "UTF-8"),
        (b"print('not a notebook')", "not a notebook"),
        (b"{}", "no cells"),
        (b"7", "not a notebook"),
    ],
)
def test_code_file(tmp_path: Path, data: bytes | None, reason: str) -> None:
    if data is not None:
        (tmp_path / "nyu.ipynb").write_bytes(data)
    path = tmp_path / KERNEL_FILE
    write_json(path, kernel())
    message = refusal(KernelMetadata.read, path)
    assert message.startswith(f"{path}: code_file: nyu.ipynb ")
    assert reason in message


def test_good_code_files(tmp_path: Path) -> None:
    path = tmp_path / KERNEL_FILE
    (tmp_path / "nyu.ipynb").write_text('{"cells": []}')
    write_json(path, kernel())
    assert KernelMetadata.read(path).code_file == "nyu.ipynb"
    (tmp_path / "nyu.py").write_text("print('a')\n")
    write_json(path, kernel(kernel_type="script", code_file="nyu.py"))
    assert KernelMetadata.read(path).code_file == "nyu.py"
