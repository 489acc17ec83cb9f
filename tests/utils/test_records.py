"""A record says which key of which file is wrong, and comes back as it was written."""

from pathlib import Path

import pytest

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_json
from nyuseg.utils.records import Record


class Inner(Record):
    low: float | None


class Outer(Record):
    name: str
    parts: list[Inner]
    counts: dict[str, int]


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    record = Outer(name="ü", parts=[Inner(low=0.1), Inner(low=None)], counts={"0": 3})
    record.write(tmp_path / "record.json")
    assert Outer.read(tmp_path / "record.json") == record


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"name": "a", "counts": {}}, "lacks parts"),
        ({"parts": [], "counts": {}}, "lacks name"),
        ({}, "lacks name, parts, counts;"),
        (
            {"name": "a", "counts": {}, "parts": [{}] * 4},
            r"lacks parts\.0\.low, .*\.2\.low, \.\.\.;",
        ),
        ({"name": "a", "counts": {}, "parts": [{"low": 1}, {}]}, r"lacks parts\.1\.low"),
        (
            {"name": "a", "counts": {}, "parts": [{"low": "much"}]},
            r"parts\.0\.low: Input should be a valid",
        ),
        ({"name": "a", "counts": {}, "parts": [], "older": 1}, "older: Extra inputs"),
    ],
)
def test_a_fault_is_one_line_that_names_file_and_key(
    values: dict, fault: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "record.json", values)
    with pytest.raises(UserError, match=rf"record\.json: {fault}") as error:
        Outer.read(tmp_path / "record.json")
    assert "\n" not in str(error.value)
