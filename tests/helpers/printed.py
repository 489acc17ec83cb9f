"""Tables as they are printed, read by the names of their rows and columns."""

import re
from itertools import pairwise

Table = dict[str, dict[str, str]]


def read_table(text: str, head: str) -> Table:
    """{row: {column: cell}} of the table in `text` whose first line begins with `head`.

    Its cells end below the ends of their columns' names, which stand two spaces apart; what stands
    behind the last column is in the column ''. An empty line ends it.
    """
    lines = text[re.search(rf"^{head} ", text, re.MULTILINE).start() :].split("\n\n")[0]
    first, *rest = lines.splitlines()
    _, *columns = re.finditer(r"\S+(?: \S+)*", first)
    table = {}
    for line in rest:
        name, cell = line[: columns[0].end()].rsplit(maxsplit=1)
        cells = {columns[0].group(): cell}
        for left, column in pairwise(columns):
            cells[column.group()] = line[left.end() : column.end()].strip()
        table[name] = cells | {"": line[columns[-1].end() :].strip()}
    return table
