"""The predict path, with models that tell left from right."""

import threading
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.data.frames import FrameFolder, frame_path, write_png
from nyuseg.inference import predictor as predicting
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.grid import to_mask
from nyuseg.inference.predictor import Predictor
from nyuseg.models.network import build_model
from nyuseg.models.normalisation import resolve_normalisation
from nyuseg.utils.errors import UserError

CPU = torch.device("cpu")
COMPUTE = {"precision": "fp32", "workers": 0}
BASE = {"name": "test", "data": {"size": [32, 64]}, "compute": COMPUTE}


def configured(values: dict) -> Config:
    return resolve_normalisation(parse_config(values, "test"))


CONFIG = configured(BASE)


class Lopsided(nn.Module):
    """Logits depend on the pixel and, differently, on where it lies: no symmetry at all."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = torch.randn(13, 4, generator=generator)
        self.place = torch.randn(1, 13, 8, 16, generator=generator)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        cells = torch.nn.functional.avg_pool2d(image, 4)
        logits = torch.einsum("kc,nchw->nkhw", self.mix, cells) + self.place
        return {"logits": logits, "depth": cells[:, :1] + self.place[:, :1]}


IMAGES = torch.randn(3, 4, 32, 64, generator=torch.Generator().manual_seed(9))


def by_hand(model: nn.Module, key: str) -> torch.Tensor:
    """Mean over the view and its mirror image; `key` logits gives probabilities."""
    seen = [model(IMAGES)[key], model(IMAGES.flip(-1))[key]]
    if key == "logits":
        seen = [one.softmax(1) for one in seen]
    return (seen[0] + seen[1].flip(-1)) / 2


def test_flip_view_is_undone_before_the_mean() -> None:
    model = Lopsided(1)
    probabilities, depth = Ensemble([model], CONFIG, CPU, tta=True)(IMAGES)
    assert torch.allclose(probabilities, by_hand(model, "logits"), atol=1e-6)
    assert torch.allclose(depth, by_hand(model, "depth"), atol=1e-6)


def test_without_tta_there_is_one_view() -> None:
    model = Lopsided(1)
    ensemble = Ensemble([model], CONFIG, CPU)
    assert Predictor([ensemble]).view_names == ["identity"]
    assert torch.allclose(ensemble(IMAGES)[0], model(IMAGES)["logits"].softmax(1), atol=1e-6)


def test_probabilities_not_logits_are_averaged_over_folds_and_views() -> None:
    models = [Lopsided(1), Lopsided(2), Lopsided(3)]
    probabilities, _ = Ensemble(models, CONFIG, CPU, tta=True)(IMAGES)
    expected = torch.stack([by_hand(model, "logits") for model in models]).mean(0)
    logits = torch.stack([model(IMAGES)["logits"] for model in models]).mean(0).softmax(1)
    assert torch.allclose(probabilities, expected, atol=1e-6)
    assert not torch.allclose(probabilities, logits, atol=1e-2)
    assert torch.allclose(probabilities.sum(1), torch.ones(3, 8, 16), atol=1e-5)


def test_a_flipped_view_keeps_the_coordinate_channels() -> None:
    config = configured({**BASE, "data": {"size": [32, 64], "channels": ["rgb", "xy"]}})
    seen = []

    class Spy(nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(image.clone())
            return {"logits": image[:, :1, ::4, ::4].expand(-1, 13, -1, -1)}

    images = torch.randn(2, 5, 32, 64)
    Ensemble([Spy()], config, CPU, tta=True)(images)
    plain, flipped = seen[0].chunk(2)  # Both views go through the network together.
    assert torch.equal(plain, images)
    assert torch.equal(flipped[:, :3], images[:, :3].flip(-1))
    assert torch.equal(flipped[:, 3:], images[:, 3:])


def write_frames(root: Path, sizes: list[tuple[int, int]]) -> list[str]:
    rng = np.random.default_rng(5)
    for i, (height, width) in enumerate(sizes):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        write_png(frame_path(root, "test", "image", f"{i:06d}"), image)
        depth = rng.integers(700, 9000, (height, width), np.uint16)
        write_png(frame_path(root, "test", "depth", f"{i:06d}"), depth)
    return [f"{i:06d}" for i in range(len(sizes))]


@pytest.mark.parametrize("workers", [0, 2])
def test_answers_do_not_depend_on_batches_or_workers(tmp_path: Path, workers: int) -> None:
    sizes = [(32, 64), (48, 64), (100, 37), (7, 90), (32, 64)]
    ids = write_frames(tmp_path, sizes)
    options = {"decoder": "deeplabv3plus", "encoder": "tu-test_resnet", "encoder_weights": None}
    results = []
    for batch_size in (1, 6):  # Of three images, as each has two views.
        compute = {**COMPUTE, "workers": workers, "predict_batch_size": batch_size}
        config = configured({**BASE, "model": options, "compute": compute})
        torch.manual_seed(0)
        predictor = Predictor(
            [Ensemble([build_model(config.model, config.data)], config, CPU, tta=True)]
        )
        results.append(list(predictor.predict(FrameFolder(tmp_path, "test"), ids)))
    one, three = results
    assert [p.id for p in one] == [p.id for p in three] == ids
    assert [tuple(p.size) for p in one] == sizes
    for a, b in zip(one, three, strict=True):
        assert torch.allclose(a.probabilities, b.probabilities, atol=1e-5)
        assert np.array_equal(a.mask, to_mask(a.probabilities, a.size, config.data.size))


def test_two_devices_give_the_answer_of_one_in_order(tmp_path: Path) -> None:
    ids = write_frames(tmp_path, [(32, 64)] * 7)
    config = configured({**BASE, "compute": {**COMPUTE, "predict_batch_size": 2}})
    source = FrameFolder(tmp_path, "test")
    models, threads = [Lopsided(1), Lopsided(2)], torch.get_num_threads()
    one = list(Predictor([Ensemble(models, config, CPU, tta=True)]).predict(source, ids))
    two = list(Predictor([Ensemble(models, config, [CPU, CPU], tta=True)]).predict(source, ids))
    assert [p.id for p in two] == ids
    assert torch.get_num_threads() == threads
    assert all(torch.equal(a.probabilities, b.probabilities) for a, b in zip(one, two, strict=True))


def test_a_limit_drops_the_last_models_and_views() -> None:
    models = [Lopsided(1), Lopsided(2), Lopsided(3)]
    ensemble = Ensemble(models, CONFIG, CPU, tta=True)
    predictor = Predictor([ensemble])
    predictor.limit(2, 1)
    expected = Ensemble(models[:2], CONFIG, CPU)(IMAGES)[0]
    assert torch.equal(ensemble(IMAGES)[0], expected)
    assert predictor.view_names == ["identity"]


def test_an_overflow_in_half_precision_is_predicted_again_in_float32() -> None:
    class Overflowing(Lopsided):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            output = super().forward(image)
            if torch.is_autocast_enabled("cpu"):
                output["logits"] = output["logits"] * float("inf")
            return output

    config = configured({**BASE, "compute": {**COMPUTE, "precision": "auto"}})
    probabilities, _ = Ensemble([Overflowing(1)], config, CPU)(IMAGES)
    assert torch.isfinite(probabilities).all()


def test_ruined_weights_are_an_error_not_a_mask_of_class_0() -> None:
    model = Lopsided(1)
    model.mix[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        Ensemble([model, Lopsided(2)], CONFIG, CPU)(IMAGES)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved(error: RuntimeError, capsys) -> None:
    asked = []

    class Greedy(Lopsided):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            asked.append(len(image))
            if len(image) > 2:
                raise error
            return super().forward(image)

    ensemble = Ensemble([Greedy(1), Greedy(2)], CONFIG, CPU, tta=True)
    expected = Ensemble([Lopsided(1), Lopsided(2)], CONFIG, CPU, tta=True)(IMAGES)
    for found, wanted in zip(ensemble(IMAGES), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)
    assert asked == [6, 3, 1, 1, 1, 1, 1, 1] + 6 * [1]  # What fits is remembered.
    assert capsys.readouterr().out.count("out of memory") == 2


def test_each_device_has_its_own_networks_and_the_last_one_those_that_were_given() -> None:
    given = [Lopsided(1), Lopsided(2)]
    both = Ensemble(given, CONFIG, [CPU, torch.device("cpu", 0)], tta=True)
    first, last = both.replicas
    assert all(one is two for one, two in zip(last, given, strict=True))
    assert not {id(one) for one in first} & {id(one) for one in given}
    for one, two in zip(both(IMAGES, 0), both(IMAGES, 1), strict=True):
        torch.testing.assert_close(one, two)


def test_an_image_that_does_not_fit_alone_is_an_error() -> None:
    class Hungry(Lopsided):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        Ensemble([Hungry(1)], CONFIG, CPU)(IMAGES)


def test_another_error_of_the_network_is_not_taken_for_lack_of_memory() -> None:
    class Broken(Lopsided):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Ensemble([Broken(1)], CONFIG, CPU)(IMAGES)


def test_reading_predicting_and_the_callers_work_overlap(tmp_path: Path) -> None:
    """While the caller holds the first answer, the next batch is predicted and one more read."""
    ids = write_frames(tmp_path, [(32, 64)] * 4)
    config = configured({**BASE, "compute": {**COMPUTE, "predict_batch_size": 1}})
    source = FrameFolder(tmp_path, "test")
    predicted = [threading.Event() for _ in ids]

    class Counting(Lopsided):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            next(event for event in predicted if not event.is_set()).set()
            return super().forward(image)

    for i, prediction in enumerate(
        Predictor([Ensemble([Counting(1)], config, CPU)]).predict(source, ids)
    ):
        assert prediction.id == ids[i]
        if i + 1 < len(ids):
            assert predicted[i + 1].wait(10), "the next image waits for this one's caller"


def test_a_mask_is_made_once_when_it_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    ids, source = write_frames(tmp_path, [(40, 64), (7, 90)]), FrameFolder(tmp_path, "test")
    made = []

    def note(*given) -> np.ndarray:
        made.append(threading.current_thread())
        return to_mask(*given)

    monkeypatch.setattr(predicting, "to_mask", note)
    predictor = Predictor([Ensemble([Lopsided(1)], CONFIG, CPU)])
    found = list(predictor.predict(source, ids))
    assert made == []
    for prediction in found:
        full = prediction.full_probabilities()
        assert full.shape == (13, *prediction.size)
        assert np.array_equal(prediction.mask, full.numpy().argmax(0))
        assert prediction.mask is prediction.mask
    assert made == [threading.main_thread()] * 2
    ready = list(predictor.predict(source, ids, masks=True))  # Beside the caller's work.
    assert len(made) == 4 and threading.main_thread() not in made[2:]
    for a, b in zip(found, ready, strict=True):
        assert np.array_equal(a.mask, b.mask)
    assert len(made) == 4


def test_workers_are_kept_for_the_same_frames(tmp_path: Path) -> None:
    ids, source = write_frames(tmp_path, [(32, 64)] * 4), FrameFolder(tmp_path, "test")
    config = configured({**BASE, "compute": {**COMPUTE, "workers": 1}})
    predictor = Predictor([Ensemble([Lopsided(1)], config, CPU)])
    seen = []
    for some in (ids, list(ids), ids[:3]):
        assert [prediction.id for prediction in predictor.predict(source, some)] == some
        seen.append({worker.pid for worker in active_children()})
    assert seen[0] == seen[1] and len(seen[0]) == 1
    assert not seen[2] & seen[0]


def test_a_batch_read_by_itself_is_answered_alike(tmp_path: Path) -> None:
    ids, source = write_frames(tmp_path, [(32, 64), (20, 50)]), FrameFolder(tmp_path, "test")
    predictor = Predictor([Ensemble([Lopsided(1)], CONFIG, CPU)])
    probabilities, _ = predictor.answer(predictor.read(source, ids))
    for one, prediction in zip(probabilities, predictor.predict(source, ids), strict=True):
        assert torch.allclose(one, prediction.probabilities, atol=1e-6)


def with_views(*views: dict) -> Config:
    return configured({**BASE, "tta": {"views": [{}, *views]}})


class Placed(nn.Module):
    """Any size of input: logits depend on the pixel and on where it lies, from 0 to 1."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = torch.randn(13, 4, generator=generator)
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(image.clone())
        cells = torch.nn.functional.avg_pool2d(image, 4)
        place = torch.linspace(0, 3, cells.shape[-1]) * torch.arange(13)[:, None, None] / 13
        return {"logits": torch.einsum("kc,nchw->nkhw", self.mix, cells) + place}


def test_views_count_by_their_weights() -> None:
    model = Placed(1)
    config = with_views({"flip": True, "weight": 3})
    straight = Ensemble([model], CONFIG, CPU)(IMAGES)[0]
    mirrored = Ensemble([model], CONFIG, CPU)(IMAGES.flip(-1))[0].flip(-1)
    found, _ = Ensemble([model], config, CPU, tta=True)(IMAGES)
    assert torch.allclose(found, (straight + 3 * mirrored) / 4, atol=1e-6)


def test_a_scaled_view_is_brought_back_to_the_grid() -> None:
    model = Placed(1)
    config = with_views({"scale": 2}, {"scale": 2, "flip": True})
    found, _ = Ensemble([model], config, CPU, tta=True)(IMAGES)
    shapes = [tuple(seen.shape) for seen in model.seen]
    assert shapes == [(3, 4, 32, 64), (6, 4, 64, 128)]  # Views of one scale share a batch.
    small, large = (Placed(1)(seen)["logits"].softmax(1) for seen in model.seen)
    straight, mirrored = large[:3], large[3:].flip(-1)
    back = [torch.nn.functional.avg_pool2d(one, 2) for one in (straight, mirrored)]
    assert torch.allclose(found, (small + back[0] + back[1]) / 3, atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(3, 8, 16), atol=1e-5)


def test_a_scaled_view_never_mixes_two_depths() -> None:
    model = Placed(1)
    images = IMAGES.clone()
    images[:, 3] = torch.where(torch.rand(3, 32, 64) < 0.5, 0.25, 0.75)
    Ensemble([model], with_views({"scale": 1.5}), CPU, tta=True)(images)
    scaled = model.seen[1]
    assert scaled.shape[-2:] == (64, 96)  # Rounded to multiples of 32.
    assert set(scaled[:, 3].unique().tolist()) == {0.25, 0.75}
    assert len(scaled[:, 0].unique()) > len(images[:, 0].unique())


def test_views_are_named_and_the_first_is_the_identity() -> None:
    config = with_views({"flip": True}, {"scale": 0.75, "flip": True})
    predictor = Predictor([Ensemble([Placed(1)], config, CPU, tta=True)])
    names = ["identity", "horizontal_flip", "scale_0.75_horizontal_flip"]
    assert predictor.view_names == names
    for views in ([{"flip": True}], [], [{}, {"weight": 2}]):
        with pytest.raises(UserError, match="first view must be the identity"):
            configured({**BASE, "tta": {"views": views}})


def test_a_blend_is_the_weighted_mean_of_its_members(tmp_path: Path) -> None:
    ids = write_frames(tmp_path, [(32, 64), (40, 64), (32, 50)])
    colour = configured({**BASE, "data": {"size": [32, 64], "channels": ["rgb", "xy"]}})

    class FiveChannels(Placed):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return super().forward(image[:, [0, 1, 2, 4]])

    def predict(*ensembles: Ensemble) -> list:
        source = FrameFolder(tmp_path, "test")
        return list(Predictor(ensembles, CONFIG).predict(source, ids))

    one, two = Lopsided(1), FiveChannels(2)
    a = predict(Ensemble([one], CONFIG, CPU))
    b = predict(Ensemble([two], colour, CPU))
    both = predict(
        Ensemble([one], CONFIG, CPU, weight=0.2), Ensemble([two], colour, CPU, weight=0.6)
    )
    for x, y, found in zip(a, b, both, strict=True):
        expected = 0.25 * x.probabilities + 0.75 * y.probabilities
        assert torch.allclose(found.probabilities, expected, atol=1e-6)
        assert torch.allclose(found.depth, x.depth, atol=1e-6)  # The other one has none.
        assert np.array_equal(found.mask, to_mask(expected, found.size, (32, 64)))


def test_each_member_can_be_asked_for_its_own_answer(tmp_path: Path) -> None:
    """On the grid of the largest; their weighted mean is what `predict` gives."""
    ids, source = write_frames(tmp_path, [(40, 64), (7, 90)]), FrameFolder(tmp_path, "test")
    large = configured({**BASE, "data": {"size": [64, 96]}})
    one = Ensemble([Placed(1)], CONFIG, CPU, weight=0.2)
    two = Ensemble([Placed(2)], large, CPU, weight=0.6)
    predictor, alone = Predictor([one, two]), Predictor([two])
    rows = [
        predictor.predict_each(source, ids),
        predictor.predict(source, ids),
        alone.predict(source, ids),
    ]
    for (a, b), both, second in zip(*rows, strict=True):
        assert a.id == b.id == both.id and a.input_size == b.input_size == (64, 96)
        assert torch.allclose(b.probabilities, second.probabilities, atol=1e-6)
        mean = 0.25 * a.probabilities + 0.75 * b.probabilities
        assert torch.allclose(mean, both.probabilities, atol=1e-6)
        assert not torch.allclose(a.probabilities, b.probabilities, atol=1e-2)


def test_members_of_another_input_size_are_brought_to_the_largest(tmp_path: Path) -> None:
    ids = write_frames(tmp_path, [(32, 64), (60, 64)])
    large = configured({**BASE, "data": {"size": [64, 96]}})

    class Sided(nn.Module):
        """Sure of class 5 in the left half of a frame, of `right` in the other."""

        def __init__(self, right: int) -> None:
            super().__init__()
            self.right = right

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            cells = torch.nn.functional.avg_pool2d(image[:, :1], 4)
            logits = torch.zeros(len(image), 13, *cells.shape[-2:])
            logits[:, 5] = 20 * (cells[:, 0] > 0)
            logits[:, self.right] = 20 * (cells[:, 0] <= 0)
            return {"logits": logits}

    for image_id, size in zip(ids, [(32, 64), (60, 64)], strict=True):
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[:, : size[1] // 2] = 255
        write_png(frame_path(tmp_path, "test", "image", image_id), pixels)
    small_one = Ensemble([Sided(7)], CONFIG, CPU, weight=0.4)
    large_one = Ensemble([Sided(2)], large, CPU, weight=0.6)
    predictor = Predictor([small_one, large_one], CONFIG)
    source = FrameFolder(tmp_path, "test")
    for prediction in predictor.predict(source, ids):
        assert prediction.probabilities.shape == (13, 16, 24)
        left, right = prediction.mask[:, :28], prediction.mask[:, 36:]
        assert (left == 5).all() and (right == 2).all()
