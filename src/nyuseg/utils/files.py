"""Files that are either whole or absent, and their hashes."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nyuseg.utils.errors import UserError

_SOURCE = Path(__file__).resolve().parents[2]
# The clone that this code runs from; None when the library is installed on its own.
_IS_CLONE = _SOURCE.name == "src" and (_SOURCE.parent / "configs/exp060.yaml").is_file()
CLONE = _SOURCE.parent if _IS_CLONE else None
# Where data, configurations and results lie by default: the clone, or else the working directory.
PROJECT = CLONE or Path.cwd()

PARTIAL = ".partial"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
PLAIN_LENGTH = 100  # Of a file's name; room is left for what atomic_path adds.
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it becomes `path`.

    The file is flushed to disk before the rename and the folder after it, so that a reader (and
    a machine that loses power) sees the old file or the new one, never a part. On an exception the
    temporary file is removed; a killed process leaves it, see remove_partial. Raises UserError
    when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(f"{path}: the disk is full; what was there before is whole") from None
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove the files that atomic_path left in `folder` when its process was killed.

    names: only the remains of these files; needed where other processes write beside.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        name = path.name[1 : -len(PARTIAL)].rpartition(".")[0]
        if (names is None or name in names) and not path.is_dir():
            path.unlink(missing_ok=True)


def require_safe_name(name: str, where: Path | str) -> None:
    """Raise UserError unless `name` is a plain file name: letters, digits, _ . and -."""
    if not SAFE_NAME.fullmatch(name):
        raise UserError(f"{where}: '{name}' is not a safe name; use letters, digits, _ . and -")


def id_fault(name: str) -> str:
    """Why a text cannot name an image, '' when it can: whatever is the name of one file in UTF-8.

    Blanks, marks and letters of any language will do; what could leave its folder or break a line
    of a table will not.
    """
    kinds = {unicodedata.category(character) for character in name}
    if not name or name.startswith(".") or kinds & {"Cc", "Cs", "Zl", "Zp"} or set(name) & {*"/\\"}:
        return (
            f"{name!r} cannot be the id of an image; it needs a name in UTF-8 that holds no slash "
            "or control character and begins with no dot"
        )
    return ""


def require_id(name: str, where: Path | str) -> None:
    """Raise UserError unless a text can name an image, see id_fault."""
    fault = id_fault(name)
    if fault:
        raise UserError(f"{where}: {fault}")


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """A file's name, without its ending, for each id of a set; good on every file system.

    Most ids keep their own. One that is long, differs from another only in case or holds more than
    letters, digits, _ . and - gets what is plain of it, ~ and a hash.
    """
    ids = list(ids)
    alike = Counter(image_id.lower() for image_id in ids)
    own = {image_id for image_id in ids if _is_plain(image_id) and alike[image_id.lower()] == 1}
    return {image_id: image_id if image_id in own else _hashed(image_id) for image_id in ids}


def _is_plain(name: str) -> bool:
    return len(name) <= PLAIN_LENGTH and SAFE_NAME.fullmatch(name) is not None


def _hashed(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:PLAIN_LENGTH].lstrip(".-")
    return f"{plain}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # Some network disks cannot do this to a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextmanager
def atomic_folder(folder: Path, marker: str) -> Iterator[Path]:
    """Yield a new, empty sibling of `folder`; on success it takes the name of `folder`.

    An earlier folder of that name is replaced as a whole: no old file stays among the new ones.
    Only a folder that holds the file `marker`, or nothing, is replaced: it is one of ours. Call it
    with the folder's lock held: what a killed process left is tidied up first. Raises UserError
    when the parent cannot be written, the folder is something else, or the disk is full.
    """
    old = folder.with_name(f".{folder.name}.old{PARTIAL}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy_up(folder, old)
        if folder.exists() and any(folder.iterdir()) and not (folder / marker).exists():
            raise UserError(f"{folder}: exists and holds no {marker}; it will not be replaced")
        temporary = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=PARTIAL, dir=folder.parent)
        )
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot be written ({error.strerror})") from None
    try:
        yield temporary
        for path in (path for path in temporary.rglob("*") if path.is_file()):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        free = shutil.disk_usage(folder.parent).free / 1e6
        raise UserError(
            f"{folder}: the disk is full, {free:.1f} MB are free; what was there before is whole"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tidy_up(folder: Path, old: Path) -> None:
    """After a kill: bring back what was about to be replaced, remove what was not finished."""
    if old.exists() and not folder.exists():
        old.rename(folder)
    unfinished = re.compile(rf"\.{re.escape(folder.name)}\.[^.]+{re.escape(PARTIAL)}")
    for path in folder.parent.iterdir():
        if unfinished.fullmatch(path.name):
            shutil.rmtree(path)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically. Raises UserError, with sizes, when the disk is full."""
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except UserError:
        missing = max(0, len(data) - shutil.disk_usage(path.parent).free) / 1e6
        raise UserError(
            f"{path}: the disk is full, {missing:.1f} MB are missing; what was there before is "
            "whole; make room and run the same command again"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError, naming the file, when it cannot."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: lacks an object; not a file of this project")
    return value


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(path: str | Path) -> Path:
    """The path as given or, when it is relative and absent here, below PROJECT.

    So `configs/exp060.yaml` means the same from every working directory. Returns the path as
    given when neither exists: the caller's error names what the user typed.
    """
    given = Path(path)
    inside = PROJECT / given
    return inside if not given.exists() and inside.exists() else given
