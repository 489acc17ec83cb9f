"""Independent random streams from numbers."""

import numpy as np


def mix_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers, so that no two places share a random stream."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
