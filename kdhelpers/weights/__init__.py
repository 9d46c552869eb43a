"""Weight files: find one by name, read its description, load its network."""
