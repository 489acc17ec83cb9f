"""Frames on disk, in the competition's layout.

    train/{image,depth,label}/NNNNNN.png     test/{image,depth}/NNNNNN.png     [scenes.csv]

Image: 8-bit RGB, PNG or JPEG; grey, a palette or an opaque alpha will do. Depth: 16-bit, in
millimetres with 0 = missing unless data.depth_unit and data.depth_missing say otherwise. Label:
8-bit grey or palette, 0..12, 255 = void. Both PNG. Which files are frames says
`nyuseg.data.listing`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nyuseg.config.schema import Config
from nyuseg.data.classes import NUM_CLASSES, VOID
from nyuseg.data.listing import find_file, list_files, refuse
from nyuseg.data.picture import JPEG, PNG, damage, format_of
from nyuseg.data.png import decode, decode_numbers
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import require_id, write_bytes

Frame = dict[str, np.ndarray]
KINDS = {"train": ("image", "depth", "label"), "test": ("image", "depth")}
WITHOUT_DEPTH = (
    "to train without depth, use --set 'data.channels=[rgb]' --set model.depth_head=false"
)

# OpenCV logs each undecodable file to stderr; our own error names it once.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def frame_path(root: Path, split: str, kind: str, image_id: str) -> Path:
    """The file of a frame; `split` is train or test, `kind` image, depth or label.

    The one that is there, whatever its ending; png_path when there is none.
    """
    return find_file(root / split / kind, image_id)


def png_path(root: Path, split: str, kind: str, image_id: str) -> Path:
    """Where a new file of a frame is written."""
    return root / split / kind / f"{image_id}.png"


def frame_files(root: Path, ids: Iterable[str], kinds: Iterable[str]) -> dict[str, Path]:
    """The files of training frames by a key, kind/id, that holds wherever the data lies."""
    pairs = [(image_id, kind) for image_id in ids for kind in kinds]
    return {f"{kind}/{one}": frame_path(root, "train", kind, one) for one, kind in pairs}


def list_ids(root: Path, split: str) -> list[str]:
    """Ids of all images of a split, sorted as text. Raises UserError when there are none, for an
    id that cannot be one, and for a file that may be an image but is not read."""
    folder = root / split / "image"
    files, faults = list_files(folder)
    refuse(fault for fault in faults if fault.stops)
    if not files:
        raise UserError(
            f"{folder}: no PNG or JPEG images; put the competition's data there, or write demo data"
            " with 'python src/prepare_data.py demo' and pass --input input/demo"
        )
    for image_id in files:
        require_id(image_id, folder)
    return list(files)


def stored_kinds(root: Path, split: str) -> tuple[str, ...]:
    """What a split has of each frame: all of KINDS, without depth when there is none of any."""
    depth = list_files(root / split / "depth")[0]
    return tuple(kind for kind in KINDS[split] if depth or kind != "depth")


def require_depth(root: Path, split: str, why: str) -> None:
    """Raise UserError, saying why it is needed, when a split has no depth at all."""
    if "depth" not in stored_kinds(root, split):
        raise UserError(f"{root / split / 'depth'}: no depth images; {why}")


def require_training_depth(root: Path, config: Config) -> None:
    """Raise UserError when a configuration needs depth that the data has none of.

    A depth head needs it for training, a channel that is made of it for the test images, too.
    """
    if "depth" in config.training_kinds:
        require_depth(root, "train", WITHOUT_DEPTH)
    if config.data.uses_depth and (root / "test/image").is_dir():
        require_depth(root, "test", WITHOUT_DEPTH)


def read_image(path: Path) -> np.ndarray:
    """Read an image, uint8 [H,W,3] RGB; grey, a palette and an opaque alpha are brought to that.

    The pixels as they are stored: a note in a JPEG that says to turn it is passed over, since depth
    and label were not turned. Raises UserError when it is absent, broken, transparent anywhere or
    not of 8 bits.
    """
    pixels = _decode(path, formats=(PNG, JPEG))
    if pixels.dtype != np.uint8:
        raise UserError(f"{path}: expected an 8-bit RGB image, found {describe(pixels)}")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        transparent = int((pixels[..., 3] < 255).sum())
        if transparent:
            what = f"transparent at {transparent} of its pixels; an image must be opaque"
            raise UserError(f"{path}: {what}")
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_depth(path: Path) -> np.ndarray:
    """Read a depth map, uint16 [H,W], as it is stored. Raises UserError as read_image.

    What its numbers mean is data.depth_unit's to say: see dataset.read_frame. A file that cannot be
    read is an error, never a map of zeros.
    """
    pixels = _decode(path)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise UserError(f"{path}: expected 16-bit depth, found {describe(pixels)}")
    return pixels


def read_label(path: Path) -> np.ndarray:
    """Read a label map, uint8 [H,W] of 0..12 or 255 (void). Raises UserError as read_image.

    Of a palette the indices count; 1 to 16 bits will do, as long as the values fit.
    """
    pixels = _decode(path, decode_numbers)
    if pixels.ndim != 2 or pixels.dtype.kind != "u":
        raise UserError(f"{path}: expected grey or palette labels, found {describe(pixels)}")
    if ((pixels >= NUM_CLASSES) & (pixels != VOID)).any():
        values = sorted(set(np.unique(pixels).tolist()) - {*range(NUM_CLASSES), VOID})
        listed = ", ".join(map(str, values))
        hint = "; if 0 is void there, take 1 from each and make 0 255" if values == [13] else ""
        raise UserError(
            f"{path}: labels outside 0..{NUM_CLASSES - 1} and {VOID}: {listed:.80}{hint}"
        )
    return pixels.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class FrameFolder:
    """The frames of a split, read from their files."""

    root: Path
    split: str

    def read(self, image_id: str, kinds: Sequence[str] = ("image", "depth")) -> Frame:
        """Read one frame at its native size: the arrays of read_image, read_depth, read_label.

        Raises UserError, naming the file, when one is absent, broken, or of another size.
        """
        readers = {"image": read_image, "depth": read_depth, "label": read_label}
        paths = {kind: frame_path(self.root, self.split, kind, image_id) for kind in kinds}
        frame = {kind: readers[kind](path) for kind, path in paths.items()}
        first, size = kinds[0], frame[kinds[0]].shape[:2]
        for kind, pixels in frame.items():
            if pixels.shape[:2] != size:
                height, width = pixels.shape[:2]
                raise UserError(
                    f"{paths[kind]}: {kind} is {height}x{width}, its {first} {size[0]}x{size[1]}"
                )
        return frame


def describe(pixels: np.ndarray) -> str:
    """What an array of pixels is, in words a user knows: '8-bit, 3 channels'."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return f"{pixels.dtype.itemsize * 8}-bit, {channels} channel{'s' * (channels > 1)}"


def _decode(
    path: Path,
    decoder: Callable[[bytes], np.ndarray | None] = decode,
    formats: Sequence[str] = (PNG,),
) -> np.ndarray:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    if format_of(data) not in formats:
        raise UserError(f"{path}: cannot be decoded as {' or '.join(formats)}; copy the file again")
    what = damage(data)
    if what:
        raise UserError(f"{path}: {what}")
    try:
        pixels = decoder(data)
    except cv2.error as error:  # Such as more pixels than it allows, or than fit into memory.
        raise UserError(f"{path}: cannot be decoded ({error.err})") from None
    if pixels is None:
        raise UserError(f"{path}: cannot be decoded; copy the file again")
    return pixels


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H,W] / [H,W,3] (RGB) or uint16 [H,W] pixels as PNG, atomically."""
    write_bytes(path, encode_png(pixels))


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG file of uint8 [H,W] / [H,W,3] (RGB) or uint16 [H,W] pixels."""
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", ordered)
    if not done:
        raise ValueError(f"cannot encode {describe(pixels)} as PNG")
    return data.tobytes()
