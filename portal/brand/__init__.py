"""How a tenant's mails look: name, colour, footer, language. What fills them in is `notifications.brand`."""
