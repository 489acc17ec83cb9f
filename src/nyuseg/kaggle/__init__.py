"""The Kaggle kernel: packaged, checked, uploaded, run."""
