"""The network: shapes, input channels, where its weights come from."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import nyuseg.model
from nyuseg.config import parse_config
from nyuseg.errors import UserError
from nyuseg.model import build_model, expand_input
from nyuseg.schema import Config


def config(**model) -> Config:
    data = model.pop("data", {})
    model = {"encoder": "tu-test_resnet", "encoder_weights": None, **model}
    return parse_config({"name": "test", "model": model, "data": data}, "test")


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fpn", "upernet", "unet"])
def test_every_decoder_answers_on_a_grid_of_stride_4(decoder: str) -> None:
    model = build_model(config(decoder=decoder)).eval()
    output = model(torch.zeros(2, 4, 96, 160))
    assert output["logits"].shape == (2, 13, 24, 40)
    assert output["depth"].shape == (2, 1, 24, 40)


def test_deeplab_takes_multiples_of_16() -> None:
    assert build_model(config()).eval()(torch.zeros(1, 4, 48, 80))["logits"].shape[2:] == (12, 20)


def test_without_a_depth_head_there_is_no_depth() -> None:
    assert set(build_model(config(depth_head=False)).eval()(torch.zeros(1, 4, 64, 64))) == {
        "logits"
    }


def test_exp060_is_a_resnet101_over_four_channels() -> None:
    model = build_model(parse_config({"name": "exp060"}, "test"), pretrained=False)
    assert model.encoder.conv1.weight.shape == (64, 4, 7, 7)
    assert len(model.encoder.layer3) == 23
    assert model.segmentation_head.weight.shape == (13, 256, 1, 1)
    assert model.depth_head.weight.shape == (1, 256, 3, 3)


RGB = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(1))


def test_zeros_and_mean_keep_the_rgb_filters() -> None:
    zeros, mean = expand_input(RGB, 6, "zeros"), expand_input(RGB, 6, "mean")
    assert torch.equal(zeros[:, :3], RGB) and torch.equal(mean[:, :3], RGB)
    assert not zeros[:, 3:].any()
    for extra in range(3, 6):
        assert torch.allclose(mean[:, extra], RGB.mean(1))


def test_smp_repeats_the_filters_and_keeps_the_size_of_the_response() -> None:
    expanded = expand_input(RGB, 4, "smp")
    assert torch.allclose(expanded[:, 3], RGB[:, 0] * 3 / 4)
    assert torch.allclose(expand_input(RGB, 6, "smp").sum((1, 2, 3)), RGB.sum((1, 2, 3)), atol=1e-5)


def test_three_channels_change_nothing() -> None:
    for init in ("smp", "zeros", "mean"):
        assert torch.equal(expand_input(RGB, 3, init), RGB)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_encoder_weights_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    rgb = build_model(config(data={"channels": ["rgb"]})).encoder.state_dict()
    path = tmp_path / f"encoder.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(rgb, path)
    options = {"encoder_weights": str(path), "input_init": "zeros"}
    loaded = build_model(config(**options)).encoder.state_dict()
    widened = [key for key in rgb if rgb[key].shape != loaded[key].shape]
    assert len(widened) == 1
    assert torch.equal(loaded[widened[0]][:, :3], rgb[widened[0]])
    assert not loaded[widened[0]][:, 3:].any()
    assert all(torch.equal(rgb[key], loaded[key]) for key in rgb if key not in widened)


def test_pretrained_filters_get_the_chosen_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library hands over RGB filters laid over four channels; ours are made from them."""
    make = nyuseg.model._build_network
    monkeypatch.setattr(nyuseg.model, "_build_network", lambda config, _: lay(make(config, False)))

    def lay(network: torch.nn.Module) -> torch.nn.Module:
        first = next(m for m in network.encoder.modules() if isinstance(m, torch.nn.Conv2d))
        rgb = torch.full_like(first.weight.data[:, :3], 2.0)
        first.weight.data = expand_input(rgb, 4, "smp")
        return network

    model = build_model(config(encoder_weights="imagenet", input_init="zeros"))
    first = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.Conv2d))
    assert torch.allclose(first.weight[:, :3], torch.tensor(2.0))
    assert not first.weight[:, 3].any()


def test_without_a_network_the_error_names_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_, **__):
        raise FileNotFoundError("no hub")

    monkeypatch.setattr(nyuseg.model.smp, "create_model", offline)
    with pytest.raises(UserError) as caught:
        build_model(config(encoder_weights="imagenet"))
    message = str(caught.value)
    assert "=FILE" in message and "=null" in message and "\n" not in message


def test_unknown_encoder_is_one_line() -> None:
    with pytest.raises(UserError, match=r"model\.encoder: resnet7") as caught:
        build_model(config(encoder="resnet7"))
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_code_in_encoder_weights_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "encoder.pth"
    path.write_bytes(pickle.dumps({"weight": Bomb()}))
    with pytest.raises(UserError, match=r"encoder\.pth"):
        build_model(config(encoder_weights=str(path)))
    assert not (tmp_path / "exploded").exists()


def test_weights_of_another_encoder_and_absent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="another encoder"):
        build_model(config(encoder_weights=str(path)))
    with pytest.raises(UserError, match=r"gone\.pth"):
        build_model(config(encoder_weights=str(tmp_path / "gone.pth")))


def test_files_of_timm_and_torchvision_fit(tmp_path: Path) -> None:
    """timm's files lack smp's prefix, torchvision's older ones lack BatchNorm's counters."""
    state = build_model(config(data={"channels": ["rgb"]})).encoder.state_dict()
    plain = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    plain = {key: tensor for key, tensor in plain.items() if "num_batches" not in key}
    path = tmp_path / "timm.safetensors"
    save_file(plain, path)
    loaded = build_model(config(encoder_weights=str(path), data={"channels": ["rgb"]}))
    own = loaded.encoder.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in state)


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(3), {"a": 1}])
def test_a_file_that_is_no_state_dict_is_one_line(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="not a dict of tensors"):
        build_model(config(encoder_weights=str(tmp_path / "odd.pth")))
