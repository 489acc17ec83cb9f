"""The configuration of an experiment: a YAML file and its parents; its keys are in schema."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nyuseg.config.key_names import known_names, unknown
from nyuseg.config.schema import FREE, Config
from nyuseg.utils.errors import UserError

NULL = ("null", "Null", "NULL", "~")
_TAG = "tag:yaml.org,2002:"


class _Text(yaml.SafeLoader):
    """YAML whose plain values are text, but for null: a key's own type makes of it what it is.

    YAML itself would read 042 as 34, 1:30 as 90, no as false and 1e-4 as text. A key that is there
    twice is an error: YAML would take the last one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                what = f"the key {key.value} is there twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_scalar(node))


_Text.yaml_implicit_resolvers = {}
_Text.add_implicit_resolver(f"{_TAG}null", re.compile("(null|Null|NULL|~|)$"), [*"nN~", ""])
_Text.add_implicit_resolver(f"{_TAG}merge", re.compile("<<$"), ["<"])
for _kind in ("bool", "int", "float", "timestamp"):  # Written out, such as '!!int 042'.
    _Text.add_constructor(_TAG + _kind, _Text.construct_text)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, lay it over what it `extends:`, apply `a.b=c` overrides, validate.

    Raises UserError, one line with file and key, for an absent file, a circle of them, broken YAML,
    an unknown key, a wrong type or a value out of range.
    """
    values = _read_family(path, ())
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return parse_config(values, str(path))


def load_configs(
    paths: Sequence[Path], overrides: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[Config]:
    """Load each file as load_config does, once for each seed; without seeds as it is.

    With a seed the name ends in it: exp060_seed7. Raises UserError as load_config does, and when
    two experiments have the same name.
    """
    configs = [load_config(path, overrides) for path in paths]
    if seeds:
        configs = [
            parse_config(
                config.model_dump(mode="json")
                | {"seed": seed, "name": f"{config.name}_seed{seed}"},
                "--seeds",
            )
            for config in configs
            for seed in seeds
        ]
    for name, times in Counter(config.name for config in configs).items():
        if times > 1:
            raise UserError(f"--config: {times} are named {name}; give each a name of its own")
    return configs


def _read_family(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """A file's values over those of its parent, and so on; children: whose parent it is."""
    values = _read_yaml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    base, seen = path.parent / str(parent), (*children, path.resolve())
    if base.resolve() in seen:
        raise UserError(f"{path}: extends {parent}, which extends it in turn")
    return _merge(_read_family(base, seen), values)


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """Change what may still change after training (see is_free). Raises UserError otherwise."""
    values = config.model_dump(mode="json")
    for override in overrides:
        change, key = _parse_override(override), override.partition("=")[0]
        if not is_free(key):
            raise UserError(f"--set {override}: {key} is fixed by the training; train again")
        values = _merge(values, change)
    return parse_config(values, "--set")


def is_free(key: str) -> bool:
    """Whether a setting may change after training: it or its whole section may, see schema.FREE."""
    return key in FREE or key.partition(".")[0] in FREE


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Validate plain values; `source` names them in the error. Raises UserError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{source}: {unknown(key)}") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "tuple_type":
            message = "expected a list, such as [1, 2]"
        if first["type"] == "model_type":
            message = "a section; set one of its keys"
        where = f"{key}: " if key else ""
        # Where several keys do not go together, the message has their values.
        given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r:.80})"
        raise UserError(f"{source}: {where}{message}{given}") from None


def dump_config(config: Config) -> str:
    """The whole configuration as YAML; parse_config reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _Text)
    except OSError:
        raise UserError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values")
    return values


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, such as train.epochs=1")
    if key not in known_names():
        raise UserError(f"--set {text}: {unknown(key)}")
    if not value:
        raise UserError(f"--set {text}: the value is empty; write {key}=null or {key}=''")
    result: Any = value.strip()
    # Only a list, a section, a quoted text and null are YAML; the rest is meant as it is typed.
    if result.startswith(("[", "{", "'", '"')) or result in NULL:
        try:
            result = yaml.load(result, _Text)
        except yaml.YAMLError:
            raise UserError(f"--set {text}: the value is not valid YAML") from None
    for part in reversed(key.split(".")):
        result = {part: result}
    return result


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both else value
    return result
