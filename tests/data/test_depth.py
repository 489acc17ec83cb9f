"""Depth codes: every depth has a finite one, and a missing depth is never near."""

from collections.abc import Callable

import numpy as np
import pytest

from nyuseg.data.depth import inverse_depth, linear_depth, log_depth

CODES = [linear_depth, inverse_depth, log_depth]


def millimetres(*values: int) -> np.ndarray:
    return np.array([values], np.uint16)


def test_depth_codes_by_hand() -> None:
    near, far = 0.71, 10.0
    depth = millimetres(710, 2000, 10000)
    np.testing.assert_allclose(linear_depth(depth), [[0, 1.29 / 9.29, 1]], atol=1e-6)
    middle = (0.5 - 1 / far) / (1 / near - 1 / far)  # 0.30571...
    np.testing.assert_allclose(inverse_depth(depth), [[1, middle, 0]], atol=1e-6)
    middle = np.log(2 / near) / np.log(far / near)  # 0.39150...
    np.testing.assert_allclose(log_depth(depth), [[0, middle, 1]], atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_depth_beyond_the_range_is_clipped(code: Callable) -> None:
    found = code(millimetres(1, 709, 10001, 65535))
    near, far = code(millimetres(710, 10000))[0]
    np.testing.assert_allclose(found, [[near, near, far, far]], atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_missing_depth_is_zero_and_never_near(code: Callable) -> None:
    with np.errstate(all="raise"):
        found = code(millimetres(0, 3000, 0))
    assert found.dtype == np.float32
    assert found[0, 0] == found[0, 2] == 0
    assert 0 < found[0, 1] < 1


@pytest.mark.parametrize("code", CODES)
def test_every_depth_has_a_finite_code(code: Callable) -> None:
    found = code(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    steps = np.diff(found.ravel()[710:10001])
    assert (steps < 0).all() if code is inverse_depth else (steps > 0).all()
