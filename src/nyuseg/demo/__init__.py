"""Procedural indoor scenes: the demo data."""
