"""The examples in docs/webhook.md, run as an integrator runs them: each one's event is accepted."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.serving import make_server

from portal.config import ROOT
from portal.pbx.keys import IssuedKey
from tests.signed import signed

__all__ = ["signed"]

EXAMPLES = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs" / "webhook.md").read_text(), re.DOTALL)
SIGNED = {language: code for language, code in EXAMPLES if "webhook-signature" in code}
PROGRAMS = {"sh": ["sh", "-eu", "-c"], "python": [sys.executable, "-c"]}


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """The address of the portal, on a port of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_signed_call(address: str, signed: IssuedKey, language: str) -> None:
    if missing := [each for each in ("curl", "openssl") if language == "sh" and not shutil.which(each)]:
        pytest.skip(f"there is no {missing[0]} on this machine")
    given = {"KEY": signed.secret, "SECRET": signed.signing_secret, "PORTAL_URL": address}
    run = subprocess.run(
        [*PROGRAMS[language], SIGNED[language]], env=os.environ | given, capture_output=True, timeout=30
    )
    assert run.returncode == 0, run.stderr.decode()
    assert json.loads(run.stdout)["status"] == "sent"
