"""The attacks of strangers, tenants and thieves, carried out: each one fails."""
