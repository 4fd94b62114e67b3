"""From a PBX's event to a mail's words: kinds, recipients, switches, templates; nothing that sends or stores a mail."""
