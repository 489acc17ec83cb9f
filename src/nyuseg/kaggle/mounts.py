"""Finding what is mounted where only part of the path is known."""

from pathlib import Path


def find_all(root: Path, marker: str, depth: int = 6) -> list[Path]:
    """Folders at or below `root` that hold `marker`, the nearest first, then by name.

    Looks `depth` levels down; passes over what cannot be read, and never looks into the folders of
    frames below train/ and test/, which hold thousands of files.
    """
    found, level, seen = [], [root], set()
    for _ in range(depth + 1):
        below = []
        for folder in level:
            try:
                if folder.resolve() in seen:
                    continue
                seen.add(folder.resolve())
                if (folder / marker).exists():
                    found.append(folder)
                if folder.name not in ("train", "test"):
                    below += sorted(path for path in folder.iterdir() if path.is_dir())
            except OSError:
                continue
        level = below
    return found


def describe(root: Path) -> str:
    """The folders mounted below `root`, three levels deep, twenty at most; 'nothing' if none."""
    levels = [path for depth in ("*", "*/*", "*/*/*") for path in sorted(root.glob(depth))]
    folders = [str(path) for path in levels if path.is_dir()]
    return ", ".join(folders[:20]) or "nothing"
