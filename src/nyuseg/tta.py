"""Test-time views; the only module that knows ttach."""

import ttach

VIEW_NAMES = ("identity", "horizontal_flip")


def make_views(tta: bool) -> ttach.Compose:
    """The identity and, with `tta`, the horizontal flip: the only flip that training uses.

    Iterating gives views with `augment_image`, [N,C,H,W] to what the network sees, and
    `deaugment_mask`, the way back for what it answers.
    """
    return ttach.Compose([ttach.HorizontalFlip()] if tta else [])


def view_names(count: int) -> list[str]:
    """The names of the first `count` views, for the manifest."""
    return list(VIEW_NAMES[:count])
