"""A solution by hand: Flask and Flask-Mail, a connection per email, three statements in two transactions."""

import os
from uuid import uuid4

from flask import Flask, abort, request
from flask_mail import Mail, Message
from jinja2 import Template
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

app = Flask(__name__)
app.config.from_prefixed_env()
mail = Mail(app)
pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=16, open=True)

TEXT = Template("Queue {{ queue_number }} lost the call of {{ caller_number }}, who waited {{ waited_seconds }} s.")
HTML = Template(
    "<p>Queue <b>{{ queue_number }}</b> lost the call of {{ caller_number }}, who waited {{ waited_seconds }} s.</p>"
)


@app.post("/events")
def receive() -> dict[str, str]:
    """Record an event, email it, record the result."""
    if request.authorization is None or request.authorization.token != os.environ["KEY"]:
        abort(401)
    data, event_id, mail_id = request.get_json()["data"], uuid4(), uuid4()
    with pool.connection() as db:
        db.execute("INSERT INTO events (id, data) VALUES (%s, %s)", (event_id, Jsonb(data)))
        db.execute("INSERT INTO emails (id, event_id, status) VALUES (%s, %s, 'pending')", (mail_id, event_id))
    message = Message(f"Lost call in queue {data['queue_number']}", recipients=["ops@acme.example"])
    message.body, message.html = TEXT.render(data), HTML.render(data)
    mail.send(message)
    with pool.connection() as db:
        db.execute("UPDATE emails SET status = 'sent', sent_at = now() WHERE id = %s", (mail_id,))
    return {"id": str(event_id), "status": "sent"}
