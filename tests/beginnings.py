"""What many tests begin with: the portal writes it in the first of them, the later ones copy the rows."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import JSON, DateTime, LargeBinary, Table, Uuid
from uuid_utils.compat import uuid7

from portal.extensions import Base, db
from tests.sql import owner_engine

Rows = Mapping[str, Sequence[str]]

# The ones that are referred to first. Triggers fill in the one that is left out.
TABLES: Sequence[Table] = [table for table in Base.metadata.sorted_tables if table.name != "settings_revisions"]
# What differs in each test, and decides about nothing that is written here.
CHANGING_TYPES = (DateTime, JSON, LargeBinary, Uuid)
CHANGING = {"fs_uniquifier", "port", "prefix", "subject"}


def _rows_of(table: Table) -> str:
    names = [it.name for it in table.columns if isinstance(it.type, CHANGING_TYPES) or it.name in CHANGING]
    return f"'{table}', (SELECT jsonb_agg(to_jsonb(it) - '{{{','.join(names)}}}'::text[]) FROM {table} it)"


SEQUENCES = "(SELECT jsonb_object_agg(sequencename, last_value) FROM pg_sequences WHERE last_value IS NOT NULL)"
KEY = f"SELECT md5(concat(jsonb_build_object({', '.join(map(_rows_of, TABLES))}), {SEQUENCES}))"
ALL_ROWS = ", ".join(
    f"'{table}', (SELECT coalesce(json_agg(to_json(it)::text), '[]') FROM {table} it)" for table in TABLES
)
STATE = f"SELECT json_build_object({ALL_ROWS}), coalesce({SEQUENCES}, '{{}}'), now()::text"
UUID7 = re.compile(r"(?<=\")[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}(?=\")")

Result = TypeVar("Result")

_copies: dict[tuple[object, ...], tuple[str, int, Any]] = {}


def begin_with(app: Flask, what: object, write: Callable[[], Result], *, port: int = 0) -> Result:
    """Let the portal write rows, in an application context of its own, or copy what it wrote in the same state before.

    Return what `write` returns, or returned then.
    Ids of version 7 and times are new ones, and so is a `port`: that of a server which listens anywhere in each test.
    """
    result: Result
    with app.app_context():
        owner = owner_engine(db.engine.url)
        with owner.begin() as connection:
            key = (db.engine.url, what, connection.exec_driver_sql(KEY).scalar_one())
            if key in _copies:
                statements, old_port, result = _copies[key]
                adapted = _adapted(statements, old_port, port)
                connection.exec_driver_sql(adapted, execution_options={"no_parameters": True})
                return result
            rows, sequences, _ = connection.exec_driver_sql(STATE).one()
        result = write()
        with owner.begin() as connection:
            new_rows, new_sequences, now = connection.exec_driver_sql(STATE).one()
    moved = new_sequences.items() - sequences.items()
    is_copied = not any(name.startswith("procrastinate") for name, _ in moved)  # a job is in none of these tables
    if is_copied and all(set(rows[table]).issubset(new_rows[table]) for table in rows):
        moves = [f"SELECT setval('{name}', {value})" for name, value in moved]
        _copies[key] = "; ".join([*_inserts(rows, new_rows, now), *moves]), port, result
    return result


def _adapted(statements: str, old_port: int, port: int) -> str:
    statements = UUID7.sub(lambda _: str(uuid7()), statements)  # in the order of the rows
    return re.sub(rf"(?<=[ :\[]){old_port}(?=[],}}])", str(port), statements) if port else statements


def _inserts(before: Rows, after: Rows, now: str) -> Sequence[str]:
    """Return statements that insert the rows that were not there before."""
    statements = []
    for table in TABLES:
        old = set(before[table.name])
        new = [row for row in after[table.name] if row not in old]
        values = {
            column.name: f"{column.name} + (now() - '{now}')" if isinstance(column.type, DateTime) else column.name
            for column in table.columns
            if not (column.computed or (column.server_default and isinstance(column.type, DateTime)))
        }
        if new:
            into = f"{table} ({', '.join(values)}) OVERRIDING SYSTEM VALUE"
            rows = f"json_populate_recordset(NULL::{table}, $rows$[{','.join(new)}]$rows$)"
            statements.append(f"INSERT INTO {into} SELECT {', '.join(values.values())} FROM {rows}")
    return statements
