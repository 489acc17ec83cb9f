"""Upload a packaged data set and kernel with Kaggle's own client, and submit the kernel.

The client exits 0 when the server refuses something, so its output decides, not its exit code. The
sentences looked for are those of client 2.2.4 and 2.2.5. Nothing is retried in silence.
"""

import re
import time
from pathlib import Path

from nyuseg.kaggle.client import UNAVAILABLE, Reply, call, one_line
from nyuseg.kaggle.metadata import (
    DATASET_FILE,
    KERNEL_FILE,
    SLUG,
    Meta,
    check_dataset_metadata,
    check_kernel_metadata,
)
from nyuseg.kaggle.records import PackageRecord
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json
from nyuseg.utils.signals import pause

PUSHED = re.compile(r"Kernel version (\d+) successfully pushed\.\s+Please check progress at (\S+)")
# The server hides other people's private data sets: it denies what it could call missing.
ABSENT = re.compile(r"\b40[34]\b|not found|forbidden|permission|denied|don't have access", re.I)


def push(dataset: Path, kernel: Path, timeout_s: int = 1800, poll_s: float = 10) -> str:
    """Upload the data set, wait until Kaggle has unpacked it, push the kernel, which starts it.

    dataset, kernel: folders with dataset-metadata.json and kernel-metadata.json; both are checked
    first. timeout_s: how long to wait for the data set to be ready, asking every poll_s seconds.
    Which client runs is said in kaggle_client.py. Returns 'URL, version N' of the kernel. Raises
    UserError, with the server's reason, on everything that goes wrong; no credential is printed.
    """
    reference, sources = _read_dataset(dataset)[0], _read_kernel(kernel)["dataset_sources"]
    if reference not in sources:
        raise UserError(f"{kernel / KERNEL_FILE}: dataset_sources: {reference} is missing")
    push_dataset(dataset, timeout_s, poll_s)
    url, version = push_kernel(kernel)
    return f"{url}, version {version}"


def push_dataset(folder: Path, timeout_s: int = 1800, poll_s: float = 10) -> None:
    """Create the data set, or a version of it when it exists, and wait until it is ready.

    Raises UserError as push.
    """
    reference, fingerprint, files = _read_dataset(folder)
    state = _state(reference)
    if state == "deleted":
        raise UserError(f"{reference}: this data set was deleted on Kaggle; choose another title")
    size = sum(path.stat().st_size for path in files) / 1e6
    word = "creating" if state is None else "new version of"
    print(f"{word} data set {reference}: uploading {len(files)} files, {size:.1f} MB", flush=True)
    if state is None:
        command = ["create", "-p", str(folder.resolve())]
    else:
        note = f"fingerprint {fingerprint}"
        command = ["version", "-p", str(folder.resolve()), "-m", note]
    _check_upload(call(["datasets", *command], limit_s=None), reference, files)
    _wait_until_ready(reference, timeout_s, poll_s)


def push_kernel(folder: Path) -> tuple[str, int]:
    """Push the kernel, which starts it; returns its URL and version. Raises UserError as push."""
    name = _read_kernel(folder)["id"]
    print(f"pushing kernel {name}", flush=True)
    reply = call(["kernels", "push", "-p", str(folder.resolve())])
    refused = re.search(r"Kernel push error: (.*)", reply.out, re.DOTALL)
    if refused or reply.code:
        reason = one_line(refused[1]) if refused else reply.reason
        raise UserError(f"kernel {name} was not pushed: {reason}{_advice(reason)}")
    invalid = re.findall(r"not valid (\w+) sources and could not be added[^:]*: (.*)", reply.out)
    if invalid:
        named = "; ".join(f"{kind} sources {names}" for kind, names in invalid)
        raise UserError(
            f"kernel {name} was pushed, but Kaggle left out the invalid {named}: check their "
            "names, your access, and that you accepted the competition's rules; then push again"
        )
    pushed = PUSHED.search(reply.out)
    if not pushed:
        raise UserError(f"kernel {name}: the client says: {reply.reason}{_advice(reply.reason)}")
    return pushed[2], int(pushed[1])


def submit(competition: str, kernel: str, version: int, file_name: str, message: str) -> str:
    """Submit the output `file_name` of a finished version of a kernel to a code competition.

    competition: its slug; kernel: 'owner/slug'; version: 1 or more; file_name: the name alone, such
    as submission.csv. Returns the server's answer. Raises UserError with the server's reason.
    """
    if not SLUG.fullmatch(competition):
        raise UserError(f"competition '{competition}': give the last part of its address alone")
    if not re.fullmatch(r"[\w-]+/[a-z0-9-]+", kernel) or version < 1:
        raise UserError(f"kernel '{kernel}', version {version}: give owner/slug and 1 or more")
    if not file_name or file_name != Path(file_name).name:
        raise UserError(
            f"file '{file_name}': give the name of the kernel's output without a folder"
        )
    options = [f"--kernel={kernel}", f"--version={version}", f"--file={file_name}"]
    reply = call(["competitions", "submit", competition, *options, f"--message={message}"])
    answer = one_line(reply.out)
    # Neither a refusal taken for a success nor the reverse: an unknown answer is shown as it is.
    accepted = re.search(r"\b(success|submitted)", answer, re.I)
    if reply.code or not accepted or re.search(r"\b(not|error|failed)\b", answer, re.I):
        reason = reply.reason
        raise UserError(
            f"{kernel} version {version} was not submitted to {competition}: {reason}"
            f"{_advice(reason)}; look at the competition's list of submissions before you repeat it"
        )
    return answer


def _read_dataset(folder: Path) -> tuple[str, str, list[Path]]:
    """The checked reference owner/slug, the fingerprint and the files to upload."""
    meta = read_json(folder / DATASET_FILE)
    check_dataset_metadata(meta)
    fingerprint = PackageRecord.read(folder / "manifest.json").fingerprint
    files = sorted(path for path in folder.iterdir() if path.name != DATASET_FILE)
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: not a file; Kaggle's client would leave it out")
    return meta["id"], fingerprint, files


def _read_kernel(folder: Path) -> Meta:
    meta = read_json(folder / KERNEL_FILE)
    check_kernel_metadata(meta, folder)
    return meta


def _state(reference: str) -> str | None:
    """Kaggle's word for the state of a data set, such as 'ready'; None when we cannot see it."""
    reply = call(["datasets", "status", reference])
    if reply.code == 0:
        return reply.out.split()[-1].lower() if reply.out.split() else "unknown"
    if not UNAVAILABLE.search(reply.text) and ABSENT.search(reply.text):
        return None
    raise UserError(f"data set {reference}: {reply.reason}{_advice(reply.reason)}")


def _check_upload(reply: Reply, reference: str, files: list[Path]) -> None:
    refused = re.search(r"Dataset (?:version )?creation error: (.*)", reply.out)
    if refused or reply.code or "is being created" not in reply.out:
        reason = one_line(refused[1]) if refused else reply.reason
        raise UserError(f"data set {reference} was not uploaded: {reason}{_advice(reason)}")
    # The client creates the data set even when it had to give up on some of its files.
    missing = [p.name for p in files if f"Upload successful: {p.name} (" not in reply.out]
    if missing:
        raise UserError(
            f"data set {reference}: {', '.join(missing)} could not be uploaded, the version on "
            "Kaggle is incomplete and the kernel was not pushed; run the same command again"
        )


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


def _advice(reason: str) -> str:
    """What to do about a reason that Kaggle gave, where that is known."""
    for pattern, advice in (
        (UNAVAILABLE, "Kaggle cannot be reached now; run the same command later"),
        (r"already in use", "the title is taken; package again with another title"),
        (r"Maximum batch", "wait for a running session to end or stop one, then push again"),
        (r"\b409\b|Conflict", "another kernel or data set has this name; use another title"),
        (r"\b401\b|Authentication required|Unauth", "Kaggle refused the credentials: renew them"),
        (ABSENT, "is the owner your Kaggle user name, and did you accept the competition's rules?"),
        (r"\b429\b|Too Many|rate limit", "wait some minutes"),
    ):
        if re.search(pattern, reason):
            return f" ({advice})"
    return ""
