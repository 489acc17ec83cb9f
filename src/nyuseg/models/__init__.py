"""Networks, their parts and their weights."""
