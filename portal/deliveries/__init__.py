"""From a recorded event to a mail server's reply: accept, attempt, log. Knows no request but those of its own pages."""
