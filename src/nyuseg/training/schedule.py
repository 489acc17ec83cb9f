"""The learning rate over a training."""

import math

from nyuseg.config.sections import Train

POWER = 0.9  # Of the polynomial: Chen et al. 2017, arXiv 1706.05587.


def learning_rate(options: Train, epoch: float) -> float:
    """The rate at a moment of the training, in epochs since its beginning (0 .. epochs).

    A pure function, so that a resumed run cannot jump. train.schedule says what it does: by epoch
    it is torch's CosineAnnealingLR with T_max = epochs.
    """
    if options.schedule == "epoch_cosine":
        return options.lr * 0.5 * (1 + math.cos(math.pi * math.floor(epoch) / options.epochs))
    if epoch < options.warmup:
        return options.lr * epoch / options.warmup
    done = (epoch - options.warmup) / (options.epochs - options.warmup)
    if options.schedule == "poly":
        return options.lr * (1 - done) ** POWER
    return options.lr * 0.5 * (1 + math.cos(math.pi * done))
