"""A stand-in for Kaggle's API on 127.0.0.1: data sets, kernels and code submissions.

with FakeKaggle() as server: server.port, server.requests, server.blobs. What it answers is set by
its attributes, before or while it runs. Every request is recorded, headers and all.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]
# What the real server answers to the status of a data set that is not the asker's.
HIDDEN = {403: "Permission 'datasets.get' was denied", 404: "Not found"}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    data: bytes

    @property
    def name(self) -> str:
        """Such as SaveKernel."""
        return self.path.rpartition("/")[2]

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.data or b"{}")


@dataclass
class FakeKaggle:
    """Owns the data sets in `datasets`, as 'owner/slug'."""

    datasets: set[str] = field(default_factory=set)
    # What status says: one word an answer, then 'ready'. A number is an HTTP error.
    states: list[str | int] = field(default_factory=list)
    errors: dict[str, Answer] = field(default_factory=dict)  # By the name of the request.
    broken_uploads: set[str] = field(default_factory=set)  # File names.
    push_error: str = ""
    invalid_sources: dict[str, list[str]] = field(default_factory=dict)  # invalidDatasetSources ...
    submit_message: str = "Successfully submitted to the competition"
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "FakeKaggle":
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                request = Request(self.command, self.path, dict(self.headers), self._data())
                fake.requests.append(request)
                code, value = fake.answer(request)
                data = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST

            def _data(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                data = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def called(self, name: str) -> list[Request]:
        """The recorded requests of that name."""
        return [request for request in self.requests if request.name == name]

    def answer(self, request: Request) -> Answer:
        if request.method == "PUT":
            return self._upload(request)
        if request.name in self.errors:
            return self.errors[request.name]
        if request.name == "IntrospectToken":
            return 200, {"active": True, "username": "alice", "userId": 1}
        if not request.headers.get("Authorization"):
            return error(401, "Unauthenticated")
        handler = getattr(self, f"_{request.name}", None)
        return handler(request.json) if handler else error(404, f"no {request.name} here")

    def _upload(self, request: Request) -> Answer:
        blob = self.blobs[request.name]
        if blob["name"] in self.broken_uploads:
            return error(400, "broken")
        blob["data"] = request.data
        return 200, {}

    def _StartBlobUpload(self, body: dict[str, Any]) -> Answer:
        token = f"blob-{len(self.blobs) + 1}"
        self.blobs[token] = {"name": body["name"]}
        return 200, {"token": token, "createUrl": f"http://127.0.0.1:{self.port}/upload/{token}"}

    def _GetDatasetStatus(self, body: dict[str, Any]) -> Answer:
        if f"{body['ownerSlug']}/{body['datasetSlug']}" not in self.datasets:
            return error(404, "Not found")
        state = self.states.pop(0) if self.states else "ready"
        if isinstance(state, int):
            return error(state, HIDDEN.get(state, "no state"))
        return 200, {"status": state}

    def _CreateDataset(self, body: dict[str, Any]) -> Answer:
        reference = f"{body['ownerSlug']}/{body['slug']}"
        self.datasets.add(reference)
        return self._dataset(reference)

    def _CreateDatasetVersion(self, body: dict[str, Any]) -> Answer:
        return self._dataset(f"{body['ownerSlug']}/{body['datasetSlug']}")

    def _dataset(self, reference: str) -> Answer:
        url = f"https://www.kaggle.com/datasets/{reference}"
        return 200, {"ref": f"/{reference}", "url": url, "status": "ok", "error": ""}

    def _SaveKernel(self, body: dict[str, Any]) -> Answer:
        slug = body["slug"]
        self.versions[slug] = self.versions.get(slug, 0) + 1
        answer = {"ref": f"/code/{slug}", "url": f"https://www.kaggle.com/code/{slug}"}
        answer |= {"versionNumber": self.versions[slug], "error": self.push_error}
        return 200, answer | self.invalid_sources

    def _CreateCodeSubmission(self, _: dict[str, Any]) -> Answer:
        return 200, {"message": self.submit_message, "ref": 7}


def error(code: int, message: str) -> Answer:
    """An HTTP error in the words of Kaggle's API."""
    return code, {"code": code, "message": message}


def local_environment(port: int) -> dict[str, str]:
    """Lets the real client talk to 127.0.0.1:port, as its proxy, and never to the real site.

    Not KAGGLE_API_ENVIRONMENT=TEST: the client ignores that and goes to the real site.
    """
    proxies = {"http_proxy": f"http://127.0.0.1:{port}", "https_proxy": "http://127.0.0.1:9"}
    return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "no_proxy": "", **proxies}
