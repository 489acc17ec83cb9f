"""The only way from images to probabilities and masks. It never sees a label."""
