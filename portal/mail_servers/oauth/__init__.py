"""OAuth 2.0: connections to mailboxes at Microsoft and Google, and their access tokens."""
