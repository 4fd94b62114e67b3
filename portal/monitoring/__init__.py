"""Whether the portal works, for monitors and operators: health checks, metrics and logs."""
