"""What all tests may ask for."""

from collections import Counter
from collections.abc import Callable

import pytest
from tiny_data import write_tiny_folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: side by side, the short ones then fill the rest."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def tiny_folder() -> Callable[..., list[str]]:
    """The function write_tiny_folder(root, sizes, scenes=None, test=()) -> train ids."""
    return write_tiny_folder
