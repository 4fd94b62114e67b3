"""A Postgres of its own, set up as the docs say: an owner of the tables, a login for the application, passwords."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from flask_migrate import upgrade
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL, make_url

from portal import create_app
from portal.config import Settings
from portal.database.embedded import start_embedded_postgres
from tests.conftest import MIGRATIONS, TEST_SECRET, close_connections, never_wait_for_the_disk

OWNER, LOGIN, PASSWORD = "portal_owner", "portal", "Datenbank~Geheim+4720"
KEY = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ROLES = f"""
    CREATE ROLE pbx_portal NOLOGIN;
    CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}' IN ROLE pbx_portal;
    CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}'
"""
AUTHENTICATION = "local all postgres trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class Cluster:
    """The server. `superuser` is the URL of the superuser's own database."""

    superuser: URL

    def url(self, database: str, user: str = LOGIN, password: str = PASSWORD) -> str:
        """Return a URL as an operator writes it."""
        url = self.superuser.set(drivername="postgresql", username=user, password=password, database=database)
        return url.render_as_string(hide_password=False)

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements as the superuser, who sees the rows of every tenant."""
        url = self.superuser.set(drivername="postgresql", database=database).render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True, options="-c portal.tenant=0") as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create a database of the owner's, in place of an earlier one."""
        names = {"name": sql.Identifier(name), "owner": sql.Identifier(OWNER), "template": sql.Identifier(template)}
        self.run(sql.SQL("DROP DATABASE IF EXISTS {name} WITH (FORCE)").format(**names).as_string())
        self.run(sql.SQL("CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}").format(**names).as_string())

    def settings(self, database: str, **changes: Any) -> Settings:
        """Return the settings of a production portal on one of the databases."""
        values: dict[str, Any] = {
            "portal_env": "production",
            "portal_url": "http://localhost",
            "secret_key": SecretStr(TEST_SECRET),
            "encryption_keys": SecretStr(KEY),
            "database_url": self.url(database),
            "migration_database_url": self.url(database, OWNER),
        }
        return Settings(**values | changes)


def start_cluster(folder: Path, *, with_roles: bool = True) -> Cluster:
    """Start a new server, which stops with this process."""
    cluster = Cluster(make_url(start_embedded_postgres(folder)))
    never_wait_for_the_disk(cluster.superuser)
    if with_roles:
        cluster.run(ROLES)
    (folder / "postgres" / "pg_hba.conf").write_text(AUTHENTICATION)
    cluster.run("SELECT pg_reload_conf()")
    return cluster


def migrate(cluster: Cluster, database: str) -> None:
    """Create the tables."""
    app = create_app(cluster.settings(database))
    with app.app_context():
        upgrade(MIGRATIONS)
    close_connections(app)
