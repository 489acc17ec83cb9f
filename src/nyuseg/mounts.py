"""Finding what is mounted where only part of the path is known. Standard library alone."""

from pathlib import Path


def find_all(root: Path, marker: str, depth: int = 6) -> list[Path]:
    """Folders at or below `root` that hold `marker`, the nearest first, then by name.

    Looks `depth` levels down and never into folders of frames, which hold thousands of files. The
    kernel's first cell is made of this function's source: keep it free of other names.
    """
    found, level = [], [root]
    for _ in range(depth + 1):
        found += [folder for folder in level if (folder / marker).exists()]
        level = [
            below
            for folder in level
            for below in sorted(folder.iterdir())
            if below.is_dir() and below.name not in ("image", "depth", "label")
        ]
    return found
