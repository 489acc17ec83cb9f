"""The auxiliary head: a short way from the loss into the encoder, in training alone."""

import copy
from pathlib import Path

import pytest
import torch
from release_facts import release_facts

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.models.network import build_model
from nyuseg.models.release import open_release, release_weights
from nyuseg.models.tensors import read_tensors
from nyuseg.training.optimization import TrainingStep

SIZE = (64, 96)
CPU = torch.device("cpu")


def config(
    encoder: str = "tu-test_resnet", decoder: str = "deeplabv3plus", fusion: str = "early", **train
) -> Config:
    model = {"encoder": encoder, "decoder": decoder, "encoder_weights": None, "fusion": fusion}
    given = {"name": "x", "model": model, "data": {"size": SIZE}}
    compute = {"precision": "fp32"}
    return parse_config({**given, "train": {"batch_size": 4, **train}, "compute": compute}, "test")


def step_of(wish: Config) -> TrainingStep:
    torch.manual_seed(7)
    model = build_model(wish.model, wish.data).train()
    return TrainingStep(model, wish.train, wish.compute, CPU)


def batch(seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 1, *SIZE)
    label = torch.randint(13, (4, *SIZE), generator=generator)
    label[:, :9] = 255
    return {
        "image": torch.randn(4, 4, *SIZE, generator=generator),
        "label": label,
        "depth": torch.rand(shape, generator=generator),
        "depth_valid": torch.rand(shape, generator=generator) > 0.3,
    }


PAIRS = [
    ("tu-test_resnet", "deeplabv3plus", "early"),
    ("tu-test_convnext", "unet", "branch"),
    ("tu-test_resnet", "deeplabv3plus", "two_stream"),
    ("tu-test_vit", "dpt", "branch"),
]


@pytest.mark.parametrize(("encoder", "decoder", "fusion"), PAIRS)
def test_it_answers_at_stride_16_and_teaches_the_encoder(
    encoder: str, decoder: str, fusion: str
) -> None:
    model = step_of(config(encoder, decoder, fusion, aux_loss=0.4)).model
    answer = model(batch()["image"])["auxiliary"]
    assert answer.shape == (4, 13, 4, 6)
    answer.square().mean().backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {name.partition(".")[0] for name in learning}
    assert {"encoder", "auxiliary_head"} <= parts <= {"encoder", "auxiliary_head", "depth_branch"}
    assert "auxiliary" not in model.eval()(batch()["image"])


def test_a_plain_transformer_answers_from_the_third_of_its_features() -> None:
    model = step_of(config("tu-test_vit", "dpt", aux_loss=0.4)).model
    given = []
    model.auxiliary_head.register_forward_pre_hook(lambda _, one: given.append(one[0]))
    with torch.no_grad():
        model(batch()["image"])
        features, _ = model.encoder(batch()["image"])
    assert [torch.equal(given[0], one) for one in features] == [False, False, True, False]


@pytest.mark.parametrize("weight", [0.4, 2.5])
def test_its_loss_is_added_by_its_weight(weight: float) -> None:
    wish = config(aux_loss=weight, label_smoothing=0.1, lovasz=0.3, depth_loss=0.7)
    step, data = step_of(wish), batch()
    twin = copy.deepcopy(step.model)
    torch.manual_seed(3)  # Dropout.
    total, segmentation, depth = step(data).tolist()
    torch.manual_seed(3)
    with torch.no_grad():
        found = twin(data["image"])
    logits = torch.nn.functional.interpolate(found["auxiliary"], SIZE, mode="bilinear")
    auxiliary = torch.nn.functional.cross_entropy(
        logits, data["label"], ignore_index=255, label_smoothing=0.1
    )
    twin.auxiliary_head = None
    plain = TrainingStep(twin, wish.train.model_copy(update={"aux_loss": 0}), wish.compute, CPU)
    torch.manual_seed(3)
    before = plain(data).tolist()
    assert segmentation == pytest.approx(before[1] + weight * auxiliary.item(), rel=1e-5)
    assert depth == before[2] and total == pytest.approx(segmentation + 0.7 * depth, rel=1e-5)


def test_without_a_weight_there_is_no_head_and_with_one_the_start_is_the_same() -> None:
    without, with_head = (step_of(config(aux_loss=weight)).model for weight in (0, 0.4))
    before, after = without.state_dict(), with_head.state_dict()
    assert without.auxiliary_head is None
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.partition(".")[0] for name in set(after) - set(before)} == {"auxiliary_head"}


def test_training_goes_on_where_it_was_with_the_head() -> None:
    wish = config(aux_loss=0.4, ema=0.5, encoder_lr=0.1)
    whole, states = step_of(wish), []
    for seed in range(3):
        torch.manual_seed(seed)
        whole(batch(seed))
        states.append(copy.deepcopy((whole.model.state_dict(), whole.state_dict())))
    again = step_of(wish)
    again.model.load_state_dict(states[1][0])
    again.load_state_dict(states[1][1])
    torch.manual_seed(2)
    again(batch(2))
    found = again.model.state_dict(), again.averages.state_dict()["weights"]["ema"]
    expected = states[2][0], states[2][1]["averages"]["weights"]["ema"]
    for one, other in zip(found, expected, strict=True):
        assert "auxiliary_head.3.weight" in one
        assert all(torch.equal(one[name], tensor) for name, tensor in other.items())
    rates = {id(p): g["lr_scale"] for g in again.optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in again.model.auxiliary_head.parameters()} == {1.0}


@torch.no_grad()
def test_release_weights_lack_it_and_predict_the_same(tmp_path: Path) -> None:
    wish = config(aux_loss=0.4)
    model = step_of(wish).model
    model(batch()["image"])
    files = FoldFiles(tmp_path)
    release_weights(files, model.eval().state_dict(), release_facts())
    plain = build_model(wish.model, wish.data).state_dict()
    assert read_tensors(files.weights).keys() == plain.keys()
    expected = model(batch()["image"])
    for key, value in open_release(files, wish.model, wish.data)(batch()["image"]).items():
        assert torch.allclose(value, expected[key], rtol=1e-3, atol=1e-3 * float(value.std()))
