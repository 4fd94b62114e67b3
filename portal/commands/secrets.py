"""The commands about stored secrets."""

from portal import key_rotation
from portal.commands.group import CommandGroup
from portal.commands.output import echo, fail

stored_secrets = CommandGroup("secrets", help="The encrypted values in the database.")


@stored_secrets.command("rotate")
def rotate_secrets() -> None:
    """Re-encrypt every stored secret with the first key of ENCRYPTION_KEYS, and count the secrets by key."""
    rotation = key_rotation.rotate()
    for column, count in rotation.rotated.items():
        echo(f"{column}: {count} re-encrypted")
    for key_id, count in rotation.stored.items():
        echo(f"key {key_id}: {count} secrets")
    if rotation.remaining:
        fail(
            f"{rotation.remaining} secrets still use another key. Run the command again. "
            "If that does not help, their key is missing in ENCRYPTION_KEYS."
        )
    echo("All secrets use the first key. You can remove the other keys from ENCRYPTION_KEYS in a day.")
