"""The metadata files of a Kaggle data set and kernel, and the limits they must keep.

Kaggle's client checks some limits, its server others: it makes another slug from the title and
answers 409, for example. Here all are checked before anything is written or sent. Sources: client
2.2.4 and 2.2.5 (`kaggle_api_extended.py`), its docs/datasets_metadata.md and
docs/kernels_metadata.md; the 50 characters of a kernel's title and slug are the web form's.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from nyuseg.utils.errors import UserError

DATASET_FILE = "dataset-metadata.json"
KERNEL_FILE = "kernel-metadata.json"
# The licence 'other' means: as specified here.
DESCRIPTION = (
    "Weights, configuration and library of nyuseg, for a kernel without internet. The code is "
    "under the licences in its wheels; the terms of the training data hold for the weights."
)
# docs/datasets_metadata.md of the client; it passes any other name on (MIT is not one of them).
LICENSES = (
    *("other", "unknown", "copyright-authors", "CC0-1.0", "PDDL", "US-Government-Works"),
    *("CC-BY-3.0", "CC-BY-3.0-IGO", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    *("CC-BY-NC-4.0", "CC-BY-NC-SA-3.0-IGO", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0"),
    *("CC-BY-NC-ND-4.0", "ODbL-1.0", "DbCL-1.0", "ODC-BY-1.0", "CDLA-Permissive-1.0"),
    *("CDLA-Sharing-1.0", "EU-ODP-Legal-Notice", "FDL-1.3", "apache-2.0", "GPL-2.0"),
    *("GPL-3.0", "LGPL-3.0", "AGPL-3.0"),
)
# The server replaces these silently (client 2.2.5, _RETIRED_ACCELERATORS).
RETIRED_MACHINES = frozenset({"nvidiateslap100", "tpuv38", "tpu1vmv38", "tpuv232", "tpuv2256"})
SUFFIXES = {"notebook": ".ipynb", "script": ".py"}
DATASET_FIELDS = (
    *("id", "title", "subtitle", "description", "licenses", "isPrivate", "keywords", "resources"),
)
SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
KERNEL_FIELDS = (
    *("id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu"),
    *("enable_tpu", "enable_internet", "machine_shape", "docker_image_pinning_type"),
    *("keywords", *SOURCES),
)
OWNER = re.compile(r"[A-Za-z0-9_-]+")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Other characters become something that only the server knows.
TITLE = re.compile(r"[A-Za-z0-9 _.:;+()/&-]+")
Meta = dict[str, Any]


def slugify(title: str) -> str:
    """The slug that Kaggle makes of a title: lower case, one dash for all but a-z and 0-9."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def dataset_metadata(owner: str, title: str, subtitle: str) -> Meta:
    """The checked content of dataset-metadata.json: private, every field explicit.

    title: 6 to 50 characters, subtitle: 20 to 80. Raises UserError as check_dataset_metadata.
    """
    meta = {
        "id": f"{owner}/{slugify(title)}",
        "title": title,
        "subtitle": subtitle,
        "description": DESCRIPTION,
        # The weights inherit terms from their training data: only the owner can choose another.
        "licenses": [{"name": "other"}],
        # Not read at creation, but without it `kaggle datasets metadata --update` makes it public.
        "isPrivate": True,
        "keywords": [],
        "resources": [],
    }
    check_dataset_metadata(meta)
    return meta


def kernel_metadata(
    owner: str,
    title: str,
    code_file: str,
    kernel_type: Literal["notebook", "script"],
    dataset: str,
    competition: str | None,
) -> Meta:
    """The checked content of kernel-metadata.json: private, GPU, no internet, all explicit.

    title: 5 to 50 characters; dataset: 'owner/slug'; competition: a slug or None. Raises UserError
    as check_kernel_metadata, which looks at the code file too once there is one.
    """
    meta = {
        "id": f"{owner}/{slugify(title)}",
        "title": title,
        "code_file": code_file,
        "language": "python",
        "kernel_type": kernel_type,
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "docker_image_pinning_type": "original",
        "keywords": [],
        "dataset_sources": [dataset],
        "competition_sources": [] if competition is None else [competition],
        "kernel_sources": [],
        "model_sources": [],
    }
    check_kernel_metadata(meta)
    return meta


def check_dataset_metadata(meta: Meta) -> None:
    """Raise UserError, one line naming the field, where Kaggle or its client would refuse `meta`.

    Stricter than both in one way: a field that the client would ignore is an error.
    """
    _check_fields(meta, DATASET_FIELDS, DATASET_FILE)
    _check_names(meta, DATASET_FILE, title=(6, 50), slug=(6, 50))
    _check_length(DATASET_FILE, "subtitle", meta["subtitle"], (20, 80))
    licenses = meta["licenses"]
    if not isinstance(licenses, list) or len(licenses) != 1:
        raise UserError(
            f"{DATASET_FILE}: licenses: give exactly one, such as [{{'name': 'other'}}]"
        )
    name = licenses[0].get("name") if isinstance(licenses[0], dict) else None
    if name not in LICENSES:
        known = ", ".join(LICENSES)
        raise UserError(f"{DATASET_FILE}: licenses: Kaggle does not know {name!r}, only {known}")
    _check_one_of(meta, "isPrivate", (True,), DATASET_FILE)
    for field in ("keywords", "resources"):
        _check_list(meta, field, DATASET_FILE)


def check_kernel_metadata(meta: Meta, folder: Path | None = None) -> None:
    """Raise UserError, one line naming the field, where Kaggle or its client would refuse `meta`.

    folder: where the kernel lies; without it the code file's name is checked, its content is not.
    Stricter than Kaggle: no internet, private, every field given, none that would be ignored.
    """
    _check_fields(meta, KERNEL_FIELDS, KERNEL_FILE)
    _check_names(meta, KERNEL_FILE, title=(5, 50), slug=(5, 50))
    for field, value in (("language", "python"), ("is_private", True), ("enable_internet", False)):
        _check_one_of(meta, field, (value,))
    for field in ("enable_gpu", "enable_tpu"):
        _check_one_of(meta, field, (True, False))
    if meta["enable_gpu"] and meta["enable_tpu"]:
        raise UserError(f"{KERNEL_FILE}: enable_tpu: a session has a GPU or a TPU, not both")
    _check_one_of(meta, "kernel_type", tuple(SUFFIXES))
    _check_one_of(meta, "docker_image_pinning_type", ("original", "latest"))
    machine = meta["machine_shape"]
    if not isinstance(machine, str) or not machine or machine.lower() in RETIRED_MACHINES:
        raise UserError(f"{KERNEL_FILE}: machine_shape: {machine!r} is none or a retired machine")
    for field in ("keywords", *SOURCES):
        _check_list(meta, field, KERNEL_FILE)
    _check_sources(meta)
    _check_code_file(meta, folder)


def _check_fields(meta: Meta, fields: Sequence[str], file: str) -> None:
    if not isinstance(meta, dict):
        raise UserError(f"{file}: must hold one JSON object with the fields {', '.join(fields)}")
    for field in fields:
        if field not in meta:
            raise UserError(f"{file}: {field}: missing; every field is written out")
    for field, value in meta.items():
        if field not in fields:
            raise UserError(f"{file}: {field}: unknown; Kaggle's client would ignore it")
        if "INSERT_" in json.dumps(value):
            raise UserError(f"{file}: {field}: still holds the template's value {value!r}")


def _check_names(meta: Meta, file: str, title: tuple[int, int], slug: tuple[int, int]) -> None:
    _check_length(file, "title", meta["title"], title)
    if not TITLE.fullmatch(meta["title"]):
        raise UserError(
            f"{file}: title: {meta['title']!r}: use a-z, A-Z, 0-9, spaces and _ . : ; + ( ) / & - "
            "only, so that the slug which Kaggle makes of it is known"
        )
    owner, name = _split(meta["id"], file, "id")
    _check_length(file, "id", name, slug)
    if name != slugify(meta["title"]):
        raise UserError(
            f"{file}: id: the slug is '{name}', but Kaggle makes '{slugify(meta['title'])}' of the "
            "title and would answer 409; they must agree"
        )
    if owner in ("datasets", "code", "c"):
        raise UserError(f"{file}: id: '{owner}/' is a part of the web address, not an owner")


def _split(reference: object, file: str, field: str) -> tuple[str, str]:
    """Owner and slug of 'owner/slug'."""
    parts = reference.split("/") if isinstance(reference, str) else []
    if len(parts) != 2 or not OWNER.fullmatch(parts[0]) or not SLUG.fullmatch(parts[1]):
        raise UserError(
            f"{file}: {field}: {reference!r} is not owner/slug; the owner has letters, digits, _ "
            "and -, the slug a-z, 0-9 and single dashes"
        )
    return parts[0], parts[1]


def _check_length(file: str, field: str, text: object, limits: tuple[int, int]) -> None:
    if not isinstance(text, str) or not limits[0] <= len(text) <= limits[1]:
        found = f"{len(text)} characters" if isinstance(text, str) else "no text"
        raise UserError(
            f"{file}: {field}: {text!r} has {found}, Kaggle allows {limits[0]} to {limits[1]}"
        )


def _check_one_of(
    meta: Meta, field: str, values: Sequence[object], file: str = KERNEL_FILE
) -> None:
    # 1 == True in Python, but not for Kaggle's client.
    if not any(meta[field] == value and type(meta[field]) is type(value) for value in values):
        allowed = " or ".join(json.dumps(value) for value in values)
        raise UserError(f"{file}: {field}: must be {allowed}, not {json.dumps(meta[field])}")


def _check_list(meta: Meta, field: str, file: str) -> None:
    if not isinstance(meta[field], list):
        raise UserError(f"{file}: {field}: must be a list, not {json.dumps(meta[field])}")


def _check_sources(meta: Meta) -> None:
    own = meta["id"].partition("/")[2]
    for source in meta["dataset_sources"]:
        if isinstance(source, str) and source.startswith("datasets/"):
            raise UserError(f"{KERNEL_FILE}: dataset_sources: {source!r}: leave 'datasets/' out")
        if _split(source, KERNEL_FILE, "dataset_sources")[1] == own:
            raise UserError(
                f"{KERNEL_FILE}: id: the data set has the slug '{own}' too, Kaggle answers 409; "
                "give the kernel another title"
            )
    for source in meta["competition_sources"]:
        if not isinstance(source, str) or not SLUG.fullmatch(source):
            raise UserError(
                f"{KERNEL_FILE}: competition_sources: {source!r} is not a slug: give the last part "
                "of the competition's address alone, without c/ or https://"
            )


def _check_code_file(meta: Meta, folder: Path | None) -> None:
    name, kind = meta["code_file"], meta["kernel_type"]
    if not isinstance(name, str) or name != Path(name).name or not name.endswith(SUFFIXES[kind]):
        raise UserError(
            f"{KERNEL_FILE}: code_file: {name!r} must be the name of a {SUFFIXES[kind]} file in "
            f"the same folder, because the kernel_type is {kind}"
        )
    if folder is None:
        return
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise UserError(f"{KERNEL_FILE}: code_file: {folder / name}: {error.strerror}") from None
    if data.startswith(b"\xef\xbb\xbf"):
        raise UserError(f"{KERNEL_FILE}: code_file: {folder / name} begins with a BOM; remove it")
    try:
        text = data.decode()
        if kind == "notebook" and "cells" not in json.loads(text):
            raise ValueError("no cells")
    except (TypeError, ValueError) as error:
        wanted = "a notebook in UTF-8" if kind == "notebook" else "UTF-8"
        raise UserError(
            f"{KERNEL_FILE}: code_file: {folder / name} is not {wanted} ({error})"
        ) from None
