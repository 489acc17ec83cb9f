"""Operations and memory are counted as they are taken; a real step takes about what is planned."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nyuseg.analysis.cards import find_card
from nyuseg.analysis.footprint import (
    LivePeak,
    forward_operations,
    prediction_peak,
    training_peak,
)
from nyuseg.analysis.plan import make_plan
from nyuseg.config.loading import load_config
from nyuseg.config.schema import Config
from nyuseg.models.network import build_model
from nyuseg.utils.files import PROJECT

SIZE = (64, 96)


def make_config(*overrides: str) -> Config:
    given = ["model.encoder_weights=null", f"data.size=[{SIZE[0]},{SIZE[1]}]", *overrides]
    return load_config(PROJECT / "configs/exp060.yaml", given)


def products_by_hand(config: Config, size: tuple[int, int]) -> int:
    """Operations of the convolutions and matrices of a real forward pass, from their shapes."""
    network = build_model(config.model, config.data).eval()
    found = []

    def convolution(module: nn.Module, _: object, output: torch.Tensor) -> None:
        found.append(2 * output.numel() * module.weight[0].numel())

    def transposed(module: nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        found.append(2 * inputs[0].numel() * module.weight[0].numel())

    def matrix(module: nn.Module, _: object, output: torch.Tensor) -> None:
        found.append(2 * output.numel() * module.in_features)

    kinds = {nn.Conv2d: convolution, nn.ConvTranspose2d: transposed, nn.Linear: matrix}
    for module in network.modules():
        for kind, count in kinds.items():
            if isinstance(module, kind):
                module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.rand(1, config.data.channel_count, *size))
    return sum(found)


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fpn", "unet"])
def test_operations_are_those_of_the_convolutions(decoder: str) -> None:
    config = make_config("model.encoder=resnet18", f"model.decoder={decoder}")
    assert forward_operations(config, SIZE) == products_by_hand(config, SIZE)


def test_operations_of_attention_grow_with_the_square_of_the_tokens() -> None:
    config = make_config("model.encoder=tu-test_vit", "model.decoder=dpt")
    beyond = []
    for size in (SIZE, (2 * SIZE[0], SIZE[1])):
        larger = config.model_copy(update={"data": config.data.model_copy(update={"size": size})})
        beyond.append(forward_operations(larger, size) - products_by_hand(larger, size))
    # Of 16 pixels a side, and one for the class: scores and their use, in each block.
    tokens = [4 * 6 + 1, 8 * 6 + 1]
    assert beyond[0] > 0
    assert beyond[1] / beyond[0] == pytest.approx((tokens[1] / tokens[0]) ** 2)


def test_operations_are_those_that_torch_counts_in_a_real_pass() -> None:
    config = make_config("model.encoder=tu-test_resnet")
    network = build_model(config.model, config.data).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(3, 4, *SIZE))
    # What AtrousDepthwise does on a processor is not counted there.
    counted = counter.get_total_flops() / 3
    assert counted == pytest.approx(forward_operations(config, SIZE), rel=0.02)


def test_memory_is_that_of_what_lives_at_once() -> None:
    with LivePeak() as live:
        first = torch.zeros(1000)
        view = first[10:].view(-1)
        second = first + 1
        del first, second  # The view keeps the first.
        third = view.double()
        del view, third
        torch.zeros(500)
    assert live.peak == 4000 + 990 * 8


def test_memory_follows_images_precision_and_settings() -> None:
    config = make_config("model.encoder=tu-test_resnet")
    peaks = [training_peak(config, n, False, False, False, True) for n in (2, 4, 8)]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.01)
    assert training_peak(config, 8, False, False, False, False) > 1.5 * peaks[2]
    gradients = sum(p.nbytes for p in build_model(config.model, config.data).parameters())
    held = training_peak(config, 8, False, True, False, True)
    assert peaks[2] < held <= peaks[2] + gradients
    assert prediction_peak(config, SIZE, 8, False, True) < peaks[2] / 2


def test_memory_of_recomputed_blocks_is_not_counted() -> None:
    config = make_config("model.encoder=tu-convnext_atto", "model.decoder=fpn")
    kept, recomputed = (training_peak(config, 8, again, False, True, True) for again in (0, 1))
    assert recomputed < 0.8 * kept


def test_a_gpu_keeps_more_of_the_norms_and_less_of_depthwise_convolutions() -> None:
    wide = make_config("model.encoder=tu-convnext_atto", "model.decoder=fpn")
    deep = make_config("model.encoder=tu-test_efficientnet")
    for config, grows in ((wide, True), (deep, False)):
        cpu, gpu = (training_peak(config, 4, False, False, card, True) for card in (False, True))
        assert (gpu > cpu) == grows


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["model.encoder=resnet18", "data.size=[160,224]", "train.batch_size=8"],
        [
            *("model.encoder=tu-tf_efficientnet_lite0", "model.decoder=fpn", "train.ema=0.99"),
            *("augment.crop=[160,224]", "data.size=[192,256]", "train.batch_size=12"),
            *("compute.accumulate=2", "compute.checkpointing=true"),
        ],
    ],
    ids=["resnet18", "lite0"],
)
def test_a_real_step_takes_what_is_planned(overrides: list[str]) -> None:
    script = PROJECT / "tests/helpers/real_step.py"
    paths = os.pathsep.join(str(PROJECT / name) for name in ("src", "benchmarks"))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), *overrides]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    planned = make_plan(make_config(*overrides), find_card("cpu")).training_bytes
    assert planned / 1e6 == pytest.approx(float(done.stdout.split()[-1]), rel=0.25)
