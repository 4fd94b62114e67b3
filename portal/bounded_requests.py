"""HTTP requests to a provider of accounts or tokens: bounded in time and size, and without redirects."""

import time
from io import BytesIO
from typing import Any, Final

from requests import RequestException, Response
from urllib3.exceptions import HTTPError

TIMEOUTS: Final = (3.0, 5.0)  # seconds to connect and to wait for data
TOTAL_TIMEOUT: Final = 6.0  # seconds for the response after its headers
MAX_RESPONSE_BYTES: Final = 100_000


def bounded(session: Any) -> Any:
    """Return the session of Requests or Authlib, whose responses are bounded. A redirect is a RequestException."""
    session.stream, session.max_redirects = True, 0
    session.hooks["response"] = [_read_bounded]
    return session


def _read_bounded(response: Response, **_: Any) -> None:
    """Read the response, as far as it is bounded in size and time. Raise RequestException beyond that."""
    deadline, content = time.monotonic() + TOTAL_TIMEOUT, b""
    try:
        while piece := response.raw.read1(MAX_RESPONSE_BYTES, decode_content=True):
            content += piece
            if len(content) > MAX_RESPONSE_BYTES or time.monotonic() > deadline:
                raise RequestException("The response is too long.")
    except HTTPError as error:
        raise RequestException("The response ended too early.") from error
    finally:
        response.close()
    response.raw = BytesIO(content)
