"""docs/config.md says what the schema says, and keys do not grow by accident."""

from nyuseg.config.key_names import keys
from nyuseg.config.reference import page
from nyuseg.utils.files import PROJECT

# A new key is one more thing to choose, to explain and to test: whoever adds one adds it here.
KEYS = """
name seed
data.size data.channels data.mean data.std data.depth_unit data.depth_missing
model.decoder model.decoder_channels model.separable model.encoder model.patch_size
model.drop_path model.encoder_weights model.input_init model.fusion model.depth_head
augment.working_size augment.zoom augment.crop augment.rare_crop augment.zoom_depth
augment.flip augment.shift augment.scale augment.rotate
augment.colour augment.blur augment.noise
augment.copy_paste augment.depth_holes augment.depth_noise augment.depth_drop
train.epochs train.batch_size train.lr train.schedule train.warmup train.encoder_lr
train.layer_decay train.weight_decay train.decay_all train.clip_norm
train.label_smoothing train.class_weights train.boundary_weight train.lovasz train.dice
train.soft_iou train.aux_loss train.depth_loss train.ema train.mean_last
folds.count folds.group folds.full
predict.checkpoint predict.balance
compute.workers compute.precision compute.accumulate compute.checkpointing compute.compile
compute.cache compute.predict_batch_size compute.tensorboard
tta.views
submission.order submission.base submission.empty
"""


def rows() -> dict[str, list[str]]:
    """The page's rows by key: what it takes, its default, what it means."""
    lines = [line.strip("|").split(" | ") for line in page().splitlines() if line[:3] == "| `"]
    return {key.strip(" `"): [cell.strip() for cell in rest] for key, *rest in lines}


def test_the_keys_are_those_that_were_decided_on() -> None:
    assert keys() == KEYS.split()


def test_the_committed_page_is_what_the_schema_says() -> None:
    make = "python -m nyuseg.config.reference > docs/config.md"
    assert (PROJECT / "docs/config.md").read_text() == page(), f"run {make}"


def test_every_key_has_a_line_that_explains_it() -> None:
    found = rows()
    assert set(found) == {*keys(), "flip", "scale", "weight"}  # And those of a view.
    for key, (_, _, meaning) in found.items():
        assert len(meaning.split()) > 2 and meaning.endswith("."), key


def test_ranges_choices_and_defaults_are_in_words() -> None:
    found = {key: cells[:2] for key, cells in rows().items()}
    assert found["train.ema"] == ["number (above 0, below 1) or null", "`null`"]
    assert found["train.lr"] == ["number (above 0)", "`0.0001`"]
    assert found["data.size"] == ["list of 2 integers", "`[480, 640]`"]
    assert found["augment.zoom"] == ["list of 2 numbers (above 0) or null", "`null`"]
    assert found["data.depth_missing"] == ["list of integers (1 to 65535)", "`[]`"]
    assert found["data.depth_unit"] == ["`mm`, `sunrgbd` or number (above 0)", "`mm`"]
    assert found["model.depth_head"] == ["true or false", "`true`"]
    assert found["tta.views"] == ["list of views", "`[{}, {flip: true}]`"]
    assert found["name"] == ["text", "must be given"]
    assert found["submission.empty"] == ["text", "`''`"]
