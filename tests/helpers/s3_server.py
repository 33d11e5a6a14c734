"""A server on loopback that answers as S3 and as the services which hand out credentials."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.helpers.loopback import running

SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/s3/aws4_request")
ANNOUNCED = "%Y-%m-%dT%H:%M:%SZ"


class S3Server(ThreadingHTTPServer):
    """Objects in memory, for requests that are signed for `region` and carry a session token that is not revoked.

    Each handed out pair of keys has a token of its own. `announced` is how long the service says that keys are valid.
    Without a region, it accepts every request, as an emulator of Google Cloud Storage does: its XML is that of S3.
    """

    daemon_threads = True

    def __init__(self, *, region: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.region = region
        self.announced = timedelta(hours=1)
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.valid: set[str] = set()
        self.issued: list[str] = []
        self.asked: list[str] = []  # the requests for credentials
        self.used: list[str] = []  # the token of each accepted request
        self.refused: list[str] = []  # the code of each refused request
        self.broken = False  # whether the services of credentials answer with an error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def issue(self) -> tuple[str, str, str, str]:
        """Access key, secret key, session token and the announced end of new credentials."""
        token = f"token-{len(self.issued)}"
        self.issued.append(token)
        self.valid.add(token)
        return "temporary", "secret-of-temporary", token, (datetime.now(UTC) + self.announced).strftime(ANNOUNCED)

    def expire(self) -> None:
        """Refuse each token that was issued up to now."""
        self.valid.clear()


class Answer(BaseHTTPRequestHandler):
    server: S3Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: str) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(("/credentials", "/latest/")):
            return self._hand_out(path)
        if not self._accepts():
            return
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        if key:
            return self._object(key)
        return self._listing(bucket)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(f"{query['Action'][0]} {query['WebIdentityToken'][0]} {query['RoleArn'][0]}")
        if self.server.broken:
            return self._send(503, b"")
        key, secret, token, end = self.server.issue()
        body = (
            "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
            f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>"
            f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>"
            f"<Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        )
        return self._send(200, body.encode())

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path == "/latest/api/token":
            return self._send(503 if self.server.broken else 200, b"session")
        if not self._accepts():
            return
        key = unquote(path).lstrip("/").partition("/")[2]
        new = "*" in self.headers.get("If-None-Match", "") or self.headers.get("x-goog-if-generation-match") == "0"
        if new and key in self.server.objects:
            return self._refuse(412, "PreconditionFailed", "it exists")
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
            return self._refuse(501, "NotImplemented", "no chunked uploads here")
        self.server.objects[key] = (data, time.time())
        return self._send(200, b"", {"ETag": _etag(data)})

    def do_DELETE(self) -> None:
        if self._accepts():
            self.server.objects.pop(unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2], None)
            self._send(204, b"")

    def _accepts(self) -> bool:
        signed = SCOPE.search(self.headers.get("Authorization", ""))
        token = self.headers.get("X-Amz-Security-Token", "")
        if not self.server.region:
            return True
        if signed is None:
            self._refuse(403, "AccessDenied", "anonymous")
        elif signed["region"] != self.server.region:
            problem = f"the region '{signed['region']}' is wrong; expecting '{self.server.region}'"
            self._refuse(400, "AuthorizationHeaderMalformed", f"The authorization header is malformed; {problem}")
        elif token not in self.server.valid:
            code = "ExpiredToken" if token in self.server.issued else "InvalidAccessKeyId"
            self._refuse(400, code, "The provided token is not valid here.")
        else:
            self.server.used.append(token)
            return True
        return False

    def _hand_out(self, path: str) -> None:
        self.server.asked.append(f"{path} {self.headers.get('Authorization', '')}".strip())
        if self.server.broken:
            return self._send(503, b"")
        if path.endswith("/security-credentials/"):
            return self._send(200, b"the-role")
        key, secret, token, end = self.server.issue()
        told = {"Code": "Success", "AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": end}
        return self._send(200, json.dumps(told).encode())

    def _object(self, key: str) -> None:
        if key not in self.server.objects:
            return self._refuse(404, "NoSuchKey", key)
        data, written = self.server.objects[key]
        headers = {"ETag": _etag(data), "Last-Modified": formatdate(written, usegmt=True)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self._send(200, data, headers)
        start = int(asked[1]) if asked[1] else max(0, len(data) - int(asked[2]))
        end = int(asked[2]) + 1 if asked[1] and asked[2] else len(data)
        part = data[start:end]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        return self._send(206, part, headers)

    def _listing(self, bucket: str) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found, folders = "", set[str]()
        for key, (data, written) in sorted(self.server.objects.items()):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            when = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            found += f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified>"
            found += f"<ETag>{escape(_etag(data))}</ETag><Size>{len(data)}</Size></Contents>"
        found += "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
        )
        body = f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>{found}"
        self._send(200, f"{body}<IsTruncated>false</IsTruncated></ListBucketResult>".encode())

    def _refuse(self, status: int, code: str, message: str) -> None:
        if code not in ("NoSuchKey", "PreconditionFailed"):
            self.server.refused.append(code)
        self._send(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)


def _etag(data: bytes) -> str:
    return f'"{md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def s3_server(*, region: str) -> Iterator[S3Server]:
    """A running server."""
    with running(S3Server(region=region)) as server:
        yield server
