"""Mail servers: their settings, which one applies to a tenant, advice on failures, and the SMTP client."""
