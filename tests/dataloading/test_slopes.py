"""Slopes: what a plane's normal says, near or far, zoomed or mirrored."""

import numpy as np
import pytest
import torch

from nyuseg.config.loading import parse_config
from nyuseg.config.prediction import View
from nyuseg.config.sections import Data
from nyuseg.dataloading.inputs import network_images, network_input, training_inputs
from nyuseg.dataloading.slopes import FOCAL, surface_slopes
from nyuseg.inference.tta import augment

HEIGHT, WIDTH = 120, 160
DATA = Data(
    size=(96, 160), channels=("rgb", "slopes", "inverse_depth"), mean=(0, 0, 0), std=(1, 1, 1)
)


def rays(width: int = WIDTH, height: int = HEIGHT, zoom: float = 1) -> list[np.ndarray]:
    focal = FOCAL * WIDTH * zoom
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    return list(np.meshgrid(x, y))


def plane(normal: tuple[float, float, float], metres: float, **view: float) -> torch.Tensor:
    """Depth of a plane, int32 [1,H,W] in mm, `metres` away along the middle ray."""
    x, y = rays(**view)
    depth = metres * normal[2] / (normal[0] * x + normal[1] * y + normal[2])
    assert (depth > 0).all()
    return torch.from_numpy(np.rint(depth * 1000).astype(np.int32))[None]


def inner(slopes: torch.Tensor) -> np.ndarray:
    return slopes[0, :, 6:-6, 6:-6].numpy()


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.3, 0, 1), (-0.5, 0.4, 0.8), (0, 0.7, 0.6)])
@pytest.mark.parametrize("metres", [1.5, 6])
def test_a_plane_has_the_slopes_of_its_normal_however_far(normal, metres) -> None:
    x, y = rays()
    along = normal[0] * x + normal[1] * y + normal[2]
    expected = np.arctan([-normal[0] / along, -normal[1] / along])
    found = surface_slopes(plane(normal, metres), WIDTH, WIDTH)
    assert found.dtype == torch.float32 and found.shape == (1, 2, HEIGHT, WIDTH)
    # Millimetres, and a mean over five pixels.
    np.testing.assert_allclose(inner(found), expected[:, 6:-6, 6:-6], atol=0.03)


def test_zoom_leaves_the_slopes_as_they_are() -> None:
    normal = (0.4, -0.3, 1)
    large = plane(normal, 4, width=2 * WIDTH, height=2 * HEIGHT, zoom=2)
    zoomed = surface_slopes(large, torch.full((1, 1, 1), 2.0 * WIDTH), WIDTH)
    assert inner(surface_slopes(plane(normal, 4), WIDTH, WIDTH)).mean((1, 2)) == pytest.approx(
        inner(zoomed).mean((1, 2)), abs=0.01
    )
    assert np.abs(inner(surface_slopes(large, WIDTH, WIDTH)).mean((1, 2))).max() < 0.3


def test_zooms_differ_by_frame() -> None:
    depth = plane((0.4, -0.3, 1), 4).repeat(2, 1, 1)
    both = surface_slopes(depth, WIDTH * torch.tensor([1.0, 3.0]).view(-1, 1, 1), WIDTH)
    for place, zoom in enumerate((1.0, 3.0)):
        alone = surface_slopes(depth[:1], WIDTH * zoom, WIDTH)[0]
        torch.testing.assert_close(both[place], alone)


def test_what_is_missing_is_flat_and_does_not_bend_what_is_beside_it() -> None:
    depth = plane((0.3, 0.1, 1), 3)
    whole = surface_slopes(depth, WIDTH, WIDTH)
    holed = depth.clone()
    holed[:, 30:60, 50:90] = 0
    found = surface_slopes(holed, WIDTH, WIDTH)
    assert (found[:, :, 30:60, 50:90] == 0).all()
    beside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    beside[30:60, 50:90] = False
    beside[:6], beside[-6:], beside[:, :6], beside[:, -6:] = False, False, False, False
    # Beside a hole the mean's middle lies off the pixel.
    assert (found - whole)[0, :, beside].abs().max() < 0.2
    assert (surface_slopes(torch.zeros_like(depth), WIDTH, WIDTH) == 0).all()


def test_a_mirrored_view_is_the_view_of_the_mirrored_frame() -> None:
    random = np.random.default_rng(3)
    image = torch.from_numpy(random.integers(0, 256, (1, 96, 160, 3), dtype=np.uint8))
    depth = torch.from_numpy(random.integers(0, 9000, (1, 96, 160)).astype(np.int32))
    seen = augment(View(flip=True), network_input(image, depth, DATA, 160.0), DATA)
    mirrored = network_input(image.flip(2), depth.flip(2), DATA, 160.0)
    torch.testing.assert_close(seen, mirrored, atol=1e-3, rtol=0)  # Sums in another order.
    straight = network_input(image, depth, DATA, 160.0)
    assert (seen[:, 3] != straight.flip(-1)[:, 3]).any()  # More than the pixels' order changed.


def test_training_takes_the_zoom_of_each_frame() -> None:
    depth = plane((0.4, -0.3, 1), 4)[0, :96].numpy().astype(np.int16)
    batch = {
        "image": torch.zeros(2, 96, WIDTH, 3, dtype=torch.uint8),
        "depth": torch.from_numpy(np.stack([depth, depth])),
        "label": torch.zeros(2, 96, WIDTH, dtype=torch.uint8),
        "zoom": torch.tensor([1.0, 2.0]),
        "id": ["a", "b"],
        "size": [(96, 160), (96, 160)],
    }
    seen = training_inputs(batch, DATA, torch.device("cpu"))["image"]
    tangents = torch.tan(seen[:, 3:5, 8:-8, 8:-8])
    torch.testing.assert_close(tangents[1], 2 * tangents[0])


def test_the_focal_length_is_that_of_a_frames_longer_side() -> None:
    # 192x80 in 96x160 is 96x40: of a camera that was turned, and that sees 96 pixels across.
    depth = torch.from_numpy(plane((0.4, -0.3, 1), 4)[0, :96].numpy().astype(np.int16))[None]
    image = torch.zeros(1, 96, WIDTH, 3, dtype=torch.uint8)
    narrow, wide = (
        network_images({"image": image, "depth": depth, "size": [size]}, DATA, torch.device("cpu"))
        for size in ((192, 80), (96, 160))
    )
    inside = np.s_[:, 3:5, 8:-8, 8:-8]
    across, along = (torch.tan(seen[inside]) for seen in (narrow, wide))
    torch.testing.assert_close(across * 160 / 96, along)


def test_a_branch_needs_a_code_of_the_depth_beside_the_slopes() -> None:
    from nyuseg.utils.errors import UserError

    values = {"name": "x", "model": {"fusion": "branch"}, "data": {"channels": ["rgb", "slopes"]}}
    with pytest.raises(UserError, match=r"model.fusion: branch needs .*inverse_depth"):
        parse_config(values, "x")
