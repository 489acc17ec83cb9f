"""The report's folder: pages that open from disk, without a server and without a network."""

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from nyuseg.data.classes import CLASS_NAMES, PALETTE
from nyuseg.evaluation.history import number
from nyuseg.report.pixels import THUMB_SIZE, as_json
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_text

INDEX, BROWSER = "index.html", "images.html"
MARKER = "images.js"  # What a folder must hold to be replaced by a new report.
PACKAGE = files("nyuseg.report")


class Pages:
    """Writes the pages of a report and what they load, all but the frames."""

    def __init__(self, names: Sequence[str], notices: Sequence[str]) -> None:
        """names: what is shown, in the headings; notices: what a reader must know. Raises UserError
        without Plotly."""
        self.names = list(names)
        try:
            self.plotly = Path(str(files("plotly").joinpath("package_data/plotly.min.js")))
        except ModuleNotFoundError:
            raise UserError("a report needs Plotly: pip install -e '.[report]'") from None
        self.templates = jinja2.Environment(
            loader=jinja2.FunctionLoader(_template),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals |= {"names": self.names, "number": number, "classes": CLASS_NAMES}
        self.templates.globals |= {"notices": list(notices), "thumb": THUMB_SIZE}

    def write(
        self,
        folder: Path,
        template: str,
        context: dict[str, Any],
        charts: list[dict[str, Any]],
        rows: list[dict[str, Any]],
        **facts: Any,
    ) -> None:
        """Write index.html by a template, and images.html.

        charts: Plotly's, of the first page. rows: of the images, as static/browse.js reads them.
        facts: what else the scripts know of all images: truth, whether there is one, and networks,
        how many of them differ at most.
        """
        shutil.copyfile(self.plotly, folder / "plotly.min.js")
        for static in PACKAGE.joinpath("static").iterdir():
            write_text(folder / static.name, static.read_text(encoding="utf-8"))
        facts |= {"classes": CLASS_NAMES, "palette": PALETTE.tolist(), "images": rows}
        facts["thumb"] = THUMB_SIZE
        write_text(folder / MARKER, f"const REPORT = {as_json(facts)};\n")
        write_text(folder / "charts.js", f"const CHARTS = {as_json(charts)};\n")
        images = {
            "truth": facts["truth"],
            "scenes": sorted({row["scene"] for row in rows}),
            "folds": sorted({one.get("fold", 0) for row in rows for one in row["scores"]}),
        }
        for page, name, known in (("score", template, context), ("images", BROWSER, images)):
            text = self.templates.get_template(name).render(page=page, **known)
            write_text(folder / (INDEX if page == "score" else BROWSER), text)


def _template(name: str) -> str:
    return PACKAGE.joinpath("templates", name).read_text(encoding="utf-8")
