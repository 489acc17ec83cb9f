"""The metadata files of a Kaggle data set and kernel, and the limits they must keep.

Kaggle's client checks some limits, its server others: it makes another slug from the title and
answers 409, for example. Here all are checked before anything is written or sent. Sources: client
2.2.4 and 2.2.5 (`kaggle_api_extended.py`), its docs/datasets_metadata.md and
docs/kernels_metadata.md; the 50 characters of a kernel's title and slug are the web form's.
"""

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json
from nyuseg.utils.records import Record

DATASET_FILE = "dataset-metadata.json"
KERNEL_FILE = "kernel-metadata.json"
# The licence 'other' means: as specified here.
DESCRIPTION = (
    "Weights, configuration and library of nyuseg, for a kernel without internet. The code is "
    "under the licences in its wheels; for the weights hold the terms of the training data and of "
    "the weights that training began with, of which a file LICENSE-... holds the text."
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
SUFFIXES = {"notebook": ".ipynb", "script": ".py"}
SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"
# The server replaces retired ones silently (client 2.2.5, _RETIRED_ACCELERATORS).
WORKING_MACHINE = "(?i)(?!(NvidiaTeslaP100|TpuV38|Tpu1VmV38|TpuV232|TpuV2256)$).+"


def _must(be_right: Callable[[Any], object], otherwise: str) -> AfterValidator:
    """A validator that refuses, in these words, a value for which be_right says nothing true."""

    def check(value: Any) -> Any:
        if be_right(value):
            return value
        raise ValueError(f"{value!r} {otherwise}")

    return AfterValidator(check)


def _match(pattern: str, otherwise: str) -> AfterValidator:
    return _must(re.compile(pattern).fullmatch, otherwise)


def _length(low: int, high: int) -> AfterValidator:
    return _must(lambda text: low <= len(text) <= high, f"must have {low} to {high} characters")


# Literal[True] would take 1 too, but Kaggle's client does not.
Yes = Annotated[bool, _must(lambda value: value, "is refused; it must be true")]
No = Annotated[bool, _must(lambda value: not value, "is refused; it must be false")]
# 'datasets', 'code' and 'c' are parts of the web address, not owners.
REFERENCE = rf"(?!(datasets|code|c)/)[A-Za-z0-9_-]+/{SLUG}"
OF_REFERENCE = (
    "is not owner/slug, without datasets/; the owner has letters, digits, _ and -, the slug a-z, "
    "0-9 and single dashes"
)
Reference = Annotated[str, _match(REFERENCE, OF_REFERENCE)]
# Other characters become something that only the server knows.
TITLE = r"[A-Za-z0-9 _.:;+()/&-]+"
OF_TITLE = "may only hold a-z, A-Z, 0-9, spaces and _ . : ; + ( ) / & -, or its slug is unknown"
Title = Annotated[str, _match(TITLE, OF_TITLE)]
OF_COMPETITION = "is not a slug: give the last part of the competition's address, without c/"


class Metadata(Record, strict=True):
    """What both files hold. Stricter than Kaggle: no field too few, none that it would ignore."""

    shortest: ClassVar[int] = 5  # Slug; the longest has 50 characters.

    id: Reference
    title: Title

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises UserError, naming the field, where Kaggle would refuse it."""
        return cls.check(read_json(path), path)

    @classmethod
    def check(cls, values: dict[str, Any], where: Path | str) -> Self:
        """The metadata with these values; raises UserError as read, naming `where`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {_fault(error)}") from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_template(cls, value: Any) -> Any:
        if "INSERT_" in str(value):
            raise ValueError(f"still holds the template's value {value!r}")
        return value

    @model_validator(mode="after")
    def _slug_of_title(self) -> Self:
        slug = self.id.partition("/")[2]
        if len(slug) < self.shortest:
            raise ValueError(f"id: {slug!r} has {len(slug)} characters, not {self.shortest} to 50")
        if slug != slugify(self.title):
            raise ValueError(
                f"id: the slug is '{slug}', but Kaggle makes '{slugify(self.title)}' of the title "
                "and would answer 409; they must agree"
            )
        return self


class License(Record):
    """An entry of `licenses`; Kaggle reads its name alone."""

    name: Annotated[str, _must(LICENSES.__contains__, f"is none of {', '.join(LICENSES)}")]


class DatasetMetadata(Metadata):
    """dataset-metadata.json, of a private data set."""

    shortest = 6

    title: Annotated[Title, _length(6, 50)]
    subtitle: Annotated[str, _length(20, 80)]
    description: str
    licenses: Annotated[list[License], Field(min_length=1, max_length=1)]
    # Not read at creation, but without it `kaggle datasets metadata --update` makes it public.
    isPrivate: Yes
    keywords: list[str]
    resources: list[Any]


class KernelMetadata(Metadata):
    """kernel-metadata.json, of a private kernel without internet."""

    title: Annotated[Title, _length(5, 50)]
    code_file: str
    language: Literal["python"]
    kernel_type: Literal["notebook", "script"]
    is_private: Yes
    enable_gpu: bool
    enable_tpu: No  # A session has a GPU or a TPU, and nothing here runs on a TPU.
    enable_internet: No
    machine_shape: Annotated[str, _match(WORKING_MACHINE, "is none or a retired machine")]
    docker_image_pinning_type: Literal["original", "latest"]
    keywords: list[str]
    dataset_sources: list[Reference]
    competition_sources: list[Annotated[str, _match(SLUG, OF_COMPETITION)]]
    kernel_sources: list[str]
    model_sources: list[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file, and check the code file beside it. Raises UserError as Metadata.read."""
        meta = super().read(path)
        fault = _code_fault(path.with_name(meta.code_file), meta.kernel_type)
        if fault:
            raise UserError(f"{path}: code_file: {meta.code_file} {fault}")
        return meta

    @model_validator(mode="after")
    def _one_kernel(self) -> Self:
        name, suffix = self.code_file, SUFFIXES[self.kernel_type]
        if name != Path(name).name or not name.endswith(suffix):
            raise ValueError(
                f"code_file: {name!r} must be the name of a {suffix} file in the same folder, "
                f"because the kernel_type is {self.kernel_type}"
            )
        slug = self.id.partition("/")[2]
        if slug in (source.partition("/")[2] for source in self.dataset_sources):
            raise ValueError(f"id: '{slug}' is the data set's too, Kaggle answers 409; retitle it")
        return self


def slugify(title: str) -> str:
    """The slug that Kaggle makes of a title: lower case, one dash for all but a-z and 0-9."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def dataset_metadata(owner: str, title: str, subtitle: str) -> DatasetMetadata:
    """A private data set's metadata, all explicit. Raises UserError as DatasetMetadata.check."""
    meta = {
        "id": f"{owner}/{slugify(title)}",
        "title": title,
        "subtitle": subtitle,
        "description": DESCRIPTION,
        # The weights inherit terms from their training data: only the owner can choose another.
        "licenses": [{"name": "other"}],
        "isPrivate": True,
        "keywords": [],
        "resources": [],
    }
    return DatasetMetadata.check(meta, DATASET_FILE)


def kernel_metadata(
    owner: str,
    title: str,
    code_file: str,
    kernel_type: Literal["notebook", "script"],
    dataset: str,
    competition: str | None,
) -> KernelMetadata:
    """A kernel's metadata: private, GPU, no internet, all explicit.

    dataset: 'owner/slug'; competition: a slug. Raises UserError as KernelMetadata.check; the code
    file may be written later.
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
    return KernelMetadata.check(meta, KERNEL_FILE)


def _fault(error: ValidationError) -> str:
    """In words: the first fault, after its field; what concerns two fields names one itself."""
    fault = error.errors()[0]
    reason = {
        "missing": "missing; every field is written out",
        "extra_forbidden": "unknown; Kaggle's client would ignore it",
        "value_error": str(fault.get("ctx", {}).get("error")),
    }.get(fault["type"], f"{fault['input']!r}: {fault['msg']}")
    return ": ".join([*map(str, fault["loc"]), reason])


def _code_fault(path: Path, kind: str) -> str:
    """What is wrong with a kernel's code file, '' when nothing is."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if data.startswith(codecs.BOM_UTF8):
        return "begins with a BOM; remove it"
    try:
        text = data.decode()
        if kind == "notebook" and "cells" not in json.loads(text):
            raise ValueError("no cells")
    except (TypeError, ValueError) as error:
        return f"is not {'a notebook in UTF-8' if kind == 'notebook' else 'UTF-8'} ({error})"
    return ""
