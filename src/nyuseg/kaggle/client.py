"""Calls of Kaggle's own client, in a process of its own, and whether it may log in."""

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import run_child

INSTALL = "pip install 'kaggle>=2.2.4' six"
LIMIT_S = 300  # Of a call that uploads nothing; the client itself would wait for ever.
PROCESS = Path(__file__).with_name("client_process.py")
HIDDEN = "***"
ADVICE = dict.fromkeys(
    (403, 404), "is the owner your Kaggle user name, and did you accept the competition's rules?"
) | {
    401: "Kaggle refused the credentials: renew them",
    409: "another kernel or data set has this name; use another title",
    429: "wait some minutes",
}


class Refusal(Exception):
    """A call failed: the reason in one line, without credentials and with what to do about it.

    code: the HTTP status, 0 when Kaggle could not be reached, None when it has nothing to do
    with HTTP.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(one_line(reason) + _advice(reason, code))
        self.code = code


def _advice(reason: str, code: int | None) -> str:
    """What to do about a reason that Kaggle gave, where that is known."""
    if code is not None and (code == 0 or code >= 500):
        return " (Kaggle cannot be reached now; run the same command later)"
    if "already in use" in reason:
        return " (the title is taken; package again with another title)"
    if "Maximum batch" in reason:
        return " (wait for a running session to end or stop one, then push again)"
    return f" ({ADVICE[code]})" if code in ADVICE else ""


def one_line(text: str) -> str:
    """The text in one line of at most 500 characters."""
    return " ".join(text.split())[:500]


def call(name: str, limit_s: float | None = LIMIT_S, **arguments: object) -> Any:
    """What the method `name` of KaggleApi returns for `arguments`: a string or a dict of fields.

    limit_s: seconds it may take, None for uploads. Raises Refusal with the server's reason, and
    UserError when there is no client, when it cannot log in, or when it does not answer in time.
    """
    environment = dict(os.environ)
    _check(environment)
    secrets = _require_credentials(environment)
    request = json.dumps({"call": name, "arguments": arguments})
    # A failed upload leaves its address in TMPDIR, and the next run would send the data there.
    with tempfile.TemporaryDirectory(prefix="nyuseg-kaggle-") as temporary:
        try:
            done = run_child(
                [sys.executable, "-P", str(PROCESS), request],
                limit_s,
                env=environment | {"TMPDIR": temporary, "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"Kaggle's client gave no answer in {limit_s:g} s; try again") from None

    def redact(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: _redact(v, secrets) if isinstance(v, str) else v for k, v in fields.items()}

    answer = json.loads(done.stdout or "{}", object_hook=redact)
    if "missing" in answer:
        raise UserError(f"Kaggle's client does not start ({answer['missing']}): {INSTALL}")
    if "value" in answer:
        return answer["value"]
    last = [f"no answer, exit code {done.returncode}", *done.stderr.strip().splitlines()][-1]
    raise Refusal(answer.get("reason") or _redact(last, secrets), answer.get("code"))


def _check(environment: Mapping[str, str]) -> None:
    spec = importlib.util.find_spec("kaggle")
    if spec is None or not spec.origin:  # A mere folder of that name has no origin.
        raise UserError(f"Kaggle's client is not installed: {INSTALL}")
    if environment.get("KAGGLE_API_ENVIRONMENT") == "TEST":
        raise UserError(
            "KAGGLE_API_ENVIRONMENT=TEST: Kaggle's client ignores it and uploads to the real site; "
            "unset it"
        )


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
