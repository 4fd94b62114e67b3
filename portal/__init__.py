"""The PBX notification portal: a PBX posts an event, and the tenant's people get a mail."""

from typing import Any

from flask import Flask
from jinja2 import StrictUndefined
from sqlalchemy.orm import configure_mappers
from werkzeug.middleware.proxy_fix import ProxyFix

from portal import cli, config, crypto, database, health, statements, transfer, ui
from portal.accounts import door, language, sessions
from portal.accounts import security as accounts_security
from portal.accounts import views as accounts_views
from portal.application import Portal
from portal.audit import views as audit_views
from portal.brand import views as brand_views
from portal.config import ROOT, Settings
from portal.deliveries import mending
from portal.deliveries import views as deliveries_views
from portal.extensions import bootstrap, csrf, db, htmx, limiter, migrate
from portal.mail_servers import sending
from portal.mail_servers import views as mail_servers_views
from portal.mail_servers.account_mail import AccountMail
from portal.notifications import recipient_views, template_views
from portal.notifications import views as notifications_views
from portal.overview import views as overview_views
from portal.pbx import rejections
from portal.pbx import views as pbx_views
from portal.pbx.integrate import views as integrate_views
from portal.pbx.reference import views as reference_views
from portal.provisioning import qr
from portal.provisioning import views as provisioning_views
from portal.tenants import views as tenants_views

BLUEPRINTS = (
    health.blueprint,
    *accounts_views.BLUEPRINTS,
    tenants_views.blueprint,
    overview_views.blueprint,
    *mail_servers_views.BLUEPRINTS,
    *notifications_views.BLUEPRINTS,
    template_views.blueprint,
    brand_views.blueprint,
    recipient_views.blueprint,
    deliveries_views.blueprint,
    *pbx_views.BLUEPRINTS,
    integrate_views.blueprint,
    reference_views.blueprint,
    provisioning_views.blueprint,
    audit_views.blueprint,
)
ENGINE_OPTIONS = {
    "pool_size": 16,
    "max_overflow": 16,
    "pool_timeout": 5,
    "connect_args": database.CONNECT_ARGS,
    "hide_parameters": True,  # an error's text goes into the program's log
}
LARGEST_FORM_BYTES = 1_000_000


def create_app(settings: Settings | None = None) -> Flask:
    """Return the portal, wired for these settings, or for the environment's.

    Raises:
        config.UnsafeSettings: the environment's settings cannot be used.
    """
    settings = settings or config.load()
    app = Portal(__name__, template_folder=str(ROOT / "templates"), static_folder=str(ROOT / "static"))
    app.extensions["settings"] = settings
    app.config.from_mapping(_configuration(settings))
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.add_extension("jinja2.ext.do")
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    _bind_extensions(app, settings)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    configure_mappers()  # now, and not in the first request that needs them
    if settings.demo_mail_dir:
        from portal.demo import views as demo_views

        demo_views.init_app(app)
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    assert settings.secret_key is not None
    return {
        "SECRET_KEY": settings.secret_key.get_secret_value(),
        "MAX_CONTENT_LENGTH": LARGEST_FORM_BYTES,
        "SQLALCHEMY_DATABASE_URI": database.url(settings),
        "SQLALCHEMY_ENGINE_OPTIONS": ENGINE_OPTIONS,
        # A browser takes a cookie with this prefix from this host alone, and over TLS (RFC 6265bis, section 4.1.3.2).
        "SESSION_COOKIE_NAME": "__Host-session" if settings.is_https else "session",
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.is_https,
        "PERMANENT_SESSION_LIFETIME": sessions.REMEMBERED.absolute,
        "WTF_CSRF_TIME_LIMIT": None,  # as long as the session
        "BOOTSTRAP_SERVE_LOCAL": True,
        "RATELIMIT_STORAGE_URI": "memory://",  # each process counts for itself
    }


def _bind_extensions(app: Flask, settings: Settings) -> None:
    transfer.init_app(app)
    db.init_app(app)
    statements.init_app(app)
    migrate.init_app(app, db)
    csrf.init_app(app)
    htmx.init_app(app)
    bootstrap.init_app(app)
    limiter.init_app(app)
    sending.init_app(app, settings)
    crypto.init_app(app, settings)
    accounts_security.init_app(app, settings, AccountMail)
    language.init_app(app)
    door.init_app(app)
    accounts_views.init_app(app, qr.png)
    mending.init_app()
    rejections.init_app()
    ui.init_app(app)
    cli.init_app(app)
