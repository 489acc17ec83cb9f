"""RGB-D semantic segmentation of NYUv2: folds, training, out-of-fold scores, submission."""

__version__ = "0.2.0"
