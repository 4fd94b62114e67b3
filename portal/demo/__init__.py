"""A portal to try: one command starts it with demo data and a mail catcher. Nothing of the portal may depend on it."""
