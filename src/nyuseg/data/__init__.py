"""Frames, labels and folds on disk. No torch."""
