"""What all tests may ask for."""

from collections.abc import Callable

import pytest
from tiny_data import write_tiny_folder


@pytest.fixture
def tiny_folder() -> Callable[..., list[str]]:
    """The function write_tiny_folder(root, sizes, scenes=None, test=()) -> train ids."""
    return write_tiny_folder
