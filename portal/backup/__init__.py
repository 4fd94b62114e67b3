"""`pbx-portal backup` and `restore`: the whole database in one file, and into an empty database of another machine."""


class BackupError(Exception):
    """A backup cannot be made or restored. The text says why, and what to do."""
