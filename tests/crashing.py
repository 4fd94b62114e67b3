"""A portal that is killed (SIGKILL) at a point of its own choosing: `python -m tests.crashing web|worker POINT`.

Points are `before commit N` and `after commit N` of the process's own transactions, counted from the request on.
`never` lets it live. The web process prints its port when it listens.
"""

import os
import signal
import sys

from sqlalchemy import event
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from portal import create_app
from portal.deliveries import jobs


def main() -> None:
    """Run as asked."""
    what, point = sys.argv[1:]
    app = create_app()
    if point != "never":
        _die_at(point)
    if what == "worker":
        jobs.run(app, concurrency=1, wait=False)
        return
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


def _die_at(point: str) -> None:
    when, _, number = point.split()
    seen = 0

    def count(_session: Session) -> None:
        nonlocal seen
        seen += 1
        if seen == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Session, f"{when}_commit", count)


if __name__ == "__main__":
    main()
