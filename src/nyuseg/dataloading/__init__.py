"""From frames to batches: data sets, augmentation, the network's input."""
