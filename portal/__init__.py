"""The PBX notification portal: a PBX posts an event, and the portal emails the tenant's people about it."""

import gc
from typing import Any

# Imports create many objects that are kept until the end: looking for garbage would take a fifth of their time.
gc.disable()

from portal import hangup

hangup.hold_for_server()

from flask import Flask
from jinja2 import StrictUndefined
from sqlalchemy.orm import configure_mappers

from portal import commands, config, crypto
from portal.accounts import request_guards, sessions
from portal.accounts import security as accounts_security
from portal.accounts import views as accounts_views
from portal.accounts.single_sign_on import views as single_sign_on_views
from portal.alerts import views as alerts_views
from portal.alerts import watch
from portal.app import Portal
from portal.audit import views as audit_views
from portal.config import PRODUCT, ROOT, Settings
from portal.database import embedded, engine, fast_sql
from portal.deliveries import release
from portal.deliveries import views as deliveries_views
from portal.doctor import views as doctor_views
from portal.extensions import bootstrap, csrf, db, htmx, migrate
from portal.help import views as help_views
from portal.mail_servers import views as mail_servers_views
from portal.mail_servers.account_email import AccountEmail
from portal.mail_servers.oauth import views as oauth_views
from portal.mail_servers.smtp import pool
from portal.mail_templates import views as mail_template_views
from portal.monitoring import health_checks, logs, metrics, processes
from portal.notifications import views as notifications_views
from portal.overview import views as overview_views
from portal.overview import worst_tenants
from portal.pbx import api_key_views, rejections, webhook_views
from portal.pbx.connect import views as connect_views
from portal.people import invitations
from portal.people import views as people_views
from portal.provisioning import views as provisioning_views
from portal.tenants import views as tenants_views
from portal.transfer import deletion, invitation_emails
from portal.transfer import views as transfer_views
from portal.web import compression, deployment, errors, filters, i18n, responses, static_files

gc.freeze()
gc.set_threshold(10_000)  # a page makes that many objects, almost all without a cycle: looking took 7 % of its time
gc.enable()

BLUEPRINTS = (
    health_checks.blueprint,
    doctor_views.blueprint,
    metrics.blueprint,
    *accounts_views.BLUEPRINTS,
    single_sign_on_views.blueprint,
    tenants_views.blueprint,
    transfer_views.blueprint,
    *people_views.BLUEPRINTS,
    alerts_views.blueprint,
    *overview_views.BLUEPRINTS,
    *mail_servers_views.BLUEPRINTS,
    *oauth_views.BLUEPRINTS,
    *notifications_views.BLUEPRINTS,
    *mail_template_views.BLUEPRINTS,
    deliveries_views.blueprint,
    webhook_views.blueprint,
    *api_key_views.BLUEPRINTS,
    connect_views.blueprint,
    webhook_views.api_reference,
    provisioning_views.blueprint,
    audit_views.blueprint,
    help_views.blueprint,
)
KEPT_CONNECTIONS = 2  # for pages; further ones are given back to Postgres when they are not used
ENGINE_OPTIONS = {
    "pool_size": KEPT_CONNECTIONS,
    "pool_timeout": 5,
    "connect_args": engine.CONNECT_ARGS,
    "hide_parameters": True,  # the text of an error is logged
}
MAX_FORM_BYTES = 1_000_000


def create_app(settings: Settings | None = None) -> Flask:
    """Return the portal, configured by these settings, or by those of the environment: see `config.load`."""
    settings = settings or config.load()
    logs.configure(settings)
    app = Portal(__name__, template_folder=str(ROOT / "templates"), static_folder=str(ROOT / "static"))
    app.extensions["settings"] = settings
    app.config.from_mapping(_flask_config(settings))
    app.jinja_env.globals["product"] = PRODUCT
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.add_extension("jinja2.ext.do")
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    deployment.init_app(app, settings)
    _init_extensions(app, settings)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    configure_mappers()  # not in the first request
    if settings.demo_mail_dir:
        from portal.demo import views as demo_views

        demo_views.init_app(app)
    return app


def _flask_config(settings: Settings) -> dict[str, Any]:
    secret_key, *fallbacks = settings.secret_keys
    return {
        "SECRET_KEY": secret_key,
        "SECRET_KEY_FALLBACKS": fallbacks,
        "MAX_CONTENT_LENGTH": MAX_FORM_BYTES,
        "MAX_FORM_MEMORY_SIZE": MAX_FORM_BYTES,  # a form that is imported may be as large
        "SQLALCHEMY_DATABASE_URI": embedded.database_url(settings),
        "SQLALCHEMY_ENGINE_OPTIONS": ENGINE_OPTIONS | {"max_overflow": settings.page_connections - KEPT_CONNECTIONS},
        # Browsers accept a cookie with this prefix only from this host and over TLS (RFC 6265bis, section 4.1.3.2).
        "SESSION_COOKIE_NAME": "__Host-session" if settings.is_https else "session",
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.is_https,
        "PERMANENT_SESSION_LIFETIME": sessions.REMEMBERED_LIFETIME.absolute,
        "WTF_CSRF_TIME_LIMIT": None,  # as long as the session
        "BOOTSTRAP_SERVE_LOCAL": True,
    }


def _init_extensions(app: Flask, settings: Settings) -> None:
    compression.init_app(app)
    static_files.init_app(app)
    db.init_app(app)
    fast_sql.init_app(app)
    migrate.init_app(app, db)
    csrf.init_app(app)
    htmx.init_app(app)
    bootstrap.init_app(app)
    pool.init_app(app, settings)
    crypto.init_app(app, settings)
    accounts_security.init_app(app, settings, AccountEmail)
    request_guards.init_app(app)
    accounts_views.init_app(app)
    single_sign_on_views.init_app(app)
    invitations.init_app()
    release.init_app()
    processes.init_app()
    rejections.init_app()
    webhook_views.init_app(app)
    watch.init_app()
    worst_tenants.init_app()
    deletion.init_app()
    invitation_emails.init_app()
    i18n.init_app(app)
    errors.init_app(app)
    filters.init_app(app)
    help_views.init_app(app)
    responses.init_app(app)
    commands.init_app(app)
