"""One call of Kaggle's client in a process of its own; nyuseg.kaggle.client runs it by its path.

The argument is {"call": a method of KaggleApi, "arguments": {...}} as JSON. Stdout is one object:
{"value": ...}, or {"reason": ..., "code": the HTTP status, 0 when Kaggle was not reached}, or
{"missing": ...} when the client cannot be imported. Imports nothing of this library.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

UNKNOWN = "Authentication required to call the Kaggle API"
KINDS = ("dataset", "competition", "kernel", "model")
FIELDS = ["error", "status", "url", "version_number", "message"]
FIELDS += [f"invalid_{kind}_sources" for kind in KINDS]


def main() -> None:
    """Make the call and write its answer."""
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # The client prints progress and advice.
        answer.write(json.dumps(_answer(**json.loads(sys.argv[1])), default=str))


def _answer(call: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        import requests

        client = _client()
    except ImportError as error:
        return {"missing": str(error)}
    try:
        client.authenticate()
        value = getattr(client, call)(**arguments)
    except SystemExit:  # The client knows no credentials that Kaggle takes.
        return {"reason": UNKNOWN, "code": 401}
    except (requests.ConnectionError, requests.Timeout) as error:
        return {"reason": f"{type(error).__name__}: {error}", "code": 0}
    except Exception as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        reason = UNKNOWN if code == 401 else str(error) or type(error).__name__
        return {"reason": reason, "code": code}
    if isinstance(value, str):
        return {"value": value}
    return {"value": {name: getattr(value, name, None) for name in FIELDS}}


def _client() -> Any:
    """A client that fails before it makes a data set without the files it could not upload."""
    from kaggle.api.kaggle_api_extended import KaggleApi, ResumableUploadResult

    client = KaggleApi()
    upload_complete, upload_files = client.upload_complete, client.upload_files
    arrived = set()

    def note_complete(path: str, *rest: Any, **options: Any) -> Any:
        result = upload_complete(path, *rest, **options)
        if result == ResumableUploadResult.COMPLETE:
            arrived.add(Path(path).name)
        return result

    def require_complete(request: Any, resources: Any, folder: str, *rest: Any) -> None:
        upload_files(request, resources, folder, *rest)
        names = {path.name for path in Path(folder).iterdir()} - {client.DATASET_METADATA_FILE}
        if missing := ", ".join(sorted(names - arrived)):
            raise OSError(f"{missing} could not be uploaded; run the same command again")

    client.upload_complete, client.upload_files = note_complete, require_complete
    return client


if __name__ == "__main__":
    main()
