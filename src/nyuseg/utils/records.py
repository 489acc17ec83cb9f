"""JSON files as typed records, which check themselves when they are read."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json, write_json


class Record(BaseModel):
    """What one of the project's JSON files holds; a subclass names its keys and their types.

    A key too many or too few is an error: it is then another file, or another version's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record. Raises UserError, which names the file and what is wrong in it."""
        values = read_json(path)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{path}: {_fault(error)}; not a file of this version") from None

    def write(self, path: Path) -> None:
        """Write the record atomically, as indented JSON."""
        write_json(path, self.model_dump(mode="json"))


def _fault(error: ValidationError) -> str:
    """In words: the keys that are missing, else the first key at fault."""
    faults = error.errors()
    names = {".".join(map(str, fault["loc"])): fault["type"] for fault in faults}
    missing = [name for name, kind in names.items() if kind == "missing"]
    if missing:
        return f"lacks {', '.join(missing[:3])}" + (", ..." if len(missing) > 3 else "")
    return f"{next(iter(names))}: {faults[0]['msg']}"
