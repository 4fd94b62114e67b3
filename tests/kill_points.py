"""A portal that kills itself (SIGKILL) at a chosen point: `python -m tests.kill_points web|worker POINT`.

Points are `before commit N` and `after commit N` of the process's own transactions, counted from the call of
`accept_event` or `retry_next`. `never` lets it live. The web process prints its port when it listens.
"""

import os
import signal
import sys
from collections.abc import Mapping
from itertools import count
from types import ModuleType
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from portal import create_app
from portal.database import fast_sql
from portal.deliveries import worker
from portal.pbx import webhook as pbx


def main() -> None:
    """Run the web process or the worker."""
    what, point = sys.argv[1:]
    app = create_app()
    if point != "never":
        _die_at(point, worker if what == "worker" else pbx)
    if what == "worker":
        worker.run(app, concurrency=1, wait=False)
        return
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


def _die_at(point: str, module: ModuleType) -> None:
    when, _, number = point.split()
    commits = count()
    run, work = fast_sql.run, "retry_next" if module is worker else "accept_event"

    def one_more(_session: Session | None = None) -> None:
        if next(commits) + 1 == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def run_counted(statement: str, values: Mapping[str, Any], **options: Any) -> Mapping[str, Any] | None:
        if statement.strip().startswith("SELECT"):
            return run(statement, values, **options)
        if when == "before":
            one_more()
        row = run(statement, values, **options)
        if when == "after":
            one_more()
        return row

    begin = getattr(module, work)

    def begin_counting(*arguments: Any, **options: Any) -> Any:
        event.listen(Session, f"{when}_commit", one_more)
        vars(fast_sql)["run"] = run_counted
        return begin(*arguments, **options)

    vars(module)[work] = begin_counting


if __name__ == "__main__":
    main()
