"""Upload a packaged data set and kernel with Kaggle's own client, and submit the kernel.

The client returns normally when the server refuses something: the `error` of its reply decides.
"""

import re
import time
from pathlib import Path
from typing import Any

from nyuseg.kaggle.client import Refusal, call, one_line
from nyuseg.kaggle.metadata import (
    DATASET_FILE,
    KERNEL_FILE,
    SLUG,
    DatasetMetadata,
    KernelMetadata,
)
from nyuseg.kaggle.records import PackageRecord
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json, write_json
from nyuseg.utils.signals import pause

UPLOADED = "uploaded.json"


def push(dataset: Path, kernel: Path, timeout_s: int = 1800, poll_s: float = 10) -> str:
    """Upload the data set, wait until Kaggle has unpacked it, push the kernel, which starts it.

    dataset, kernel: folders with dataset-metadata.json and kernel-metadata.json; both are checked
    first. timeout_s: how long to wait for the data set to be ready, asking every poll_s seconds.
    Returns 'URL, version N' of the kernel. Raises UserError, with the server's reason, on
    everything that goes wrong; no credential is printed.
    """
    reference = _read_dataset(dataset)[0]
    if reference not in KernelMetadata.read(kernel / KERNEL_FILE).dataset_sources:
        raise UserError(f"{kernel / KERNEL_FILE}: dataset_sources: {reference} is missing")
    push_dataset(dataset, timeout_s, poll_s)
    url, version = push_kernel(kernel)
    return f"{url}, version {version}"


def push_dataset(folder: Path, timeout_s: int = 1800, poll_s: float = 10) -> None:
    """Create the data set, or a version of it when it exists, and wait until it is ready.

    What was uploaded is noted beside the folder, and not uploaded again. Raises UserError as push.
    """
    reference, fingerprint, files = _read_dataset(folder)
    state = _state(reference)
    if state == "deleted":
        raise UserError(f"{reference}: this data set was deleted on Kaggle; choose another title")
    note, own = folder.with_name(UPLOADED), {"data_set": reference, "fingerprint": fingerprint}
    if state not in (None, "failed") and note.exists() and read_json(note) == own:
        print(f"data set {reference}: uploaded before, says {note}; delete it to upload again")
    else:
        _upload(folder, reference, files, state is None, f"fingerprint {fingerprint}")
        write_json(note, own)
    _wait_until_ready(reference, timeout_s, poll_s)


def _upload(folder: Path, reference: str, files: list[Path], new: bool, note: str) -> None:
    size = sum(path.stat().st_size for path in files) / 1e6
    word = "creating" if new else "new version of"
    print(f"{word} data set {reference}: uploading {len(files)} files, {size:.1f} MB", flush=True)
    upload: dict[str, Any] = {"limit_s": None, "folder": str(folder.resolve()), "quiet": True}
    try:
        if new:
            reply = call("dataset_create_new", **upload)
        else:
            reply = call("dataset_create_version", version_notes=note, **upload)
        if reply["error"] or (reply["status"] or "").lower() != "ok":
            raise Refusal(reply["error"] or f"Kaggle's answer has the status '{reply['status']}'")
    except Refusal as error:
        raise UserError(f"data set {reference} was not uploaded: {error}") from None


def push_kernel(folder: Path) -> tuple[str, int]:
    """Push the kernel, which starts it; returns its URL and version. Raises UserError as push."""
    name = KernelMetadata.read(folder / KERNEL_FILE).id
    print(f"pushing kernel {name}", flush=True)
    try:
        reply = call("kernels_push", folder=str(folder.resolve()))
        if reply["error"] or not reply["version_number"]:
            raise Refusal(reply["error"] or "Kaggle's answer names no version")
    except Refusal as error:
        raise UserError(f"kernel {name} was not pushed: {error}") from None
    kinds = ("dataset", "competition", "kernel", "model")
    invalid = {kind: reply[f"invalid_{kind}_sources"] for kind in kinds}
    if any(invalid.values()):
        named = "; ".join(f"{kind} sources {names}" for kind, names in invalid.items() if names)
        raise UserError(
            f"kernel {name} was pushed, but Kaggle left out the invalid {named}: check their "
            "names, your access, and that you accepted the competition's rules; then push again"
        )
    return reply["url"], reply["version_number"]


def submit(competition: str, kernel: str, version: int, file_name: str, message: str) -> str:
    """Submit the output `file_name` of a finished version of a kernel to a code competition.

    competition: its slug; kernel: 'owner/slug'; version: 1 or more; file_name: the name alone, such
    as submission.csv. Returns the server's answer. Raises UserError with the server's reason.
    """
    if not re.fullmatch(SLUG, competition):
        raise UserError(f"competition '{competition}': give the last part of its address alone")
    if not re.fullmatch(r"[\w-]+/[a-z0-9-]+", kernel) or version < 1:
        raise UserError(f"kernel '{kernel}', version {version}: give owner/slug and 1 or more")
    if not file_name or file_name != Path(file_name).name:
        raise UserError(
            f"file '{file_name}': give the name of the kernel's output without a folder"
        )
    request: dict[str, Any] = {"file_name": file_name, "message": message, "kernel": kernel}
    try:
        reply = call(
            "competition_submit_code", competition=competition, kernel_version=version, **request
        )
        answer = one_line(reply["message"] or "")
        # Neither a refusal taken for a success nor the reverse: an unknown answer is an error.
        accepted = re.search(r"\b(success|submitted)", answer, re.I)
        if not accepted or re.search(r"\b(not|error|failed)\b", answer, re.I):
            raise Refusal(answer or "Kaggle gave no answer")
    except Refusal as error:
        raise UserError(
            f"{kernel} version {version} was not submitted to {competition}: {error}; look at the "
            "competition's list of submissions before you repeat it"
        ) from None
    return answer


def _read_dataset(folder: Path) -> tuple[str, str, list[Path]]:
    """The checked reference owner/slug, the fingerprint and the files to upload."""
    reference = DatasetMetadata.read(folder / DATASET_FILE).id
    fingerprint = PackageRecord.read(folder / "manifest.json").fingerprint
    files = sorted(path for path in folder.iterdir() if path.name != DATASET_FILE)
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: not a file; Kaggle's client would leave it out")
    return reference, fingerprint, files


def _state(reference: str) -> str | None:
    """Kaggle's word for the state of a data set, such as 'ready'; None when we cannot see it."""
    try:
        return call("dataset_status", dataset=reference)
    except Refusal as error:
        # The server hides other people's private data sets: it denies what it could call missing.
        if error.code in (403, 404):
            return None
        raise UserError(f"data set {reference}: {error}") from None


def _wait_until_ready(reference: str, timeout_s: float, poll_s: float) -> None:
    """Ask until the data set is ready: before, a kernel session mounts the version before."""
    print(f"waiting until Kaggle has unpacked {reference}", flush=True)
    end, state = time.monotonic() + timeout_s, None
    while time.monotonic() < end:
        pause(poll_s)  # First, because right after the upload it is the last version's state.
        try:
            state = _state(reference)
        except UserError as error:  # The upload is done; one lost answer should not waste it.
            print(f"{error}; asking again", flush=True)
            continue
        if state == "ready":
            return
        if state in ("failed", "deleted"):
            raise UserError(
                f"data set {reference}: Kaggle says '{state}' while unpacking it; see "
                f"https://www.kaggle.com/datasets/{reference}"
            )
    raise UserError(
        f"data set {reference}: still '{state}' after {timeout_s:g} s, the kernel was not pushed; "
        f"see https://www.kaggle.com/datasets/{reference} and push again when it is ready"
    )
