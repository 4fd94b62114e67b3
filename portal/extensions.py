"""The Flask extensions, not bound to an app: `create_app` does that."""

from datetime import datetime
from typing import Any, ClassVar

from flask_bootstrap import Bootstrap5
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from htmx_flask import Htmx
from sqlalchemy import DateTime, MetaData
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

from portal.config import ROOT


class Base(DeclarativeBase):
    """The base of all models: every constraint has a name, every time a time zone."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, TypeEngine[Any]]] = {datetime: DateTime(timezone=True)}


db = SQLAlchemy(session_options={"expire_on_commit": False})  # a session lasts as long as a request
migrate = Migrate(directory=str(ROOT / "migrations"))
csrf = CSRFProtect()
htmx = Htmx()
bootstrap = Bootstrap5()
