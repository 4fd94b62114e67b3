"""The Grafana dashboard and the alert rules: valid, tested by promtool, and about metrics and labels that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from portal.config import ROOT
from tests.monitoring.conftest import Scrape
from tests.sql import sql

DASHBOARD, RULES = ROOT / "deploy" / "grafana-dashboard.json", ROOT / "deploy" / "alert-rules.yml"
CASES = Path(__file__).parent / "alert-rules.test.yml"
METRIC = re.compile(r"\bpbx_portal_\w+")
SELECTOR = re.compile(r"\b(pbx_portal_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)=~?"([^"]*)"')


def promtool(*arguments: str) -> str:
    """Run promtool and return what it prints. It fails the test if it finds anything wrong."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian's prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_each_alert_begins_when_it_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


def test_each_alert_has_a_case() -> None:
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    assert len(alerts) > 10
    assert alerts == set(re.findall(r"PbxPortal\w+", CASES.read_text()))


@pytest.mark.parametrize("file", [DASHBOARD, RULES])
def test_they_are_about_metrics_and_labels_that_exist(
    with_token: Flask, scrape: Scrape, scrape_text: Callable[[], str], file: Path
) -> None:
    with with_token.app_context():
        sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now())")
        sql("""
            INSERT INTO oauth_connections (provider, grant_type, lapsed_at, credential_expires_at)
            VALUES ('microsoft', 'client_credentials', now(), now())
        """)
        sql("INSERT INTO api_keys (key_hash, prefix, expires_at) VALUES (sha256('key'), 'pbx_', now())")
    names = scrape()
    expressions = file.read_text().replace('\\"', '"')
    used = set(METRIC.findall(expressions))
    assert len(used) > 10
    assert used <= {name.partition("{")[0] for name in names}
    for metric, matchers in SELECTOR.findall(expressions):
        for label, values in MATCHER.findall(matchers):
            for value in values.split("|"):
                of_metric = [name for name in names if name.startswith(f"{metric}{{")]
                assert any(f'{label}="{value}"' in name for name in of_metric), (metric, label, value)


def test_the_dashboard_shows_every_metric(scrape: Scrape) -> None:
    shown = set(METRIC.findall(DASHBOARD.read_text()))
    without_parts = {re.sub("_(bucket|sum|count|created)$", "", name.partition("{")[0]) for name in scrape()}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in shown} >= without_parts


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{number}", "expr": expression} for number, expression in enumerate(expressions())]
    assert len(rules) > 15
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", str(file))


def expressions() -> Iterator[str]:
    """Yield the expressions of the dashboard's panels, each of which has a title and a data source."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places), "no panel hides another one"
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        yield from (target["expr"] for target in panel["targets"])
