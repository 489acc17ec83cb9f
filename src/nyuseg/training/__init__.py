"""Losses, optimizer step, checkpoints, one fold, all folds."""
