"""PBX makes, one file each: the payloads that a make posts, and its configuration snippet."""
