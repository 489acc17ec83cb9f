"""Which files of a folder are frames. Whatever lists a folder of frames asks here.

A frame's file is named after its id: id.png, id.jpg or id.jpeg, in capitals or not; what is inside
is for others to judge. What systems and notebooks leave in any folder is passed over; all else is
named.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nyuseg.utils.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg")
# Besides hidden files, such as .DS_Store, ._000001.png or .ipynb_checkpoints.
_LEFT_BEHIND = {"__macosx", "@eadir", "desktop.ini", "ehthumbs.db", "thumbs.db"}
# A frame that nothing here reads: leaving it out would be leaving out an image.
_PICTURES = {
    *(".avif", ".bmp", ".dib", ".exr", ".gif", ".hdr", ".heic", ".jfif", ".jp2", ".jpe", ".jxl"),
    *(".mat", ".npy", ".npz", ".pfm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: the file (or folder) and what is wrong with it, one line.

    stops: whether work on these data cannot go on; otherwise a warning will do.
    """

    path: Path
    what: str
    stops: bool = True

    def __str__(self) -> str:
        line = f"{self.path}: {self.what}"
        # A name can hold what breaks a line or what no terminal shows.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def list_files(folder: Path) -> tuple[dict[str, Path], list[Fault]]:
    """The frames' files of a folder by id, ids sorted, and a fault for all else that lies there.

    Two files of one id are a fault. A folder that does not exist is empty. Raises UserError for
    one that cannot be read.
    """
    files: dict[str, Path] = {}
    faults = []
    for path in visible(folder):
        if path.suffix.lower() not in ENDINGS:
            faults.append(_stranger(path))
        elif path.stem in files:
            what = f"a second file of id {path.stem}, beside {files[path.stem].name}; keep one"
            faults.append(Fault(path, what))
        else:
            files[path.stem] = path
    return dict(sorted(files.items())), faults


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden files and what systems leave everywhere."""
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    return [p for p in paths if not p.name.startswith(".") and p.name.lower() not in _LEFT_BEHIND]


def _stranger(path: Path) -> Fault:
    if path.is_dir():
        return Fault(path, f"a folder; frames lie directly in {path.parent}, move it away")
    endings = [ending.lower().rstrip("~") for ending in path.suffixes]
    if _PICTURES.intersection(endings):
        what = f"a {path.suffix} file, which is not read; frames are PNG files, images also JPEG"
        return Fault(path, what)
    if {*endings} & {*ENDINGS}:
        return Fault(path, "an unfinished or renamed picture; complete or remove it")
    return Fault(path, "no frame; not used, move it away", stops=False)


@lru_cache(maxsize=16)
def _listed(folder: Path, changed: int) -> dict[str, Path]:
    return list_files(folder)[0]


def find_file(folder: Path, image_id: str) -> Path:
    """The file of an id in a folder, whatever its ending; id.png when there is none.

    The folder is listed once, and again when it has changed.
    """
    path = folder / f"{image_id}.png"
    if path.exists() or not folder.is_dir():
        return path
    return _listed(folder, folder.stat().st_mtime_ns).get(image_id, path)


def refuse(faults: Iterable[Fault], command: str = "") -> None:
    """Raise UserError with the first fault that stops; say the others in one line.

    command: what lists all of them, to be run by the user.
    """
    stopping: list[Fault] = []
    others: list[Fault] = []
    for fault in faults:
        (stopping if fault.stops else others).append(fault)
    if stopping:
        raise UserError(_summary(stopping, command))
    if others:
        print(f"!! {_summary(others, command)} !!", flush=True)


def _summary(faults: Sequence[Fault], command: str) -> str:
    more = f"and {len(faults) - 1} more" if len(faults) > 1 else ""
    rest = "; ".join(part for part in (more, command) if part)
    return f"{faults[0]} ({rest})" if rest else str(faults[0])
