"""What a PBX speaks with: its keys and the webhook. The last room: nothing else imports it."""
