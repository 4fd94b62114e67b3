"""The emails about alerts: one to each administrator, about everything that is to be told to that account.

Administrators are told when an alert begins, once a day while it lasts, and when it is over. An email also lists what
was told before and still lasts. What was told is stored after each email, so that a process that dies between the two
repeats one email at most.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

from flask import current_app, render_template
from flask_babel import force_locale, gettext, ngettext
from sqlalchemy import Row, func, select, text, true
from sqlalchemy.dialects.postgresql import insert

from portal import config
from portal.accounts.models import SYSTEM_ADMINISTRATOR, Account
from portal.alerts.conditions import AlertKind
from portal.alerts.models import AlertNotice, RecordedAlert
from portal.alerts.texts import AlertText, describe
from portal.config import PRODUCT
from portal.database import clock
from portal.database.scope import every_tenant
from portal.extensions import db
from portal.mail_servers import account_email
from portal.mail_servers.account_email import NotSent
from portal.mail_servers.smtp.mime import MessageContent, UnsafeHeader
from portal.web.filters import date_and_time

TEMPLATE: Final = "alerts/email/alerts"
RUN_TIME: Final = 50.0  # seconds of one run: what is left is told in the next one
RETRY_AFTER: Final = timedelta(hours=1)  # if one account's email is rejected
MAX_LISTED: Final = 20  # alerts in one email
MAX_SUBJECT_LENGTH: Final = 150
NEW, OPEN, OVER = "new", "open", "over"

# A tenant's alerts are told to its administrators, and to viewers who chose them; if it has none, to the system's
# administrators, who are told the system's alerts. A membership without a role is an administrator's.
_RECEIVERS: Final = """
    alert AS (
        SELECT * FROM alerts
        WHERE ended_at IS NULL AND absent_since IS NULL AND tell_at <= now() OR ended_at > now() - interval '7 days'
    ), member AS (
        SELECT alert.id AS alert_id, memberships.account_id,
            memberships.role = 'administrator' AS administers
        FROM alert JOIN memberships ON memberships.tenant_id = alert.tenant_id
        JOIN accounts ON accounts.id = memberships.account_id AND accounts.active
    ), receiver AS (
        SELECT alert_id, account_id, bool_or(administers) AS administers FROM (
            SELECT * FROM member
            UNION ALL
            SELECT alert.id, account_roles.account_id, true
            FROM alert, roles JOIN account_roles ON account_roles.role_id = roles.id
            JOIN accounts ON accounts.id = account_roles.account_id AND accounts.active
            WHERE roles.name = :system_administrator
                AND NOT EXISTS (SELECT FROM member WHERE member.alert_id = alert.id AND administers)
        ) AS told GROUP BY alert_id, account_id
    )
"""
DUE: Final = f"""
    WITH {_RECEIVERS}, told AS (
        SELECT receiver.account_id, receiver.administers, accounts.email, accounts.language,
            alert.id AS alert_id, alert.kind, alert.subject,
            alert.details, alert.began_at, alert.ended_at, tenants.name, tenants.domain, tenants.time_zone,
            tenants.language AS tenant_language,
            CASE WHEN alert.ended_at IS NOT NULL THEN 'over' WHEN notice.told_at IS NULL THEN 'new' ELSE 'open' END
                AS stage,
            max(notice.retry_at) OVER of_account AS retry_at,
            bool_or(alert.ended_at IS NOT NULL OR notice.told_at IS NULL OR notice.told_at
                <= now() - CASE WHEN alert.kind = 'expiry' THEN interval '7 days' ELSE interval '1 day' END)
                OVER of_account AS is_due
        FROM receiver JOIN alert ON alert.id = receiver.alert_id
        JOIN accounts ON accounts.id = receiver.account_id
        LEFT JOIN tenants ON tenants.id = alert.tenant_id
        LEFT JOIN alert_notices AS notice USING (alert_id, account_id)
        LEFT JOIN alert_preferences AS preference
            ON preference.account_id = receiver.account_id AND preference.kind = alert.kind
        WHERE coalesce(preference.enabled, receiver.administers)
            AND (alert.ended_at IS NULL OR notice.told_at IS NOT NULL AND notice.end_told_at IS NULL)
        WINDOW of_account AS (PARTITION BY receiver.account_id)
    )
    SELECT * FROM told WHERE is_due
    ORDER BY retry_at NULLS FIRST, account_id, name NULLS FIRST, stage, began_at, alert_id
"""  # noqa: S608 (contains no input)


class ListedAlert(NamedTuple):
    """An alert as an email lists it. `place` is the tenant, `period` since when, or until when."""

    stage: str
    place: str
    text: AlertText
    period: str
    link: str
    url: str


class Telling(NamedTuple):
    """When administrators were last emailed, and why that is not possible: for all, and for single accounts."""

    last_told_at: datetime | None
    obstacle: str | None
    failures: Sequence[tuple[str, str]]


def tell() -> None:
    """Email each account that is to be told something, until the mail server fails or the time of a run is over."""
    ends = time.monotonic() + RUN_TIME
    with every_tenant():
        rows = db.session.execute(text(DUE), {"system_administrator": SYSTEM_ADMINISTRATOR}).all()
        db.session.commit()
        now = clock.now()
        for _, account_rows in groupby(rows, lambda row: row.account_id):
            alerts = list(account_rows)
            is_waiting = alerts[0].retry_at is not None and alerts[0].retry_at > now
            if is_waiting or account_email.obstacle() or time.monotonic() >= ends:
                break  # those that wait come last
            try:
                failed = account_email.send(compose(alerts), alerts[0].email)
            except UnsafeHeader as error:
                failed = NotSent(str(error), is_about_server=False)
            _store(alerts, failed)
            if failed and failed.is_about_server:
                break


def _store(alerts: Sequence[Row[Any]], failed: NotSent | None) -> None:
    now = clock.now()
    told = RecordedAlert.id.in_([alert.alert_id for alert in alerts]), Account.id == alerts[0].account_id
    # A tenant or the account may have been deleted while the email was sent.
    existing = select(RecordedAlert.id).join(Account, true()).where(*told).with_for_update(read=True, key_share=True)
    ids = set(db.session.scalars(existing))
    for alert in alerts:
        if alert.alert_id not in ids:
            continue
        values: dict[str, Any] = {"failure": None, "retry_at": None}
        if failed:  # a mail server that works again is to be used at once, for those first that were not tried
            values = {"failure": failed.reason, "retry_at": now if failed.is_about_server else now + RETRY_AFTER}
        else:
            values |= {"told_at": now} | ({"end_told_at": now} if alert.stage == OVER else {})
        keys = {"alert_id": alert.alert_id, "account_id": alert.account_id}
        statement = insert(AlertNotice).values(**keys, **values)
        db.session.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=values))
    db.session.commit()


def compose(alerts: Sequence[Row[Any]]) -> MessageContent:
    """Return the email about these alerts, in the language of the account, or else of the first tenant."""
    first = alerts[0]
    with force_locale(first.language or first.tenant_language or "en"):
        listed = [_listed(alert) for alert in alerts[:MAX_LISTED]]
        values: dict[str, Any] = {
            "alerts": {stage: [alert for alert in listed if alert.stage == stage] for stage in (NEW, OPEN, OVER)},
            "more": len(alerts) - len(listed),
            "overview_url": _url("tenants.home"),
            "preferences_url": f"{_url('account.security')}#alerts",
        }
        plain, html = (render_template(f"{TEMPLATE}.{kind}", **values) for kind in ("txt", "html"))
        return MessageContent.of(_subject(listed, len(alerts)), f"{plain}\n", html)


def _listed(alert: Row[Any]) -> ListedAlert:
    described = describe(AlertKind(alert.kind), alert.subject, alert.details, is_system=alert.domain is None)
    zone = alert.time_zone or "UTC"
    if alert.stage == OVER:
        times = {"began": date_and_time(alert.began_at, zone), "ended": date_and_time(alert.ended_at, zone)}
        period = gettext("From %(began)s to %(ended)s (%(zone)s)", zone=zone, **times)
    elif end := alert.details.get("expires_at"):
        at = date_and_time(datetime.fromisoformat(end), zone)
        period = gettext("Expiry date: %(time)s (%(zone)s)", time=at, zone=zone)
    else:
        period = gettext("Since %(time)s (%(zone)s)", time=date_and_time(alert.began_at, zone), zone=zone)
    place = f"{alert.name} ({alert.domain})" if alert.domain else PRODUCT
    endpoint, values, link = described.endpoint, dict(described.url_values), described.link
    if not alert.administers:  # a viewer may not open the page where it is fixed
        endpoint, values, link = "overview.of_tenant", {}, gettext("Overview")
    url = _url(endpoint, values | ({"domain": alert.domain} if alert.domain else {}))
    return ListedAlert(alert.stage, place, described, period, link, url)


def _subject(listed: Sequence[ListedAlert], count: int) -> str:
    """Return the sentence of the alert that is new or over, or how many alerts there are."""
    changed = [alert for alert in listed if alert.stage != OPEN] or listed
    place = changed[0].place if len({alert.place for alert in changed}) == 1 else PRODUCT
    if len(changed) == 1:
        sentence = changed[0].text.ended if changed[0].stage == OVER else changed[0].text.sentence
    else:
        sentence = ngettext("%(num)s alert", "%(num)s alerts", count)
    return f"{place}: {sentence}"[:MAX_SUBJECT_LENGTH]


def _url(endpoint: str, values: Mapping[str, str] | None = None) -> str:
    return f"{config.current().portal_url}{current_app.url_map.bind('').build(endpoint, values)}"


def telling() -> Telling:
    """Return when administrators were last emailed about an alert of anyone, and why that is not possible now."""
    last = db.session.scalar(select(func.max(AlertNotice.told_at)))
    recent = select(AlertNotice.account_id, AlertNotice.failure).where(AlertNotice.retry_at > clock.now() - RETRY_AFTER)
    failures = dict(db.session.execute(recent.order_by(AlertNotice.retry_at).limit(MAX_LISTED)).all())
    accounts = select(Account.id, Account.email).where(Account.id.in_(failures)).order_by(Account.email)
    emails = db.session.execute(accounts).all() if failures else ()
    return Telling(
        last, account_email.obstacle(), [(email, failures[account_id] or "") for account_id, email in emails]
    )
