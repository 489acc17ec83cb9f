"""The network: shapes, input channels, where its weights come from."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import nyuseg.models.network
from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.config.sections import Data, Model
from nyuseg.inference.probe import require_network, require_possible
from nyuseg.models.encoder_weights import expand_input
from nyuseg.models.network import build_model, load_network
from nyuseg.utils.errors import UserError


def sections(**model) -> tuple[Model, Data]:
    """What a network is built from: the options of its section, and `data`."""
    data = model.pop("data", {})
    model = {"encoder": "tu-test_resnet", "encoder_weights": None, **model}
    config = parse_config({"name": "test", "model": model, "data": data}, "test")
    return config.model, config.data


def test_deeplab_takes_multiples_of_16() -> None:
    output = build_model(*sections()).eval()(torch.zeros(1, 4, 48, 80))
    assert output["logits"].shape[2:] == (12, 20)


def test_without_a_depth_head_there_is_no_depth() -> None:
    assert set(build_model(*sections(depth_head=False)).eval()(torch.zeros(1, 4, 64, 64))) == {
        "logits"
    }


def test_exp060_is_a_resnet101_over_four_channels() -> None:
    model = build_model(Model(), Data(), pretrained=False)
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
    rgb = build_model(*sections(data={"channels": ["rgb"]})).encoder.state_dict()
    path = tmp_path / f"encoder.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(rgb, path)
    options = {"encoder_weights": str(path), "input_init": "zeros"}
    loaded = build_model(*sections(**options)).encoder.state_dict()
    widened = [key for key in rgb if rgb[key].shape != loaded[key].shape]
    assert len(widened) == 1
    assert torch.equal(loaded[widened[0]][:, :3], rgb[widened[0]])
    assert not loaded[widened[0]][:, 3:].any()
    assert all(torch.equal(rgb[key], loaded[key]) for key in rgb if key not in widened)


def test_pretrained_filters_get_the_chosen_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library hands over RGB filters laid over four channels; ours are made from them."""
    make = nyuseg.models.network._build_network
    monkeypatch.setattr(
        nyuseg.models.network, "_build_network", lambda *given: lay(make(*given[:2], False))
    )

    def lay(network: torch.nn.Module) -> torch.nn.Module:
        first = next(m for m in network.encoder.modules() if isinstance(m, torch.nn.Conv2d))
        rgb = torch.full_like(first.weight.data[:, :3], 2.0)
        first.weight.data = expand_input(rgb, 4, "smp")
        return network

    model = build_model(*sections(encoder_weights="imagenet", input_init="zeros"))
    first = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.Conv2d))
    assert torch.allclose(first.weight[:, :3], torch.tensor(2.0))
    assert not first.weight[:, 3].any()


def test_without_a_network_the_error_names_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_, **__):
        raise FileNotFoundError("no hub")

    monkeypatch.setattr(nyuseg.models.network.smp, "create_model", offline)
    with pytest.raises(UserError) as caught:
        build_model(*sections(encoder_weights="imagenet"))
    message = str(caught.value)
    assert "=FILE" in message and "=null" in message and "\n" not in message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FileNotFoundError("not in the cache"), "cannot be downloaded; connect to the internet"),
        (ConnectionRefusedError(111, "Connection refused"), "connect to the internet"),
        (PermissionError(13, "Permission denied", "/hub"), "kept in /hub (Permission denied); set"),
        (NotADirectoryError(20, "Not a directory", "/hub"), "kept in /hub (Not a directory); set"),
        (OSError(28, "No space left on device"), "do not fit on the disk"),
        (RuntimeError("No pretrained weights exist"), "No pretrained weights exist); choose"),
    ],
)
def test_why_weights_did_not_come_is_told_apart(monkeypatch, fault: Exception, words: str) -> None:
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(nyuseg.models.network.smp, "create_model", fail)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        build_model(*sections(encoder_weights="imagenet"))
    assert "model.encoder_weights" in str(caught.value) and "\n" not in str(caught.value)


def sized(encoder: str, decoder: str, size: tuple[int, int] = (96, 128), **views) -> Config:
    values = {"encoder": encoder, "decoder": decoder, "encoder_weights": None}
    given = {"name": "x", "model": values, "data": {"size": size}}
    return parse_config({**given, "tta": views}, "test")


# Of each kind: convolutional, with windows, with positions of one size, with neither.
@pytest.mark.parametrize(
    "encoder",
    [
        *("convnext_atto", "efficientnet_b0", "mobilenetv3_small_050", "regnety_002"),
        *("hrnet_w18_small", "davit_tiny", "caformer_s18", "mambaout_femto", "pvt_v2_b0"),
        *("sam2_hiera_tiny", "hiera_tiny_224", "swin_tiny_patch4_window7_224"),
        *("swinv2_cr_tiny_224", "maxvit_tiny_rw_224", "coatnet_nano_rw_224", "coat_tiny"),
        *("gcvit_xxtiny", "twins_svt_small", "mvitv2_tiny"),
    ],
)
def test_families_of_encoders_take_the_size_of_the_input(encoder: str) -> None:
    require_network(sized(f"tu-{encoder}", "unet"))


def test_an_encoder_built_for_one_size_is_trained_and_loaded_as_the_same(tmp_path: Path) -> None:
    wish = sized("tu-coatnet_nano_rw_224", "unet", (64, 96))
    model = build_model(wish.model, wish.data).eval()
    images = torch.randn(1, 4, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)["logits"]
        assert expected.shape == (1, 13, 16, 24)
        found = load_network(wish.model, wish.data, model.state_dict())(images)["logits"]
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("encoder", "decoder", "words"),
    [
        ("tu-maxvit_tiny_rw_224", "deeplabv3plus", "use model.decoder=fpn or upernet or unet"),
        ("tu-hrnet_w18_small", "deeplabv3plus", "use model.decoder=fpn or upernet or unet"),
        ("tu-nest_tiny", "fpn", "square inputs); use another encoder or data.size"),
        ("tu-vit_tiny_patch16_224", "unet", "pattern.); use model.decoder=dpt, or another encoder"),
    ],
)
def test_what_does_not_go_together_is_one_line(encoder: str, decoder: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        require_network(sized(encoder, decoder))
    message = str(caught.value)
    assert f"{encoder} does not work with model.decoder={decoder}" in message
    assert "data.size=[96,128]" in message and "\n" not in message


def test_scaled_views_are_refused_by_the_network_not_by_its_name() -> None:
    views = [{}, {"scale": 1.5}]
    require_network(sized("tu-twins_svt_small", "fpn", views=views))
    require_network(sized("tu-test_resnet", "deeplabv3plus", views=views))
    for encoder in ("tu-swin_tiny_patch4_window7_224", "tu-coatnet_nano_rw_224"):
        with pytest.raises(UserError, match=r"tta\.views: .*input of 128x192, which the scale"):
            require_network(sized(encoder, "fpn", (96, 128), views=views))


def test_a_training_size_that_the_encoder_cannot_take_is_refused_by_its_key() -> None:
    given = {"name": "x", "data": {"size": [64, 96]}, "augment": {"working_size": [96, 128]}}
    encoder = {"encoder": "tu-coatnet_nano_rw_224", "decoder": "unet"}  # Built for one size.
    for more, key in ({}, "working_size"), ({"crop": [64, 128]}, "crop"):
        options = {**given, "augment": given["augment"] | more}
        require_possible(parse_config(options | {"model": {"encoder": "tu-test_resnet"}}, "test"))
        with pytest.raises(UserError, match=rf"^augment\.{key}: tu-coatnet.*training input of"):
            require_possible(parse_config(options | {"model": encoder}, "test"))


def test_no_compiler_is_known_before_training(monkeypatch) -> None:
    def broken(_):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler\nand 104 more lines")

    monkeypatch.setattr(torch, "compile", broken)
    given = {"name": "x", "model": {"encoder": "tu-test_resnet"}}
    require_possible(parse_config(given, "test"))
    wish = parse_config({**given, "compute": {"compile": True}}, "test")
    with pytest.raises(
        UserError, match=r"compute\.compile: .*C\+\+ compiler.*--set compute\.compile=fal"
    ):
        require_possible(wish)


def test_asking_the_network_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    require_network(sized("tu-test_resnet", "fpn", (64, 96)))
    other = sized("tu-nest_tiny", "fpn", (64, 64))
    assert nyuseg.models.network.network_fault(other.model, other.data) is not None
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_encoder_is_one_line() -> None:
    with pytest.raises(UserError, match=r"model\.encoder: resnet7") as caught:
        build_model(*sections(encoder="resnet7"))
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_code_in_encoder_weights_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "encoder.pth"
    path.write_bytes(pickle.dumps({"weight": Bomb()}))
    with pytest.raises(UserError, match=r"encoder\.pth"):
        build_model(*sections(encoder_weights=str(path)))
    assert not (tmp_path / "exploded").exists()


def test_weights_of_another_encoder_and_absent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="another encoder"):
        build_model(*sections(encoder_weights=str(path)))
    with pytest.raises(UserError, match=r"gone\.pth"):
        build_model(*sections(encoder_weights=str(tmp_path / "gone.pth")))


def test_files_of_timm_and_torchvision_fit(tmp_path: Path) -> None:
    """timm's files lack smp's prefix, torchvision's older ones lack BatchNorm's counters."""
    state = build_model(*sections(data={"channels": ["rgb"]})).encoder.state_dict()
    plain = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    plain = {key: tensor for key, tensor in plain.items() if "num_batches" not in key}
    path = tmp_path / "timm.safetensors"
    save_file(plain, path)
    loaded = build_model(*sections(encoder_weights=str(path), data={"channels": ["rgb"]}))
    own = loaded.encoder.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in state)


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(3), {"a": 1}])
def test_a_file_that_is_no_state_dict_is_one_line(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="not a dict of tensors"):
        build_model(*sections(encoder_weights=str(tmp_path / "odd.pth")))


@pytest.mark.parametrize("name", ["tu-resnet7", "resnet7"])
def test_an_unknown_encoder_is_called_unknown(name: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.encoder: {name} is unknown; any encoder of"):
        require_network(sized(name, "unet"))


def test_weights_are_loaded_though_the_encoder_refuses_to_run_without_memory(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    wish = sized("tu-resnet10t", "unet", (96, 64))
    model = build_model(wish.model, wish.data).eval()
    monkeypatch.setattr(nyuseg.models.network, "find_pairs", refuse)
    found = load_network(wish.model, wish.data, model.state_dict())
    image = torch.ones(1, 4, 96, 64)
    with torch.no_grad():
        assert torch.equal(found(image)["logits"], model(image)["logits"])
