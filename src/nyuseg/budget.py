"""Keeping a run of predictions within a time: better a smaller mean than no submission."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from nyuseg.predictor import Prediction, Predictor

# Images between two looks at the clock, and the share of the time that is planned with.
LOOK_EVERY = 16
PLANNED = 0.95


class Budget:
    """Watches the pace; drops the flipped view first, then folds from the last, and says so.

    seconds: from now until the last image must be predicted. `dropped` records what was dropped
    at which image, for the manifest: images before it keep the fuller mean.
    """

    def __init__(
        self,
        predictor: Predictor,
        images: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.predictor, self.images, self.seconds, self.clock = predictor, images, seconds, clock
        self.started = clock()
        self.dropped: list[dict[str, Any]] = []

    def watch(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Pass the predictions on; look at the clock every LOOK_EVERY images."""
        looked, since = self.clock(), 0
        for done, prediction in enumerate(predictions, start=1):
            yield prediction
            if done - since >= LOOK_EVERY:
                now = self.clock()
                self.fit((now - looked) / (done - since), done)
                looked, since = now, done

    def fit(self, pace: float, done: int) -> None:
        """Limit the predictor so that the rest fits; pace: seconds an image takes now."""
        left = self.seconds * PLANNED - (self.clock() - self.started)
        predictor, rest = self.predictor, self.images - done
        models, views = predictor.model_count, predictor.view_count
        each = pace / (models * views)
        if rest * pace <= left or (models, views) == (1, 1):
            return
        smaller = [(models, 1), *((fewer, 1) for fewer in range(models - 1, 0, -1))]
        fits = [level for level in smaller if rest * each * level[0] * level[1] <= left]
        level = fits[0] if fits else (1, 1)
        predictor.limit(*level)
        self.dropped.append({"image": done, "models": level[0], "views": level[1]})
        print(
            f"!! too slow for the budget: {rest} images at {pace:.2f} s, {max(0, left):.0f} s are "
            f"left; from image {done} on {level[0]} of {models} folds and {level[1]} of {views} "
            "views !!",
            flush=True,
        )
