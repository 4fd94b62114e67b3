"""How a PBX reports events: API keys, the webhook, one adapter per PBX make, and the pages about them."""
