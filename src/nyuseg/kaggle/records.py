"""What the manifest of a packaged kernel holds."""

import hashlib
import json

from nyuseg.experiment.records import Scores
from nyuseg.utils.records import Record


class PackageMember(Record):
    """An experiment of a package; prefix: of its files' names; weight: its part in the mean."""

    experiment: str
    prefix: str
    weight: float


class PackageRecord(Record):
    """manifest.json of a packaged data set.

    folds: SHA-256 of the weights that were packaged, by fold; of a blend, by fold and experiment.
    precision: of the stored weights, see Options. cv: None while folds are missing. files: SHA-256
    of every other file. fingerprint: names the version, see digest.
    """

    experiment: str
    folds: dict[str, str] | dict[str, dict[str, str]]
    members: list[PackageMember]
    tta: bool
    formats: list[str]
    precision: str
    competition: str | None
    cv: Scores | None
    notice: str | None
    files: dict[str, str]
    fingerprint: str

    def digest(self) -> str:
        """SHA-256 over all that it says but the fingerprint, the hash of every file included."""
        rest = self.model_dump(mode="json", exclude={"fingerprint"})
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
