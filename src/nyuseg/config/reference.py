"""The page docs/config.md, made from the schema: python -m nyuseg.config.reference."""

from collections.abc import Sequence
from typing import Any

from nyuseg.config.prediction import View
from nyuseg.config.schema import FREE, Config

HEAD = """\
# Every setting
A configuration is a YAML file with the keys below. A key that it leaves out has its default; one
that does not exist is an error. `extends:` names another file, which it changes. On the command
line `--set KEY=VALUE` changes one key: `--set train.lr=2e-4`, `--set 'data.size=[240,320]'`.

{free} may change after training:
`infer.py`, `package_kernel.py` and `report.py --submission` take them by `--set`, and training
that was interrupted may go on with others. Everything else belongs to the training, which fixes it.

This page is made from the code: `python -m nyuseg.config.reference > docs/config.md`.
"""
Schema = dict[str, Any]  # JSON schema, as pydantic writes it.
WORDS = {"boolean": "true or false", "string": "text"}


def page() -> str:
    """The page as Markdown: a table for each section, a row for each key."""
    whole = Config.model_json_schema()
    kinds = whole["$defs"]
    sections = {
        n: kinds[_reference(key)] for n, key in whole["properties"].items() if "$ref" in key
    }
    top = {n: key for n, key in whole["properties"].items() if n not in sections}
    free = [f"`{name}`" for name in FREE]
    parts = [HEAD.format(free=_join(free, "and")), _table(top)]
    for name, section in sections.items():
        keys = {f"{name}.{key}": one for key, one in section["properties"].items()}
        parts.append(f"## {name}\n{section['description']}\n\n{_table(keys)}")
    view = kinds["View"]
    parts.append(f"## A view of tta.views\n{view['description']}\n\n{_table(view['properties'])}")
    return "\n".join(parts)


def _table(keys: dict[str, Schema]) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, key in keys.items():
        default = f"`{_yaml(key['default'])}`" if "default" in key else "must be given"
        meaning = " ".join(key.get("description", "").split())
        rows.append(f"| `{name}` | {_values(key)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _values(key: Schema) -> str:
    """What a key takes, in words, such as `integer (1 or more) or null`."""
    if key.get("type") == "array":
        items = key["prefixItems"][0] if "prefixItems" in key else key["items"]
        many = _values(items)
        if not many.startswith("`"):  # Words, not choices: integers, views.
            word, *limits = many.split(" ", 1)
            many = " ".join([f"{word}s", *limits])
        count = f"{len(key['prefixItems'])} " if "prefixItems" in key else ""
        return f"list of {count}{many}"
    return _join([choice for one in key.get("anyOf", [key]) for choice in _choices(one)], "or")


def _choices(key: Schema) -> list[str]:
    if "enum" in key:
        return [f"`{choice}`" for choice in key["enum"]]
    if "$ref" in key:
        return [_reference(key).lower()]
    if key["type"] == "array":
        return [_values(key)]
    return [WORDS.get(key["type"], str(key["type"])) + _range(key)]


def _range(key: Schema) -> str:
    if "minimum" in key and "maximum" in key:
        return f" ({key['minimum']:g} to {key['maximum']:g})"
    words = {"minimum": "{:g} or more", "exclusiveMinimum": "above {:g}"}
    words |= {"maximum": "{:g} or less", "exclusiveMaximum": "below {:g}"}
    found = [text.format(key[name]) for name, text in words.items() if name in key]
    return f" ({', '.join(found)})" if found else ""


def _reference(key: Schema) -> str:
    return key["$ref"].rpartition("/")[2]


def _join(words: Sequence[str], last: str) -> str:
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        view = View.model_validate(value).model_dump(exclude_defaults=True)
        return f"{{{', '.join(f'{key}: {_yaml(one)}' for key, one in view.items())}}}"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value) or "''"


if __name__ == "__main__":
    print(page(), end="")
