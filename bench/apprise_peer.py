"""The `apprise` library in a Flask app: an event in, an email out, nothing stored."""

import os

from apprise import Apprise
from flask import Flask, abort, request

app = Flask(__name__)


@app.post("/events")
def receive() -> dict[str, str]:
    """Email an event."""
    if request.authorization is None or request.authorization.token != os.environ["KEY"]:
        abort(401)
    data = request.get_json()["data"]
    notifier = Apprise()
    notifier.add(os.environ["MAIL_URL"])
    if not notifier.notify(title=f"Lost call in queue {data['queue_number']}", body=str(data)):
        abort(502)
    return {"status": "sent"}
