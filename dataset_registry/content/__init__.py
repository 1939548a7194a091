"""How content gets in and out: staged, changed, packed, uploaded, registered and read. Knows no verb of the registry."""
