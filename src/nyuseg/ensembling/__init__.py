"""Blends of experiments, chosen on out-of-fold probabilities."""
