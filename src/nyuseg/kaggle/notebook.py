"""The kernel's source: kernel_script.py with its two constants set, as a script or a notebook."""

import ast
import json
import re
from pathlib import Path
from types import ModuleType

from nyuseg.utils.errors import UserError

SCRIPT = Path(__file__).with_name("kernel_script.py")
CELL = re.compile(r"^# %% ", re.MULTILINE)


def import_nbformat() -> ModuleType:
    """The library that writes notebooks. Raises UserError when it is not installed."""
    try:
        import nbformat
    except ImportError:
        raise UserError(
            "nbformat, which writes the notebook, is not installed: pip install nbformat, or use "
            "--type script"
        ) from None
    return nbformat


def make_script(fingerprint: str, budget_hours: float) -> str:
    """The kernel for one version of the data set; budget_hours: from its start to its end."""
    source = SCRIPT.read_text(encoding="utf-8")
    for name, value in (("FINGERPRINT", fingerprint), ("BUDGET_HOURS", budget_hours)):
        source = re.sub(rf"(?m)^{name} = .*", f"{name} = {json.dumps(value)}", source)
    return source


def make_notebook(script: str) -> str:
    """The script as a notebook: its docstring as text, a cell at each `# %%` mark.

    Raises UserError as import_nbformat.
    """
    nbformat = import_nbformat()
    text, cells = ast.get_docstring(ast.parse(script)), CELL.split(script)[1:]
    # Without ids of our own nbformat takes random ones.
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(text, id="about"),
            *(
                nbformat.v4.new_code_cell(f"# {cell.strip()}", id=f"cell-{number}")
                for number, cell in enumerate(cells, start=1)
            ),
        ],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )
    return nbformat.writes(notebook) + "\n"
