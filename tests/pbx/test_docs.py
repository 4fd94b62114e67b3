"""docs/guides/connecting-a-pbx.md: its programs run as they are, and its tables are those of the code."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from portal.config import ROOT
from portal.pbx.adapters.registry import ADAPTERS
from portal.pbx.api_keys import IssuedKey
from portal.pbx.rejection_reasons import RejectionReason
from tests.signing import signed_key
from tests.web_server import portal_url

__all__ = ["portal_url", "signed_key"]

GUIDE = (ROOT / "docs" / "guides" / "connecting-a-pbx.md").read_text()
PROGRAMS = re.findall(r"```(sh|python)\n(.*?)```", GUIDE, re.DOTALL)
SIGNING_PROGRAMS = {language: code for language, code in PROGRAMS if "webhook-signature" in code}
INTERPRETERS = {"sh": ["sh", "-eu", "-c"], "python": [sys.executable, "-c"]}


@pytest.mark.parametrize("language", INTERPRETERS)
def test_a_program_that_signs_its_request(portal_url: str, signed_key: IssuedKey, language: str) -> None:
    if missing := [tool for tool in ("curl", "openssl") if language == "sh" and not shutil.which(tool)]:
        pytest.skip(f"{missing[0]} is not installed")
    variables = {"KEY": signed_key.secret, "SECRET": signed_key.signing_secret, "PORTAL_URL": portal_url}
    run = subprocess.run(
        [*INTERPRETERS[language], SIGNING_PROGRAMS[language]],
        env=os.environ | variables,
        capture_output=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert json.loads(run.stdout)["status"] == "sent"


def table_below(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its own heading."""
    lines = GUIDE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return rows[2:]


def test_the_table_of_reasons_is_complete() -> None:
    reasons = [[reason.title, str(reason.status), reason.advice] for reason in RejectionReason]
    assert table_below("Rejected requests") == reasons


def test_the_guide_names_each_make() -> None:
    makes = [row[0] for row in table_below("What each PBX make reports")]
    assert makes[: len(ADAPTERS)] == [adapter.title for adapter in ADAPTERS.values()]
