"""The SMTP client: from a mail server's name to its reply about each recipient."""
