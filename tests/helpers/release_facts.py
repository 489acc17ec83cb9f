"""What stands beside release weights whose training nobody looks at."""

from typing import Any


def release_facts() -> dict[str, Any]:
    """Facts for release.release_weights."""
    score = {"epoch": 1, "confusion": []}
    where = {"experiment": "x", "fold": 0, "folds": "", "valid_ids": [], "environment": {}}
    return {**where, "checkpoint": "best", "epoch": 1, "best": score, "last": score}
