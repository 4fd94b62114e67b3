"""Who is notified of which events: recipients, the settings of each event type, storm limits."""
