"""Scores: metrics, intervals, validation, out-of-fold files, tables."""
