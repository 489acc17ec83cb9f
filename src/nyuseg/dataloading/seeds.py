"""Independent random streams from numbers."""

import numpy as np


def mix_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers, so that two places do not share a random stream.

    Up to four numbers, zeros at their end do not count: NumPy fills with zeros.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
