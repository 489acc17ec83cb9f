"""The training step: parts add up to the batch, recomputing changes nothing, nothing waits."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nyuseg.config.sections import Compute, Data, Model, Train
from nyuseg.models.activation_checkpointing import recompute_blocks
from nyuseg.models.network import build_model
from nyuseg.training.optimization import TrainingStep, has_idle_weights, parameter_groups
from nyuseg.utils.errors import UserError

CPU = torch.device("cpu")


def batch(count: int = 4) -> dict:
    """Images of very different numbers of valid pixels, one of them without any."""
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, 13, (count, 32, 64), generator=generator)
    for i in range(count):
        label[i, :, 20 * i :] = 255
    label[1] = 255
    return {
        "image": torch.randn(count, 4, 32, 64, generator=generator),
        "label": label,
        "depth": torch.rand(count, 1, 32, 64, generator=generator),
        "depth_valid": torch.rand(count, 1, 32, 64, generator=generator) > 0.3,
        "id": [str(i) for i in range(count)],
    }


class WithoutNorm(nn.Module):
    """A network without BatchNorm, so that a part of a batch is answered as in the whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(4, 14, 5, stride=4, padding=2)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        answer = self.convolution(image)
        return {"logits": answer[:, :13], "depth": answer[:, 13:]}


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_add_up_to_the_batch(parts: int) -> None:
    whole, split = WithoutNorm(), WithoutNorm()
    data = batch(8)
    options, in_parts = Train(batch_size=8, lr=1e-3), Compute(precision="fp32", accumulate=parts)
    one = TrainingStep(whole, options, Compute(precision="fp32"), CPU)(data)
    many = TrainingStep(split, options, in_parts, CPU)(data)
    assert torch.allclose(one, many, rtol=1e-5)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_another_precision_goes_on_with_the_same_weights(monkeypatch) -> None:
    """From float16, which scales its loss, to another precision and back."""
    state: dict = {}
    for number, dtype in enumerate([torch.float16, torch.float32, torch.float16]):
        monkeypatch.setattr(
            "nyuseg.training.optimization.autocast_dtype", lambda *_, dtype=dtype: dtype
        )
        model = WithoutNorm()
        step = TrainingStep(model, Train(batch_size=4), Compute(precision="fp32"), CPU)
        if state:
            model.load_state_dict(state["model"])
            step.load_state_dict(state)
        assert step.taken() == 2 * number
        before = model.convolution.weight.clone()
        for seed in range(2):
            step(batch(4 + seed))
        assert not torch.equal(model.convolution.weight, before)
        state = {"model": model.state_dict(), **step.state_dict()}
        assert bool(state["scaler"]) == (dtype == torch.float16)


def network(encoder: str = "resnet18", **model: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(Model(encoder=encoder, encoder_weights=None, **model), Data())


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18", "tu-convnext_atto"])
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_recomputing_changes_nothing(encoder: str, precision: str) -> None:
    decoder = "fpn" if "convnext" in encoder else "deeplabv3plus"
    plain = network(encoder, decoder=decoder)
    thrifty = copy.deepcopy(plain)
    states = []
    for model, checkpointing in ((plain, False), (thrifty, True)):
        compute = Compute(precision=precision, checkpointing=checkpointing)
        step = TrainingStep(model.train(), Train(batch_size=4), compute, CPU)
        torch.manual_seed(5)  # For dropout.
        losses = [step(batch()) for _ in range(2)]
        states.append((losses, model.state_dict()))
    (first, wanted), (second, found) = states
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert wanted.keys() == found.keys()  # Running means and their counts are among them.
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def test_recomputing_changes_nothing_in_what_is_compiled() -> None:
    plain = network("resnet18").train().encoder
    thrifty = copy.deepcopy(plain)
    recompute_blocks(thrifty)
    for encoder in (plain, torch.compile(thrifty, backend="aot_eager")):  # Needs no compiler.
        for _ in range(2):
            sum(feature.square().mean() for feature in encoder(batch()["image"])).backward()
    torch.compiler.reset()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, thrifty.state_dict()[name]), name
    for one, other in zip(plain.parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_recomputing_keeps_fewer_activations() -> None:
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.numel()
        return tensor

    for checkpointing in (False, True):
        model = network("resnet50").train()
        if checkpointing:
            recompute_blocks(model.encoder)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = model.encoder(batch()["image"])
        assert features
    # The hooks also see the blocks' inputs, which are kept; the rest is what is saved.
    assert kept[1] < kept[0] / 3


def test_a_network_that_recomputes_is_freed_as_soon_as_nobody_has_it() -> None:
    model = network("resnet18").train()
    recompute_blocks(model.encoder)
    kept, average = weakref.ref(model), copy.deepcopy(model)
    gc.disable()  # A fold's network would stay on the GPU until Python looks for circles.
    try:
        del model
        assert kept() is None
        average.encoder(batch()["image"])  # By its own blocks.
    finally:
        gc.enable()


def test_an_encoder_without_blocks_is_told() -> None:
    with pytest.raises(UserError, match="no repeated blocks"):
        recompute_blocks(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))


class Looks(TorchDispatchMode):
    """Collects the operations that make a GPU be waited for: a look at a value."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, given=(), named=None):
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            one is not None and one.dtype == torch.bool
            for many in given
            if isinstance(many, list | tuple)
            for one in many
        )
        if by_mask or any(name.startswith(word) for word in self.WAITING):
            self.found.append(name)
        return function(*given, **(named or {}))


def test_the_guard_notices_a_look() -> None:
    with Looks() as looks:
        float(torch.ones(3).sum())
        torch.ones(3)[torch.ones(3) > 0]
    assert len(looks.found) == 2


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_never_looks_at_a_value(parts: int) -> None:
    options = Train(batch_size=4, ema=0.99)
    step = TrainingStep(network().train(), options, Compute(accumulate=parts), CPU)
    data = batch()
    step(data)
    with Looks() as looks:
        step(data)
    assert looks.found == []


def test_validation_never_looks_at_a_value() -> None:
    from nyuseg.evaluation.validation import add_confusion, cross_entropy, depth_error

    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(13, 8, 9, generator=generator).softmax(0)
    truth = torch.randint(0, 13, (8, 9), generator=generator)
    truth[2:4] = 255
    millimetres = torch.randint(0, 3, (8, 9), generator=generator).mul(900).numpy().astype("uint16")
    counts = torch.zeros(170, dtype=torch.int64)
    with Looks() as looks:
        add_confusion(counts, truth, probabilities.max(0).indices)
        cross_entropy(probabilities, truth)
        depth_error(probabilities[0], millimetres)
    assert looks.found == []
    from nyuseg.evaluation.metrics import confusion_matrix

    mask = probabilities.argmax(0).numpy().astype("uint8")
    expected = confusion_matrix(truth.numpy().astype("uint8"), mask)
    assert (counts[:169].view(13, 13).numpy() == expected).all()


# Parameter groups and clipping


class Tokens(nn.Module):
    """An encoder whose author spares its position from the weight decay, as timm's do."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.ones(1, 5, 7))
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))  # A Swin's, unnamed.
        self.filters, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def no_weight_decay(self) -> set[str]:
        return {"position"}


def grouped(options: Train) -> dict[str, tuple[float, float]]:
    """Multiple of the rate and weight decay of each parameter, by name."""
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"model": Tokens()}), "head": nn.Linear(2, 3)})
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, options)
        for parameter in group["params"]
    }


def test_by_default_all_parameters_are_treated_alike() -> None:
    found = grouped(Train(weight_decay=0.3))
    assert len(found) == 8 and set(found.values()) == {(1, 0.3)}


def test_the_encoder_learns_slower_and_vectors_and_tokens_do_not_decay() -> None:
    found = grouped(Train(weight_decay=0.3, encoder_lr=0.1, decay_all=False))
    assert found == {
        "encoder.model.position": (0.1, 0),
        "encoder.model.relative_position_bias_table": (0.1, 0),
        "encoder.model.filters.weight": (0.1, 0.3),
        "encoder.model.filters.bias": (0.1, 0),
        "encoder.model.norm.weight": (0.1, 0),
        "encoder.model.norm.bias": (0.1, 0),
        "head.weight": (1, 0.3),
        "head.bias": (1, 0),
    }


def test_a_rate_reaches_each_group_as_its_multiple() -> None:
    model = build_model(Model(encoder="tu-test_resnet", encoder_weights=None), Data(size=(32, 64)))
    step = TrainingStep(model, Train(encoder_lr=0.25, batch_size=4), Compute(), CPU)
    step.set_rate(8e-3)
    rates = {group["lr"]: group["params"] for group in step.optimizer.param_groups}
    assert set(rates) == {2e-3, 8e-3}
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    assert {id(parameter) for parameter in rates[2e-3]} == encoder


def test_a_long_gradient_is_shortened_and_a_short_one_is_not() -> None:
    lengths = []
    for clip_norm in (None, 1e-2, 1e6):
        model = WithoutNorm()
        options = Train(batch_size=4, clip_norm=clip_norm)
        TrainingStep(model, options, Compute(precision="fp32"), CPU)(batch())
        grads = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        lengths.append(float(grads.norm()))
    assert lengths[0] > 0.1 and lengths[1] == pytest.approx(1e-2, rel=1e-3)
    assert lengths[2] == lengths[0]


@pytest.mark.parametrize(
    ("encoder", "idle"),
    [
        ("efficientnet-b0", True),
        ("timm-efficientnet-b0", True),
        ("tu-test_efficientnet", False),
        ("resnet18", False),
    ],
)
def test_weights_that_are_never_called_are_known(encoder: str, idle: bool) -> None:
    """Several processes wait for the gradients of all weights, unless they are told."""
    model = build_model(Model(encoder=encoder, encoder_weights=None), Data(size=(64, 64)))
    output = model.train()(torch.rand(2, 4, 64, 64))
    sum(value.sum() for value in output.values()).backward()
    assert any(weight.grad is None for weight in model.parameters()) is idle
    assert has_idle_weights(model) is idle
