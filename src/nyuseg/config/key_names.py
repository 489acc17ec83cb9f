"""The names of a configuration's keys, and which one was meant by a name that does not exist."""

from difflib import SequenceMatcher

from nyuseg.config.schema import Config
from nyuseg.config.values import Section

# How much alike two names are, from 0 to 1, of which one was meant by the other.
ALIKE = 0.65


def sections() -> dict[str, type[Section]]:
    """The sections of a configuration by name, in their order."""
    kinds = {name: field.annotation for name, field in Config.model_fields.items()}
    return {n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, Section)}


def keys() -> list[str]:
    """Every key by its dotted name, such as train.lr, in their order."""
    found = []
    for name in Config.model_fields:
        section = sections().get(name)
        found += [f"{name}.{key}" for key in section.model_fields] if section else [name]
    return found


def known_names() -> set[str]:
    """What may be set: every key, and every section as a whole."""
    return {*sections(), *keys()}


def unknown(key: str) -> str:
    """What to say about a key that does not exist: the one that was probably meant."""
    best = max(sorted(known_names()), key=lambda name: _alike(key, name))
    if _alike(key, best) < ALIKE:
        return f"unknown key {key}; docs/config.md has every key"
    return f"unknown key {key}; did you mean {best}?"


def _alike(one: str, other: str) -> float:
    """The mean over the whole names and their last parts: a key may be in another section."""
    pairs = (one, other), (one.rpartition(".")[2], other.rpartition(".")[2])
    return sum(SequenceMatcher(None, *pair).ratio() for pair in pairs) / 2
