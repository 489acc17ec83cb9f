"""Keeping a run of predictions within a time: better a smaller mean than no submission."""

import time
from collections.abc import Callable, Iterator

from nyuseg.inference.predictor import Prediction, Predictor
from nyuseg.submission.manifest import Dropped

# Images between two looks at the clock, at least, and the share of the time that is planned with:
# the rest is for decoding and comparing what was written.
LOOK_EVERY = 16
PLANNED = 0.9


class Budget:
    """Watches the pace; drops all views but the first, then networks from the last, and says so.

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
        self.dropped: list[Dropped] = []
        batch = predictor.batch_size
        # Answers come in batches, one from each device in turn: only whole rounds tell a pace.
        round_size = batch * len(predictor.devices)
        self.interval = -(-LOOK_EVERY // round_size) * round_size
        # Batches already on their way when a look is taken, or when reading has just begun.
        self.settle = batch * (len(predictor.devices) + 1)

    def watch(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Pass the predictions on; look at the clock after each interval."""
        start, since = self.settle, self.clock()
        for done, prediction in enumerate(predictions, start=1):
            yield prediction
            if done == start:
                since = self.clock()
            elif done == start + self.interval:
                changed = self.fit((self.clock() - since) / self.interval, done)
                start, since = done + self.settle * changed, self.clock()

    def fit(self, pace: float, done: int) -> bool:
        """Limit the predictor so that the rest fits; pace: seconds an image takes now.

        Returns whether anything was dropped.
        """
        left = self.seconds * PLANNED - (self.clock() - self.started)
        predictor, rest = self.predictor, self.images - done
        models, views = predictor.model_count, predictor.view_count
        if rest * pace <= left or (models, views) == (1, 1):
            return False
        each = pace / (models * views)
        smaller = [(models, 1)] * (views > 1) + [(fewer, 1) for fewer in range(models - 1, 0, -1)]
        level = next((one for one in smaller if rest * each * one[0] <= left), (1, 1))
        predictor.limit(*level)
        self.dropped.append(Dropped(image=done, models=level[0], views=level[1]))
        print(
            f"!! too slow for the budget: {rest} images at {pace:.2f} s, {max(0, left):.0f} s are "
            f"left; from image {done} on {level[0]} of {models} networks and {level[1]} of {views} "
            "views !!",
            flush=True,
        )
        return True
