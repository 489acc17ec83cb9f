"""Draw the pictures of the documentation: python docs/draw.py (needs matplotlib, no torch)."""

from itertools import pairwise
from pathlib import Path

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).resolve().parent
# A light card with dark text, so that it reads the same in a light and in a dark theme.
CARD, INK, GREY = "#f7f8fa", "#1f2733", "#5b6675"
BLUE, GREEN, ORANGE, VIOLET, WHITE = "#d6e6fb", "#d5efd9", "#fde3c4", "#e6dcf7", "#ffffff"
# The library's folders in the order of their imports, and what a newcomer finds there.
FOLDERS = {
    "utils": "files, locks, signals, command line",
    "config": "every key of an experiment",
    "data": "frames, depth, classes, folds",
    "demo": "procedural rooms",
    "experiment": "the folder oof/<name>",
    "dataloading": "letterboxing, augmentation, network input",
    "models": "networks, release weights, devices",
    "inference": "views, ensemble, predictor, masks",
    "submission": "run-length encoding, files to submit",
    "evaluation": "metrics, intervals, out-of-fold scores",
    "training": "losses, optimizer, averages, checkpoints",
    "ensembling": "blends of experiments",
    "analysis": "comparison, leaks, search for views",
    "report": "pages to look at scores, errors and submissions",
    "kaggle": "the kernel: package, check, upload",
}


class Picture:
    """A card of `width` x `height` points; y grows downwards."""

    def __init__(self, width: int, height: int) -> None:
        self.figure = Figure(figsize=(width / 72, height / 72))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")
        card = FancyBboxPatch(
            (3, 3), width - 6, height - 6, "round,pad=0,rounding_size=12", fc=CARD, ec="#c9d0d9"
        )
        self.axes.add_patch(card)

    def text(self, x: float, y: float, text: str, size: float = 11, **style: object) -> None:
        """Lines around a height `y`, each placed by itself: viewers have fonts of other widths."""
        style = {"color": INK, "va": "center", "ha": "left", **style}
        lines, pitch = text.split("\n"), 1.45 * size
        for number, line in enumerate(lines):
            down = pitch * (number - (len(lines) - 1) / 2)
            self.axes.text(x, y + down, line, fontsize=size, **style)

    def box(self, x: float, y: float, w: float, h: float, title: str, text: str, fc: str) -> None:
        """A box with a bold title and lines below it."""
        style = "round,pad=0,rounding_size=6"
        self.axes.add_patch(FancyBboxPatch((x, y), w, h, style, fc=fc, ec=GREY, lw=0.9))
        below = text.count("\n") + 1 if text else 0
        top = y + h / 2 - 7 * below
        self.text(x + w / 2, top, title, ha="center", weight="bold")
        self.text(x + w / 2, top + 9 + 7 * below, text, 9.5, ha="center", color="#39434f")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], **style: object) -> None:
        style = {"arrowstyle": "-|>", "mutation_scale": 13, "lw": 1.5, "color": INK, **style}
        self.axes.add_patch(FancyArrowPatch(start, end, shrinkA=1, shrinkB=1, **style))

    def row(self, y: float, h: float, boxes: list[tuple[float, float, str, str, str]]) -> None:
        """Boxes (x, width, title, text, colour) from left to right, joined by arrows."""
        for x, w, title, text, fc in boxes:
            self.box(x, y, w, h, title, text, fc)
        for (x, w, *_), (after, *_) in pairwise(boxes):
            self.arrow((x + w, y + h / 2), (after, y + h / 2))

    def save(self, name: str) -> None:
        facts = {"Date": None, "Creator": None}
        self.figure.savefig(
            HERE / name,
            metadata=facts if name.endswith("svg") else None,
            transparent=True,
            dpi=110,
        )


def pipeline() -> Picture:
    """From the frames to the submission."""
    picture = Picture(960, 346)
    picture.text(24, 30, "Train five folds, split by room", 12.5, weight="bold")
    frames = (24, 148, "Training frames", "RGB, depth in mm,\n13 classes + void", BLUE)
    fold = (204, 130, "Fold k of 5", "4/5 of the rooms train,\n1/5 is held out", BLUE)
    masks = (662, 126, "Held-out masks", "of rooms that the\nnetwork never saw", ORANGE)
    score = (820, 116, "mIoU", "one matrix over\nall five folds", ORANGE)
    picture.row(50, 96, [frames, fold])
    picture.row(50, 96, [masks, score])
    _network(picture)
    picture.text(24, 226, "Predict: one path, here and in the Kaggle kernel", 12.5, weight="bold")
    picture.row(
        246,
        76,
        [
            (24, 148, "Test frames", "RGB and depth,\nno labels", BLUE),
            (204, 130, "Views", "as it is, mirrored", VIOLET),
            (366, 148, "Five networks", "class probabilities\nof each view", GREEN),
            (546, 84, "Mean", "", VIOLET),
            (662, 126, "Masks", "likeliest class,\nnative size", ORANGE),
            (820, 116, "Submission", "run lengths, array,\nPNG files", ORANGE),
        ],
    )
    picture.arrow((725, 246), (725, 146), linestyle=(0, (3, 2)), mutation_scale=11)
    picture.text(734, 184, "the same path makes these,\nwith one network each", 9.5, color=GREY)
    return picture


def _network(picture: Picture) -> None:
    picture.box(366, 50, 264, 96, "", "", WHITE)
    picture.box(374, 58, 84, 80, "ResNet101", "RGB and\ninverse depth", GREEN)
    picture.box(470, 58, 66, 80, "DeepLab", "V3+\ndecoder", GREEN)
    picture.box(550, 58, 72, 36, "classes", "", GREEN)
    picture.box(550, 102, 72, 36, "depth", "", GREEN)
    picture.arrow((334, 98), (366, 98))
    picture.arrow((630, 98), (662, 98))
    picture.arrow((458, 98), (470, 98), mutation_scale=9)
    picture.arrow((536, 88), (550, 78), mutation_scale=9)
    picture.arrow((536, 108), (550, 118), mutation_scale=9)
    picture.arrow((470, 146), (470, 246))
    picture.text(480, 184, "five sets of weights", 9.5, color=GREY)


def ways() -> Picture:
    """The two ways through the code: of a frame and of a value of the configuration."""
    picture = Picture(960, 378)
    picture.text(24, 30, "A frame: from PNG to mask", 12.5, weight="bold")
    picture.row(
        48,
        70,
        [
            (24, 136, "data/", "read and check,\npixels as integers", BLUE),
            (184, 136, "dataloading/", "letterbox, batch;\nfloat channels", BLUE),
            (344, 136, "models/", "logits and depth,\nstride 4", GREEN),
            (504, 146, "inference/", "softmax; mean over\nviews and networks", VIOLET),
            (674, 110, "inference/", "likeliest class,\nnative size", VIOLET),
            (808, 128, "Mask", "submission/ writes it,\nor oof/ keeps it", ORANGE),
        ],
    )
    picture.box(184, 152, 136, 52, "training only", "label, augmentation", WHITE)
    picture.arrow((252, 152), (252, 118), mutation_scale=11)
    picture.box(344, 152, 136, 52, "training/", "losses, optimizer", WHITE)
    picture.arrow((412, 118), (412, 152), mutation_scale=11)
    picture.box(674, 152, 262, 52, "evaluation/", "compares masks with labels, afterwards", WHITE)
    picture.arrow((872, 118), (872, 152), mutation_scale=11)
    picture.text(24, 240, "A config value: from YAML to where it acts", 12.5, weight="bold")
    picture.row(
        258,
        92,
        [
            (24, 160, "configs/mine.yaml", "laid over its parent,\nthen --set KEY=VALUE", BLUE),
            (216, 160, "config/", "each key's type, range\nand default; others\nare refused", BLUE),
            (
                408,
                160,
                "oof/mine/config.yaml",
                "kept whole; compute, tta,\nsubmission and folds.full\nmay still change",
                ORANGE,
            ),
        ],
    )
    picture.box(608, 226, 328, 134, "", "", WHITE)
    for number, line in enumerate(SECTIONS):
        section, _, folder = line.partition(" ")
        picture.text(622, 240 + 13.4 * number, section, 9.5, weight="bold")
        picture.text(706, 240 + 13.4 * number, folder, 9.5)
    picture.arrow((568, 304), (608, 304))
    return picture


def folders() -> Picture:
    """The folders of src/nyuseg in the order of their imports."""
    step, top = 33, 62
    picture = Picture(720, top + step * len(FOLDERS) + 22)
    title = "src/nyuseg: a folder imports only from folders above it"
    picture.text(24, 32, title, 12.5, weight="bold")
    for number, (name, text) in enumerate(FOLDERS.items()):
        colour = [GREEN, BLUE, VIOLET, ORANGE, WHITE][_group(name)]
        y = top + step * number
        picture.box(70, y, 130, step - 7, name, "", colour)
        picture.text(214, y + 13, text, 10.5)
    last = top + step * len(FOLDERS) - 7
    picture.arrow((46, last), (46, top), lw=2)
    picture.text(34, (top + last) / 2, "imports", 10, rotation=90, ha="center", color=GREY)
    _braces(picture, top, step)
    return picture


GROUPS = {
    "without torch": ("utils", "config", "data", "demo", "experiment"),
    "from a frame\nto a mask": ("dataloading", "models", "inference", "submission"),
    "learning\nand scoring": ("evaluation", "training"),
    "choosing": ("ensembling", "analysis", "report"),
    "submitting": ("kaggle",),
}

# Sections of the configuration and the folders that are handed them.
SECTIONS = (
    "data dataloading/, models/",
    "model models/",
    "augment dataloading/",
    "train training/",
    "folds data/",
    "compute training/, inference/",
    "predict training/",
    "tta inference/",
    "submission submission/",
)


def _group(name: str) -> int:
    return next(i for i, names in enumerate(GROUPS.values()) if name in names)


def _braces(picture: Picture, top: int, step: int) -> None:
    names = list(FOLDERS)
    for title, members in GROUPS.items():
        first, last = (top + step * names.index(members[i]) for i in (0, -1))
        end = last + step - 7
        picture.axes.plot([552, 560, 560, 552], [first, first, end, end], color=GREY, lw=1.2)
        picture.text(572, (first + end) / 2, title, 10.5, color=INK)


def main() -> None:
    """Write the pictures as SVG beside this file."""
    # Text stays text: a small file. Other fonts than DejaVu are narrower, so everything fits.
    rcParams.update({"svg.hashsalt": "nyuseg", "svg.fonttype": "none"})
    rcParams["font.sans-serif"] = ["DejaVu Sans", "Verdana", "Arial"]
    pipeline().save("pipeline.svg")
    folders().save("folders.svg")
    ways().save("ways.svg")


if __name__ == "__main__":
    main()
