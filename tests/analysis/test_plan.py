"""A plan says what fits, what makes the rest fit, and how long it takes."""

import pytest

from nyuseg.analysis.cards import Card, find_card
from nyuseg.analysis.plan import Plan, make_plan
from nyuseg.analysis.plan_text import report
from nyuseg.config.loading import load_config
from nyuseg.config.schema import Config
from nyuseg.models.network import build_model
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

TINY = ("model.encoder=tu-test_resnet", "data.size=[64,96]", "train.batch_size=12")
# A device without anything in it, so that memory is that of the tensors.
CARD = Card("t4", 16e9, 65e12, 8e12, base=0)


def make_config(*overrides: str) -> Config:
    return load_config(PROJECT / "configs/exp060.yaml", [*TINY, *overrides])


def plan_with(memory: float, *overrides: str) -> Plan:
    """The plan for a device with so many bytes."""
    return make_plan(make_config(*overrides), Card("t4", memory, 65e12, 8e12, base=0))


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    needed = plan_with(16e9).training_bytes
    for parts in (1, 2):
        most = plan_with(needed, f"compute.accumulate={parts}").largest_batch
        assert most % parts == 0
        for batch, fits in ((most, True), (most + parts, False)):
            both = f"train.batch_size={batch}", f"compute.accumulate={parts}"
            assert plan_with(needed, *both).fits == fits
    assert plan_with(needed).largest_batch == 12


def test_each_remedy_makes_training_fit() -> None:
    # Between what two images take and what twelve do.
    memory = (plan_with(16e9, "train.batch_size=2").training_bytes * 2) // 3
    memory += plan_with(16e9).training_bytes // 3
    plan = plan_with(memory)
    assert not plan.fits
    keys = [remedy.split()[1].partition("=")[0] for remedy in plan.remedies]
    assert {"compute.accumulate", "train.batch_size"} <= set(keys)
    for remedy in plan.remedies:
        words = remedy.partition(" (")[0].split()
        assert plan_with(memory, *(word for word in words if "=" in word)).fits


def test_what_no_setting_makes_fit_is_said() -> None:
    plan = plan_with(1e6)
    assert (plan.fits, plan.largest_batch, plan.remedies) == (False, 0, ())
    assert "no setting" in report([plan])


def test_averages_and_optimizer_are_in_the_memory() -> None:
    plain, averaged = make_config(), make_config("train.ema=0.99", "train.mean_last=2")
    state = build_model(plain.model, plain.data, pretrained=False).state_dict()
    weights = sum(tensor.nbytes for tensor in state.values())
    more = make_plan(averaged, CARD).training_bytes - make_plan(plain, CARD).training_bytes
    assert more == pytest.approx(2 * weights)
    assert make_plan(plain, CARD).training_bytes > 4 * weights


def test_training_is_planned_at_its_own_size() -> None:
    whole, cropped = make_config(), make_config("augment.crop=[32,64]")
    small = make_config("data.size=[32,64]")
    plans = [make_plan(config, CARD) for config in (whole, cropped, small)]
    assert plans[1].operations == plans[2].operations < plans[0].operations
    assert plans[1].training_bytes == plans[2].training_bytes < plans[0].training_bytes
    assert plans[1].kernel_hours == plans[0].kernel_hours > plans[2].kernel_hours


def test_hours_follow_what_is_computed() -> None:
    # Batches of 12 images: 53 of the 636 that a fold trains on; 159 are predicted each epoch.
    plan = make_plan(make_config("train.epochs=7"), CARD)
    passes = 7 * 5 * (53 * 12 * 3 + 159)
    assert plan.training_hours == pytest.approx(plan.operations * passes / (0.2 * 65e12) / 3600)
    assert plan.kernel_hours == pytest.approx(plan.operations * 654 * 5 * 2 / (0.2 * 65e12) / 3600)
    full = 7 * 3 * 66 * 12 * 3  # Three networks on all images, none of them held out.
    assert plan.full_hours / plan.training_hours == pytest.approx(full / passes)
    single = make_plan(make_config("train.epochs=7", "compute.precision=fp32"), CARD)
    assert single.training_hours > 2 * plan.training_hours


def test_recomputing_takes_a_pass_more_and_less_memory() -> None:
    settings = ("model.encoder=tu-convnext_atto", "model.decoder=fpn")
    plan, again = (
        make_plan(make_config(*settings, f"compute.checkpointing={word}"), CARD)
        for word in ("false", "true")
    )
    assert again.training_hours / plan.training_hours == pytest.approx((4 * 4 + 1) / (3 * 4 + 1))
    tight = plan_with(again.training_bytes, *settings)
    assert "--set compute.checkpointing=true" in tight.remedies


def test_disk_and_download() -> None:
    plan = make_plan(make_config(), CARD)
    assert plan.download_bytes == 4 * plan.encoder_parameters
    assert make_plan(make_config("model.encoder_weights=null"), CARD).download_bytes == 0
    without = make_plan(make_config("compute.cache=null"), CARD)
    assert plan.disk_bytes - without.disk_bytes == 795 * 480 * 640 * 6


def test_a_device_is_found_by_its_name() -> None:
    assert find_card("a100").memory > find_card("t4").memory
    assert find_card("cpu").speed("auto") > 1e8
    with pytest.raises(UserError, match=r"--device k80: expected t4, p100, .* or cpu"):
        find_card("k80")


def test_an_auxiliary_head_is_trained_but_does_not_predict() -> None:
    plain, helped = (make_plan(make_config(*given), CARD) for given in ((), ("train.aux_loss=.4",)))
    assert helped.training_bytes > plain.training_bytes
    assert helped.parameters == plain.parameters
    assert helped.prediction_bytes == plain.prediction_bytes
