"""Running Kaggle's own client: where it is, whether it may log in, what it says.

The client is the command line in the environment variable NYUSEG_KAGGLE_CLIENT (the tests use it),
else `python -m kaggle` of this Python, else `kaggle` on the PATH.
"""

import base64
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import run_child

INSTALL = "pip install 'kaggle>=2.2.4' six"
LIMIT_S = 300  # Of a call that uploads nothing; the client itself would wait for ever.
UNAVAILABLE = re.compile(
    r"ConnectionError|Max retries exceeded|Connection (?:aborted|refused|reset)|RemoteDisconnected"
    r"|timed? ?out|name resolution|\b5\d\d Server Error|Kaggle's side|[Uu]navailable|ProxyError"
)
HIDDEN = "***"


@dataclass(frozen=True)
class Reply:
    """What the client printed, without credentials, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return f"{self.out}\n{self.err}"

    @property
    def reason(self) -> str:
        """One line: the reason that the server or the client gave, or its last words."""
        err = "\n".join(line for line in self.err.splitlines() if not _is_noise(line)).strip()
        lines = [line for line in (err or self.out).splitlines() if line.strip()]
        if not lines:
            return f"no answer, exit code {self.code}"
        if "Authentication required" in self.out:
            return "Authentication required to call the Kaggle API"
        if not err or "Traceback" in err:
            return one_line(lines[-1])
        # 2.2.5 adds advice of its own after an empty line; of it, only whose fault it is is kept.
        fault = " (a problem on Kaggle's side)" if "on Kaggle's side" in err else ""
        return one_line(err.split("\n\n")[0]) + fault


def _is_noise(line: str) -> bool:
    """Progress bars, and the client's own announcements of a retry."""
    return "%|" in line or "Will retry in" in line


def one_line(text: str) -> str:
    """The text in one line of at most 500 characters."""
    return " ".join(text.split())[:500]


def call(arguments: Sequence[str], limit_s: float | None = LIMIT_S) -> Reply:
    """Run the client with `arguments`; its reply is redacted and is not yet judged.

    limit_s: seconds it may take, None for uploads. Raises UserError when there is no client, when
    it cannot log in, or when it does not answer in time.
    """
    environment = dict(os.environ)
    command = [*_find_client(environment), *arguments]
    secrets = _require_credentials(environment)
    # A failed upload leaves its address in TMPDIR, and the next run would send the data there.
    with tempfile.TemporaryDirectory(prefix="nyuseg-kaggle-") as temporary:
        try:
            done = run_child(
                command,
                limit_s,
                env=_child_environment(environment, temporary),
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"Kaggle's client gave no answer in {limit_s:g} s; try again") from None
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}; {INSTALL}") from None
    missing = re.search(r"ModuleNotFoundError: (.*)", done.stderr)
    if done.returncode and missing:
        raise UserError(f"Kaggle's client does not start ({missing[1]}): {INSTALL}")
    return Reply(done.returncode, _redact(done.stdout, secrets), _redact(done.stderr, secrets))


def _find_client(environment: Mapping[str, str]) -> list[str]:
    given = shlex.split(environment.get("NYUSEG_KAGGLE_CLIENT", ""))
    if given:
        return given
    spec = importlib.util.find_spec("kaggle")
    if spec is not None and spec.origin:  # A mere folder of that name has no origin.
        return [sys.executable, "-P", "-m", "kaggle"]
    script = shutil.which("kaggle", path=environment.get("PATH"))
    if script is None:
        raise UserError(f"Kaggle's client is not installed: {INSTALL}")
    return [script]


def _child_environment(environment: Mapping[str, str], temporary: str) -> dict[str, str]:
    if environment.get("KAGGLE_API_ENVIRONMENT") == "TEST":
        raise UserError(
            "KAGGLE_API_ENVIRONMENT=TEST: Kaggle's client ignores it and uploads to the real site; "
            "unset it"
        )
    # Verbose, the client prints its requests among what is parsed here.
    verbose = ("VERBOSE", "VERBOSE_OUTPUT")
    kept = {name: value for name, value in environment.items() if name not in verbose}
    return kept | {"TMPDIR": temporary, "PYTHONUTF8": "1"}


def _require_credentials(environment: Mapping[str, str]) -> list[str]:
    """The secrets that the client may log in with. Raises UserError when there are none."""
    secrets = [secret.strip() for secret in _secrets(environment) if secret.strip()]
    if not secrets:
        raise UserError(
            "no Kaggle credentials: set KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN, or "
            "put kaggle.json into ~/.kaggle (from https://www.kaggle.com/settings/api)"
        )
    return secrets


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """All secrets in the places where client 2.2 looks for credentials."""
    token = environment.get("KAGGLE_API_TOKEN", "")
    yield token
    home = Path.home() / ".kaggle"
    # A token may be given as the name of a file with it.
    for path in (Path(token or os.devnull), home / "access_token", home / "access_token.txt"):
        yield _read(path)
    legacy = _read_object(_config_folder(environment) / "kaggle.json")
    user = environment.get("KAGGLE_USERNAME") or legacy.get("username")
    key = environment.get("KAGGLE_KEY") or legacy.get("key")
    if user and key:
        yield str(key)
        yield base64.b64encode(f"{user}:{key}".encode()).decode()
    login = _read_object(home / "credentials.json")  # Of `kaggle auth login`.
    yield from (str(value) for name, value in login.items() if name.endswith("token"))


def _config_folder(environment: Mapping[str, str]) -> Path:
    home = Path.home() / ".kaggle"
    if environment.get("KAGGLE_CONFIG_DIR"):
        return Path(environment["KAGGLE_CONFIG_DIR"])
    if home.exists():
        return home
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _read_object(path: Path) -> dict[str, object]:
    try:
        value = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _redact(text: str, secrets: Sequence[str]) -> str:
    """The text without any of the secrets or anything that looks like a token."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return re.sub(r"KGAT_\w+|(?<=Basic )\S+|(?<=Bearer )\S+", HIDDEN, text)
