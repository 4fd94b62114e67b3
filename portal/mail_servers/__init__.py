"""SMTP settings of the system and of tenants, and the one way to a mail server; what a mail says may not come in."""
