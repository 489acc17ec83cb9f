"""What the files of a data set hold: by hash, without reading again what nobody touched."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import sha256_file
from nyuseg.utils.prefetch import in_order
from nyuseg.utils.progress import progress
from nyuseg.utils.records import Record


class FileFacts(NamedTuple):
    """Of a file: size in bytes, time of its last change in ns, SHA-256."""

    size: int
    changed: int
    sha256: str


Facts = dict[str, FileFacts]  # By the file's key, see frames.frame_files.


class FilesRecord(Record):
    """files.json: what the training data held when an experiment was begun."""

    files: Facts


def describe(path: Path, known: FileFacts | None = None) -> FileFacts:
    """The facts of a file; it is read only when its size or time are not those that are known.

    Raises UserError when there is no such file.
    """
    try:
        now = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    if known is not None and known[:2] == (now.st_size, now.st_mtime_ns):
        return known
    return FileFacts(now.st_size, now.st_mtime_ns, sha256_file(path))


def describe_all(paths: Mapping[str, Path], known: Facts) -> Facts:
    """The facts of files by key, see describe."""
    threads = os.cpu_count() or 1
    found = in_order(
        lambda key: (key, describe(paths[key], known.get(key))), paths, threads, 2 * threads
    )
    return dict(progress(found, "reading the data's files", len(paths), "file"))


def differences(before: Facts, now: Facts) -> list[str]:
    """Keys, in order, of the files whose content differs, or that only one of the two has."""
    hashes = [{key: fact.sha256 for key, fact in facts.items()} for facts in (before, now)]
    keys = sorted(set(before) | set(now))
    return [key for key in keys if hashes[0].get(key) != hashes[1].get(key)]


def digest(facts: Facts) -> str:
    """SHA-256 over keys and contents; where the files lie and when they were written is no part."""
    lines = [f"{key} {facts[key].sha256}" for key in sorted(facts)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
