"""Pure-Python wheels, made from what is installed: what is shipped is what was tested."""

import base64
import hashlib
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from nyuseg import __version__
from nyuseg.utils.errors import UserError

# Any fixed date will do: the same files give the same archive.
_DATE = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: nyuseg\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_START = "nyuseg.kaggle.kernel"


class _OwnModules(ModuleFinder):
    """Follows the imports of this library, those inside functions too, and no other's."""

    def import_hook(self, name: str, *rest: Any, **named: Any) -> Any:
        is_own = name.partition(".")[0] == "nyuseg"
        return super().import_hook(name, *rest, **named) if is_own else None


def own_wheel(folder: Path) -> Path:
    """Write what the kernel imports of this library as a wheel into `folder`; returns its path."""
    source = Path(__file__).parents[2]
    finder = _OwnModules([str(source)])
    finder.import_hook(_START)
    paths = [Path(str(getattr(module, "__file__", ""))) for module in finder.modules.values()]
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
    info = f"nyuseg-{__version__}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: nyuseg\nVersion: {__version__}\nLicense: MIT\n".encode()
    )
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    return _write(folder / f"nyuseg-{__version__}-py3-none-any.whl", files.items(), info)


def repack(name: str, folder: Path) -> Path:
    """Write an installed pure-Python package as a wheel into `folder`; returns its path.

    Raises UserError when the package is not installed or holds compiled code.
    """
    try:
        dist = distribution(name)
    except PackageNotFoundError:
        raise UserError(f"{name} is not installed; run 'make .venv/installed'") from None
    if "py3-none-any" not in (dist.read_text("WHEEL") or ""):
        raise UserError(f"{name}: not a pure-Python package, it cannot be shipped")
    inside = [
        path
        for path in dist.files or []
        if ".." not in path.parts and "__pycache__" not in path.parts
    ]
    info = next(path.parts[0] for path in inside if path.parts[0].endswith(".dist-info"))
    # What the installer added is not part of the package.
    added = {f"{info}/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")}
    files = [(str(path), path.read_binary()) for path in inside if str(path) not in added]
    distribution_name = info.removesuffix(".dist-info")
    return _write(folder / f"{distribution_name}-py3-none-any.whl", files, info)


def _write(path: Path, files: Iterable[tuple[str, bytes]], info: str) -> Path:
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files):
            archive.writestr(_entry(name), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        archive.writestr(_entry(f"{info}/RECORD"), f"{record}{info}/RECORD,,\n")
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
