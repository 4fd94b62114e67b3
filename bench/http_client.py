"""An HTTP client that measures: time to the first byte of a page, and bytes of a first visit."""

import gzip
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import urlencode, urljoin

from bench.processes import HOST

LOADED: Final = re.compile(r'<(?:link|script|img|use)\b[^>]*?\b(?:href|src)="([^"]+)"|@import url\("([^"]+)"\)')
TOKEN: Final = re.compile(r'name="(csrf\w+)"[^>]*value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class PageResponse:
    """A response: seconds until the first byte, bytes as transferred, and the text."""

    status: int
    seconds: float
    size: int
    text: str


@dataclass(frozen=True, slots=True)
class Browser:
    """A client of one server that keeps its cookies."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> PageResponse:
        """Load one URL."""
        return self._ask("GET", path)

    def sign_in(self, path: str, **form: str) -> None:
        """Submit a form with its CSRF token.

        Raises:
            PermissionError: it was not accepted.
        """
        found = TOKEN.search(self.get(path).text)
        assert found, "the form has no token"
        answer = self._ask("POST", path, {found[1]: found[2], **form})
        if answer.status != HTTPStatus.FOUND:
            raise PermissionError(answer.text)

    def first_visit(self, path: str) -> int:
        """Return the transferred bytes of a page and of all files that it loads."""
        to_load, loaded = [path], dict[str, int]()
        while to_load:
            address = to_load.pop()
            answer = self.get(address)
            loaded[address] = answer.size
            names = [one or other for one, other in LOADED.findall(answer.text)]
            files = {urljoin(address, name).partition("#")[0] for name in names if not name.startswith("data:")}
            to_load += [each for each in files if each not in loaded and each not in to_load]
        return sum(loaded.values())

    def _ask(self, method: str, path: str, form: Mapping[str, str] | None = None) -> PageResponse:
        headers = {"Accept-Encoding": "gzip", "Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection, began = HTTPConnection(HOST, self.port, timeout=30), time.perf_counter()
        connection.request(method, path, urlencode(form) if form else None, headers)
        answer = connection.getresponse()
        seconds = time.perf_counter() - began
        body = answer.read()
        connection.close()
        for cookie in answer.headers.get_all("Set-Cookie", []):
            self.cookies.update({name: morsel.value for name, morsel in SimpleCookie(cookie).items()})
        unpacked = gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body
        return PageResponse(answer.status, seconds, len(body), unpacked.decode(errors="replace"))
