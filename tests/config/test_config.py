"""Configurations: the committed ones are the report's, and a typo never passes in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from nyuseg.config.loading import dump_config, load_config, override_config, parse_config
from nyuseg.config.schema import Config
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXP060 = CONFIGS / "exp060.yaml"


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as {'a.b': value}."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return result


def dumped(name: str) -> dict[str, Any]:
    return flat(yaml.safe_load(dump_config(load_config(CONFIGS / name))))


def difference(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    a, b = dumped(one), dumped(other)
    return {key: (a[key], b[key]) for key in a | b if a[key] != b[key]}


def with_channels(*channels: str) -> Config:
    return parse_config({"name": "x", "data": {"channels": list(channels)}}, "test")


def refused(path: Path, *overrides: str) -> str:
    """The message of the UserError that loading must raise; always one line."""
    with pytest.raises(UserError) as error:
        load_config(path, list(overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file of tmp_path and returns its path."""

    def write_file(text: str, name: str = "my.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_configs_load_and_survive_a_dump(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert parse_config(yaml.safe_load(dump_config(config)), "dump") == config


def test_exp060_is_the_reports() -> None:
    expected = {
        "name": "exp060",
        "seed": 42,
        "data.size": [480, 640],
        "data.channels": ["rgb", "inverse_depth"],
        "data.mean": [0.525, 0.443, 0.4],
        "data.std": [0.281, 0.281, 0.293],
        "model.decoder": "deeplabv3plus",
        "model.encoder": "resnet101",
        "model.encoder_weights": "imagenet",
        "model.input_init": "smp",
        "model.depth_head": True,
        "augment.flip": 0.5,
        "augment.shift": 0.05,
        "augment.scale": 0.1,
        "augment.rotate": 5,
        "train.epochs": 30,
        "train.batch_size": 8,
        "train.lr": 1e-4,
        "train.weight_decay": 1e-4,
        "train.depth_loss": 0.1,
        "folds.count": 5,
        "folds.group": "scene",
        "predict.checkpoint": "best",
        "train.ema": None,
        "train.mean_last": None,
    }
    found = dumped("exp060.yaml")
    assert {key: found[key] for key in expected} == expected
    assert load_config(EXP060).data.channel_count == 4


def test_siblings_differ_only_where_they_should() -> None:
    assert difference("exp060.yaml", "exp040.yaml") == {
        "name": ("exp060", "exp040"),
        "model.depth_head": (True, False),
    }
    assert difference("exp040.yaml", "exp050.yaml") == {
        "name": ("exp040", "exp050"),
        "data.channels": (["rgb", "inverse_depth"], ["rgb", "inverse_depth", "xy"]),
    }


def test_demo_is_the_same_recipe_in_small() -> None:
    changed = set(difference("exp060.yaml", "demo.yaml"))
    assert changed <= {
        "name",
        "data.size",
        "model.encoder",
        "model.encoder_weights",
        *(f"train.{key}" for key in ("epochs", "batch_size", "lr", "workers", "ema")),
    }
    assert dumped("demo.yaml")["model.encoder_weights"] is None  # No download.


@pytest.mark.parametrize(
    ("channels", "count", "xy"),
    [
        (("rgb",), 3, None),
        (("rgb", "log_depth"), 4, None),
        (("rgb", "xy"), 5, slice(3, 5)),
        (("rgb", "inverse_depth", "xy"), 6, slice(4, 6)),
        (("rgb", "xy", "linear_depth"), 6, slice(3, 5)),
        (("rgb", "linear_depth", "log_depth", "xy", "inverse_depth"), 8, slice(5, 7)),
        (("rgb", "slopes", "xy"), 7, slice(5, 7)),
        (("rgb", "height", "upward", "xy"), 7, slice(5, 7)),
    ],
)
def test_channels_are_counted(channels: tuple[str, ...], count: int, xy: slice | None) -> None:
    data = with_channels(*channels).data
    assert (data.channel_count, data.xy_channels) == (count, xy)


@pytest.mark.parametrize("channels", [(), ("xy", "rgb"), ("inverse_depth",), ("rgb", "xy", "xy")])
def test_refused_channels(channels: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"^test: data\.channels: the first channel must be rgb"):
        with_channels(*channels)


def test_parent_lies_below_its_child(write) -> None:
    write("name: base\ntrain: {epochs: 7, lr: 0.5}\nmodel: {encoder: resnet18}\n", "base.yaml")
    child = write("extends: base.yaml\nname: child\ntrain: {lr: 0.25}\n")
    config = load_config(child)
    assert (config.name, config.train.epochs, config.train.lr) == ("child", 7, 0.25)
    assert config.model.encoder == "resnet18"


def test_overrides_win_in_their_order(write) -> None:
    path = write("name: x\ntrain: {epochs: 7, lr: 0.5}\n")
    texts = ["train.epochs=2", "data.size=[64, 96]", "train.epochs=3", "train.weight_decay=1e-5"]
    config = load_config(path, [*texts, "model.encoder_weights=null"])
    assert (config.train.epochs, config.train.lr, config.data.size) == (3, 0.5, (64, 96))
    assert config.train.weight_decay == 1e-5
    assert config.model.encoder_weights is None


def test_list_of_an_override_replaces_the_whole_list() -> None:
    config = load_config(CONFIGS / "exp050.yaml", ["data.channels=[rgb]"])
    assert config.data.channels == ("rgb",)


def test_dump_keeps_hostile_text() -> None:
    for empty in ("", "-", "-1", "1 0", "null", "'", "#"):
        values = {"name": "x", "submission": {"empty": empty, "order": "row", "base": 0}}
        config = parse_config(values, "test")
        again = parse_config(yaml.safe_load(dump_config(config)), "dump")
        assert again == config
        assert again.submission.empty == empty


@pytest.mark.parametrize("size", [(32, 32), (480, 640), (48, 80), (640, 480)])
def test_sizes_of_deeplab(size: tuple[int, int]) -> None:
    assert load_config(EXP060, [f"data.size={list(size)}"]).data.size == size


def test_averages_may_predict_when_they_are_made() -> None:
    mean = load_config(EXP060, ["train.mean_last=30", "predict.checkpoint=mean"])
    ema = load_config(EXP060, ["predict.checkpoint=ema", "train.ema=0.5"])
    assert (mean.train.mean_last, ema.train.ema) == (30, 0.5)
    with pytest.raises(UserError, match=r"ema needs train\.ema"):
        load_config(EXP060, ["train.mean_last=3", "predict.checkpoint=ema"])


@pytest.mark.parametrize("size", ["[16, 64]", "[72, 64]", "[64, 72]", "[0, 0]", "[-32, 32]"])
def test_refused_sizes(size: str) -> None:
    assert "data.size: height and width must be multiples of 16" in refused(
        EXP060, f"data.size={size}"
    )


def test_fpn_needs_channels_for_its_groups() -> None:
    message = refused(EXP060, "model.decoder=fpn", "model.decoder_channels=96")
    assert "model.decoder_channels: fpn needs a multiple of 64, not 96" in message
    assert load_config(EXP060, ["model.decoder_channels=96"]).model.decoder_channels == 96


def test_a_decoder_that_is_separable_already_is_not_made_so() -> None:
    message = refused(EXP060, "model.separable=true")
    assert "model.separable: deeplabv3plus is so already" in message
    assert load_config(EXP060, ["model.separable=true", "model.decoder=fpn"]).model.separable


@pytest.mark.parametrize("decoder", ["fpn", "upernet", "unet"])
def test_other_decoders_need_multiples_of_32(decoder: str) -> None:
    message = refused(EXP060, f"model.decoder={decoder}", "data.size=[48, 64]")
    assert f"data.size: {decoder} needs multiples of 32" in message
    assert load_config(EXP060, [f"model.decoder={decoder}"]).data.size == (480, 640)


@pytest.mark.parametrize("key", ["depth_holes", "depth_noise", "depth_drop"])
def test_without_a_channel_of_the_depth_there_is_none_to_spoil(key: str) -> None:
    setting = f"augment.{key}=0.5"
    assert load_config(EXP060, [setting]).augment.spoils_depth
    message = refused(EXP060, "data.channels=[rgb, xy]", setting)
    assert f"augment.{key}: needs a channel of the depth in data.channels" in message


def test_what_the_gravity_tells_has_no_noise_and_no_zoomed_depth() -> None:
    channels = "data.channels=[rgb, height, upward]"
    assert load_config(EXP060, [channels, "augment.depth_holes=0.5"]).data.uses_depth
    message = refused(EXP060, channels, "augment.depth_noise=1")
    assert "augment.depth_noise: needs a channel of the depth" in message
    zoomed = ["augment.zoom=[0.5, 2]", "augment.zoom_depth=true"]
    message = refused(EXP060, channels, "model.depth_head=false", *zoomed)
    assert "augment.zoom_depth: needs" in message
    assert load_config(EXP060, ["data.channels=[rgb]", *zoomed]).augment.zoom_depth


def test_copy_paste_needs_depth_of_whatever_use() -> None:
    settings = ["data.channels=[rgb]", "augment.copy_paste=0.5"]
    assert load_config(EXP060, settings).augment.copy_paste == 0.5
    message = refused(EXP060, *settings, "model.depth_head=false")
    assert "augment.copy_paste: needs depth, for a channel" in message


def test_training_size_is_the_crop_or_the_working_size_or_that_of_prediction() -> None:
    crop, working = "augment.crop=[576, 768]", "augment.working_size=[720, 960]"
    for texts, size in (
        ([], (480, 640)),
        (["augment.zoom=[0.5, 2]"], (480, 640)),
        ([working], (720, 960)),
        ([working, crop], (576, 768)),
        (["augment.working_size=[601, 777]", crop], (576, 768)),
    ):
        config = load_config(EXP060, texts)
        assert (config.training_size, config.data.size) == (size, (480, 640))
    assert "augment.crop: 576x768 is larger than augment.working_size=480x900" in refused(
        EXP060, crop, "augment.working_size=[480, 900]"
    )
    assert "augment.crop: fpn needs multiples of 32" in refused(
        EXP060, "model.decoder=fpn", "augment.crop=[48, 64]"
    )


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=1.5", "train.epochs"),
        ("train.epochs=0", "train.epochs"),
        ("train.batch_size=1", "train.batch_size"),
        ("train.lr=0", "train.lr"),
        ("train.lr=.nan", "train.lr"),
        ("train.ema=1", "train.ema"),
        ("train.ema=0", "train.ema"),
        ("train.ema=.nan", "train.ema"),
        ("train.mean_last=0", "train.mean_last"),
        ("train.mean_last=2.5", "train.mean_last"),
        ("train.mean_last=31", "train.mean_last: 31 epochs, but only 30 in all"),
        ("predict.checkpoint=ema", "predict.checkpoint: ema needs train.ema, which"),
        ("predict.checkpoint=mean", "predict.checkpoint: mean needs train.mean_last, which"),
        ("predict.checkpoint=first", "predict.checkpoint"),
        ("compute.accumulate=3", "compute.accumulate: train.batch_size=8 images cannot be 3 equal"),
        ("compute.accumulate=8", "compute.accumulate: train.batch_size=8"),
        ("compute.workers=-1", "compute.workers"),
        ("compute.precision=fp8", "compute.precision"),
        ("train=3", "train: a section; set one of its keys"),
        ("augment.flip=1.1", "augment.flip"),
        ("augment.scale=1", "augment.scale"),
        ("augment.rotate=-5", "augment.rotate"),
        ("augment.zoom=[2, 0.5]", "augment.zoom: must be a smallest and a largest zoom"),
        ("augment.zoom=[0.01, 2]", "augment.zoom: must be"),
        ("augment.zoom=2", "augment.zoom"),
        ("augment.crop=[500, 640]", "augment.crop: deeplabv3plus needs multiples of 16"),
        ("augment.crop=[16, 640]", "augment.crop: deeplabv3plus needs multiples of 16"),
        ("augment.crop=[480, 656]", "augment.crop: 480x656 is larger than data.size=480x640"),
        ("augment.crop=[0, 640]", "augment.crop"),
        ("augment.working_size=[500, 640]", "augment.working_size: deeplabv3plus needs multiples"),
        ("augment.zoom_depth=true", "augment.zoom_depth: needs augment.zoom"),
        ("train.class_weights=[0,0,0,0,0,0,0,0,0,0,0,0,0]", "train.class_weights: no class counts"),
        ("augment.depth_noise=-1", "augment.depth_noise"),
        ("augment.rare_crop=0.5", "augment.rare_crop: needs augment.crop or zoom"),
        ("folds.count=1", "folds.count"),
        ("folds.group=image", "folds.group"),
        ("model.decoder=deeplab", "model.decoder"),
        ("model.depth_head=perhaps", "model.depth_head"),
        ("data.size=480", "data.size"),
        ("data.size=[480]", "data.size"),
        ("data.size=[480, 640, 3]", "data.size"),
        ("data.channels=[rgb, depth]", "data.channels.1"),
        ("data.mean=[1, 2]", "data.mean"),
        ("submission.base=2", "submission.base"),
        ("submission.order=diagonal", "submission.order"),
        ("seed=-1", "seed"),
        ("name=../escape", "name"),
        ("name=.hidden", "name"),
        ("name=''", "name"),
        ("name=a/b", "name"),
        (f"name={'x' * 65}", "name"),
    ],
)
def test_faulty_value_names_file_and_key(override: str, key: str) -> None:
    assert refused(EXP060, override).startswith(f"{EXP060}: {key}")


@pytest.mark.parametrize("setting", ["augment.crop=[240, 320]", "augment.zoom=[0.5, 2]"])
def test_coordinates_and_crops_exclude_each_other(setting: str) -> None:
    message = refused(CONFIGS / "exp050.yaml", setting)
    assert "data.channels: xy says where a pixel lies in the whole frame" in message


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("train.worker", "did you mean compute.workers?"),
        ("train.epoch", "did you mean train.epochs?"),
        ("trian.epochs", "did you mean train.epochs?"),
        ("trian", "did you mean train?"),
        ("lr", "did you mean train.lr?"),
        ("predict.views", "did you mean tta.views?"),
        ("fold", "did you mean folds?"),
        ("train.quux", "docs/config.md has every key"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, words: str) -> None:
    expected = f"--set {key}=2: unknown key {key}; {words}"
    assert refused(EXP060, f"{key}=2") == expected
    with pytest.raises(UserError) as error:
        override_config(load_config(EXP060), [f"{key}=2"])
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\ntrain: {epochs: [1}\n", "not valid YAML"),
        ("name: x\n\tseed: 1\n", "not valid YAML"),
        ("- name\n- x\n", "expected keys and values"),
        ("just words\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("seed: 1\n", "name: "),
        ("name: x\ntrain:\n", "train: "),
        ("name: x\nlearning_rate: 1\n", "unknown key learning_rate; docs/config.md has every key"),
        ("name: x\ntrain: {epoch: 1}\n", "unknown key train.epoch; did you mean train.epochs?"),
        ("name: x\ndata: {channels: rgb}\n", "data.channels: "),
        ("name: x\nextends: absent.yaml\n", "absent.yaml: no such configuration file"),
    ],
)
def test_faulty_file_is_named(write, text: str, words: str) -> None:
    path = write(text)
    message = refused(path)
    assert words in message
    assert message.startswith(str(path.parent))


def test_absent_file(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert refused(path) == f"{path}: no such configuration file"
    assert refused(tmp_path).startswith(str(tmp_path))


def test_a_grandparent_lies_lowest_and_a_circle_is_named(write) -> None:
    write("name: a\ntrain: {epochs: 7, lr: 0.5, weight_decay: 0.1}\n", "a.yaml")
    write("extends: a.yaml\nname: b\ntrain: {epochs: 8, lr: 0.25}\n", "b.yaml")
    config = load_config(write("extends: b.yaml\ntrain: {lr: 0.125}\n"))
    train = config.train
    assert (config.name, train.epochs, train.lr, train.weight_decay) == ("b", 8, 0.125, 0.1)
    write("extends: two.yaml\nname: one\n", "one.yaml")
    two = write("extends: one.yaml\nname: two\n", "two.yaml")
    assert "one.yaml: extends two.yaml, which extends it in turn" in refused(two)
    loop = write("extends: loop.yaml\nname: loop\n", "loop.yaml")
    assert "loop.yaml: extends loop.yaml, which" in refused(loop)


def test_how_it_is_computed_may_change_after_training_and_what_may_not() -> None:
    config = load_config(EXP060, ["train.ema=0.9"])
    ways = ["compute.precision=fp32", "compute={workers: 0, predict_batch_size: 2}"]
    changed = override_config(config, [*ways, "tta.views=[{}]", "submission.base=0"])
    assert (changed.compute.precision, changed.compute.workers) == ("fp32", 0)
    assert (len(changed.tta.views), changed.submission.base) == (1, 0)
    assert (changed.data, changed.model, changed.train) == (config.data, config.model, config.train)
    for fixed in ("predict.checkpoint=ema", "train.batch_size=4", "folds.group=random", "seed=1"):
        with pytest.raises(UserError, match=f"{fixed.partition('=')[0]} is fixed by the training"):
            override_config(config, [fixed])


@pytest.mark.parametrize("text", ["train.epochs", "train.epochs:3", "=3", ""])
def test_override_without_key_or_value(text: str) -> None:
    assert refused(EXP060, text) == f"--set {text}: expected KEY=VALUE, such as train.epochs=1"


def test_override_of_broken_yaml() -> None:
    assert refused(EXP060, "data.size=[1") == "--set data.size=[1: the value is not valid YAML"


def test_config_cannot_be_changed_after_loading() -> None:
    config = load_config(EXP060)
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 1


def test_an_empty_value_is_never_taken_for_null() -> None:
    message = refused(EXP060, "model.encoder_weights=")
    assert message.startswith("--set model.encoder_weights=: the value is empty")
    assert "null" in message


def test_tokens_that_yaml_would_change_stay_text() -> None:
    for token in ("-", "-1", "0", "''"):
        config = load_config(EXP060, [f"submission.empty={token}"])
        assert config.submission.empty == token.strip("'")


@pytest.mark.parametrize("text", ["data.std=[0,1,1]", "data.mean=[.nan,0,0]", "train.lr=.inf"])
def test_numbers_that_cannot_work_are_refused(text: str) -> None:
    assert text.partition("=")[0] in refused(EXP060, text)


def test_a_file_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match=r"config\.yaml: not valid YAML"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=042", 42),  # YAML itself reads 34,
        ("seed=08", 8),
        ("seed=1_000", 1000),
        ("train.lr=1e-4", 1e-4),  # text,
        ("train.lr=08.5", 8.5),
        ("data.size=[0480, 0640]", (480, 640)),  # (480, 416),
        ("submission.base=01", 1),
        ("submission.empty=007", "007"),  # 7,
        ("submission.empty=no", "no"),
        ("submission.empty=1_0", "1_0"),
        ("name=007", "007"),
        ("name=1e5", "1e5"),
        ("name=2024-01-01", "2024-01-01"),  # a date,
        ("name=yes", "yes"),  # and true.
        ("model.depth_head=no", False),
        ("model.encoder_weights=~", None),
        ("compute.cache=012", "012"),
    ],
)
def test_values_are_what_was_meant(write, text: str, value: Any) -> None:
    """On the command line, in a file, and in the file that an experiment keeps."""
    key, _, typed = text.partition("=")
    typed_in_file = f"{key.replace('.', ': {')}: {typed}{'}' * key.count('.')}\n"
    name = "" if key == "name" else "name: x\n"
    in_file = load_config(write(name + typed_in_file))
    for config in (load_config(EXP060, [text]), in_file):
        again = load_config(write(dump_config(config), "again.yaml"))
        assert again == config
        for part in key.split("."):
            again = getattr(again, part)
        assert again == value
        assert type(again) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("seed=0x10", "seed=0o17", "seed=1:30", "seed=yes", "seed=true", "seed=2024-01-01"),
        *("seed=1 # one", "train.lr=0x1", "train.lr=1:30.5", "train.lr=true", "train.ema=no"),
        *("augment.flip=off", "submission.base=true", "compute.workers=none", "train.epochs=1e1"),
    ],
)
def test_numbers_of_another_notation_are_refused(text: str) -> None:
    assert refused(EXP060, text).startswith(f"{EXP060}: {text.partition('=')[0]}: ")


@pytest.mark.parametrize("word", ["none", "None", "no", "off", "false", "''"])
@pytest.mark.parametrize("key", ["model.encoder_weights", "compute.cache"])
def test_none_is_written_null(key: str, word: str) -> None:
    assert f"{key}: for none, write null" in refused(EXP060, f"{key}={word}")


@pytest.mark.parametrize("path", ["/a b/c: d", "a #1", "C:/x", "~/x", "&x", "@x", "- x"])
def test_a_path_stays_as_it_was_typed(path: str) -> None:
    assert load_config(EXP060, [f"compute.cache={path}"]).compute.cache == path


def test_a_key_that_is_there_twice_is_refused(write) -> None:
    message = refused(write("name: x\ntrain: {lr: 0.5}\nseed: 1\ntrain: {epochs: 3}\n"))
    assert "the key train is there twice" in message
    assert "line 4" in message


def test_an_anchor_is_merged_as_ever(write) -> None:
    text = "name: x\ntta: {views: [&one {}, {<<: *one, flip: true}]}\n"
    assert [view.name for view in load_config(write(text)).tta.views] == [
        "identity",
        "horizontal_flip",
    ]


@pytest.mark.parametrize("setting", ["data.size=48", "data.depth_missing=65535"])
def test_one_value_where_a_list_belongs_says_so(setting: str) -> None:
    with pytest.raises(UserError, match=rf"{setting.partition('=')[0]}: expected a list, such as"):
        load_config(PROJECT / "configs/exp060.yaml", [setting])
