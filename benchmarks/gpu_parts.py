"""What gpu_check.py checks and measures, each part by itself; `small` is for testing them."""

import gc
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any, TypeVar

import ours  # It puts src on the path, first.
import pandas as pd
import plain
import torch
from recipes import NATIVE, Noise
from torch import nn
from torch.nn import functional

from nyuseg.analysis.cards import Card, find_card
from nyuseg.analysis.footprint import counted_part, forward_operations
from nyuseg.analysis.plan import TRAINING_PASSES, make_plan
from nyuseg.config.loading import load_config
from nyuseg.config.schema import Config
from nyuseg.dataloading.dataset import TrainingSet
from nyuseg.dataloading.inputs import Sample, training_inputs
from nyuseg.dataloading.loader import collate
from nyuseg.inference.ensemble import Ensemble
from nyuseg.models import device as device_module
from nyuseg.models.device import free_memory, pick_device
from nyuseg.models.network import MultiTaskNet, build_model
from nyuseg.models.normalisation import resolve_normalisation
from nyuseg.training import optimization
from nyuseg.training.optimization import TrainingStep
from nyuseg.utils.errors import is_out_of_memory

Net = TypeVar("Net", bound=nn.Module)
CPU = torch.device("cpu")
EXP060 = ours.PROJECT / "configs/exp060.yaml"
# A network for each way that an input takes: its gradients are compared with the processor's.
KINDS = {
    "deeplabv3plus": ("model.encoder=tu-test_resnet",),
    "unet with a depth branch": (
        *("model.encoder=tu-test_convnext", "model.decoder=unet", "model.fusion=branch"),
    ),
    "two streams": ("model.encoder=tu-test_resnet", "model.fusion=two_stream"),
    "dpt": ("model.encoder=tu-test_vit", "model.decoder=dpt"),
}
TOLERANCE = 1e-3  # Of the largest gradient; torch sums up in another order on a GPU.
WARM_UP, SECONDS, AT_ONCE = 3, 6.0, 5
FULL = "does not fit"
# Names of GPUs by what words begin with in what the driver calls them; see cards.
CARDS = {"T4 ": "t4", "P100": "p100", "V100": "v100", "L4 ": "l4", "3090 ": "rtx3090"}
CARDS |= {"4090 ": "rtx4090", "A100-SXM4-80": "a100-80", "A100 80": "a100-80", "A100": "a100"}
CARDS |= {"H100": "h100", "H200": "h200"}


def configure(path: Path, small: bool, *overrides: str) -> Config:
    """A configuration with random weights; a small one has a small network and input."""
    sizes = ("model.encoder=tu-test_resnet", "data.size=[64,96]", "train.batch_size=2") * small
    fixed = ("model.encoder_weights=null", *sizes, *overrides)
    return resolve_normalisation(load_config(path, fixed))


def batch_of(config: Config, count: int, device: torch.device) -> Callable[[], Sample]:
    """A function that makes the inputs of so many frames of noise, as training makes them."""
    frames = TrainingSet(Noise(NATIVE), [str(n) for n in range(1, min(count, 4) + 1)], config, 0)
    read = [frames[0, index] for index in range(len(frames))]
    samples = collate([read[index % len(read)] for index in range(count)])
    if device.type == "cuda":
        pin: Any = torch.utils.data._utils.pin_memory.pin_memory
        samples = pin(samples)
    return lambda: training_inputs(samples, config.data, device)


def network_of(config: Config) -> MultiTaskNet:
    """A network with random weights that are the same each time."""
    torch.manual_seed(0)
    return build_model(config.model, config.data, pretrained=False)


def settled(network: Net) -> Net:
    """A network of random weights whose BatchNorm has seen images: without, its values grow from
    block to block until they overflow in float16, which those of no trained network do."""
    channels = next(iter(network.parameters())).shape[1]
    with torch.no_grad():
        network.train()
        for _ in range(4):
            network(torch.rand(2, channels, 64, 96))
    return network.eval()


def ours_step(config: Config, device: torch.device) -> Callable[[], torch.Tensor]:
    """A step of the optimizer, with the batch that the configuration says."""
    step = TrainingStep(network_of(config).train(), config.train, config.compute, device)
    batch = batch_of(config, config.train.batch_size, device)
    return lambda: step(batch())


# Checks


def step_agrees(small: bool) -> str:
    """Gradients of a float32 step on this device and on the processor."""
    exactly()
    worst = {}
    for name, changes in KINDS.items():
        config = configure(
            EXP060,
            True,
            "data.size=[96,128]",
            "train.batch_size=4",
            "compute.precision=fp32",
            *changes,
        )
        found = [gradients(config, device) for device in (CPU, pick_device())]
        largest = max(float(one.abs().max()) for one in found[0])
        differences = [float((a - b).abs().max()) for a, b in zip(*found, strict=True)]
        worst[name] = max(differences) / largest
    text = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    assert max(worst.values()) < TOLERANCE, f"a step differs from the processor's: {text}"
    return f"* a step's gradients differ from the processor's by, of the largest one: {text}"


def exactly() -> None:
    """From now on a GPU computes float32 in 32 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def gradients(config: Config, device: torch.device) -> list[torch.Tensor]:
    """Those of the first step, on the processor; without dropout, which each device draws alone."""
    network = network_of(config).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    step = TrainingStep(network, config.train, config.compute, device)
    step(batch_of(config, config.train.batch_size, device)())
    return [one.grad.cpu() for one in step.model.parameters() if one.grad is not None]


def nothing_waits(small: bool) -> str:
    """Steps, from the batch in memory on, in which torch refuses to wait for the GPU."""
    config, device, count = configure(EXP060, small), pick_device(), 5
    step = ours_step(config, device)
    for _ in range(WARM_UP):
        step()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    return f"* {count} steps of Exp060 in which nothing waited for the GPU"


def halves_when_full(small: bool) -> str:
    """A batch that does not fit is predicted in parts, with the answer of one that does."""
    exactly()
    device = pick_device()
    config = configure(EXP060, small, "compute.precision=fp32")
    ensemble = Ensemble([settled(network_of(config))], config, device, tta=True)
    images = torch.rand(16, config.data.channel_count, *config.data.size)
    ensemble(images)  # Searching for the fastest kernels takes memory of its own.
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole = ensemble(images)[0].cpu()
    if device.type == "cuda":
        limit = 0.6 * torch.cuda.max_memory_allocated() / torch.cuda.mem_get_info()[1]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(limit)
    else:
        ensemble.max_batch = 3
    parts = ensemble(images)[0].cpu()
    seen = len(images) * ensemble.view_count
    assert ensemble.max_batch < seen, "the memory was not full: nothing was halved"
    difference = float((whole - parts).abs().max())
    assert difference < 1e-2, f"the parts' probabilities differ from the whole's by {difference}"
    return (
        f"* with too little memory for {seen} images at once {ensemble.max_batch}, probabilities "
        f"differ by {difference:.0e}"
    )


def float16_skips(small: bool) -> str:
    """Steps in float16 whose gradients overflow at first leave the weights alone."""
    half: Any = lambda *_: torch.float16  # noqa: E731
    device_module.autocast_dtype = half
    optimization.__dict__["autocast_dtype"] = half
    config, device, count = configure(EXP060, True), pick_device(), 40
    step = TrainingStep(network_of(config).train(), config.train, config.compute, device)
    step.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**36)
    batch = batch_of(config, config.train.batch_size, device)
    before = step.model.encoder.state_dict()
    first = {name: tensor.clone() for name, tensor in before.items() if "weight" in name}
    step(batch())
    kept = all(torch.equal(before[name], tensor) for name, tensor in first.items())
    losses = [float(step(batch())[0]) for _ in range(count - 1)]
    taken = step.taken()
    assert kept and 0 < taken < count, f"{taken} of {count} steps taken; weights kept: {kept}"
    assert torch.tensor(losses).isfinite().all(), "a loss in float16 is not finite"
    return f"* float16: {count - taken} of {count} steps overflowed and were skipped, {taken} taken"


def all_together(small: bool) -> str:
    """An epoch by one process for each GPU, and one by one of them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 2
    if count < 2:
        return "* data-parallel: one GPU here, nothing to share with"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours.write_data(work / "data", (96, 128))
        for name, processes in (("one", 1), ("all", count)):
            started = time.monotonic()
            done = subprocess.run(_training(work, name, processes), capture_output=True, text=True)
            last = "\n".join(done.stderr.splitlines()[-20:])
            assert done.returncode == 0, f"training by {processes} processes failed:\n{last}"
            metrics = pd.read_csv(work / f"oof/{name}/fold_0/metrics.csv")
            rows.append((float(metrics["train_loss"][0]), time.monotonic() - started))
    (one, _), (together, seconds) = rows
    difference = abs(one / together - 1)
    assert difference < 0.01, f"the loss of {count} processes differs by {difference:.1%}"
    what = f"* {count} processes train as one: the epoch's loss differs by"
    return f"{what} {difference:.1e} ({seconds:.0f} s)"


def _training(work: Path, name: str, processes: int) -> list[str]:
    """The command that trains a fold of a small experiment by so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    settings = ["model.encoder=tu-test_resnet", "model.encoder_weights=null", "data.size=[96,128]"]
    settings += ["train.batch_size=8", "train.epochs=1", "compute.precision=fp32", f"name={name}"]
    return [
        *(sys.executable, *launcher, str(ours.PROJECT / "src/train_folds.py"), "--fold", "0"),
        *("--input", str(work / "data"), "--oof", str(work / "oof"), "--config", str(EXP060)),
        *(f"--set={text}" for text in settings),
    ]


CHECKS: dict[str, Callable[[bool], str]] = {
    "step": step_agrees,
    "waiting": nothing_waits,
    "memory": halves_when_full,
    "float16": float16_skips,
    "all GPUs": all_together,
}


# Speed


def this_card() -> Card | None:
    """What is known of the GPU here; None for one that cards does not list, and without one."""
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    slower = "H100" in name and "PCIe" in name
    if slower or re.search(r"MIG|Laptop|\bTi\b|\bD\b|NVL", name):
        return None
    found = [card for word, card in CARDS.items() if re.search(rf"\b{word}", name + " ")]
    return find_card(found[0]) if found else None


def pace(step: Callable[[], Any], images: int, small: bool) -> tuple[float, float]:
    """Images a second, and the GB that torch takes of the GPU for it, 0 without one.

    The GPU is waited for after a few steps, not after each.
    """
    gpu = torch.cuda.is_available()
    wait: Callable[[], Any] = torch.cuda.synchronize if gpu else lambda: None
    for _ in range(1 if small else WARM_UP):
        step()
    wait()
    if gpu:
        torch.cuda.empty_cache()  # What searching for the fastest kernels took.
        torch.cuda.reset_peak_memory_stats()
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < SECONDS * (not small):
        for _ in range(1 if small else AT_ONCE):
            step()
            count += 1
        wait()
    seconds = time.perf_counter() - started
    return count * images / seconds, torch.cuda.max_memory_reserved() / 1e9 if gpu else 0.0


def plain_step(config: Config, device: torch.device) -> Callable[[], float]:
    """The same network as a plain loop trains it: float32, torch's layout and optimizer."""
    network = network_of(config).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    batch = batch_of(config, config.train.batch_size, device)()
    image = batch["image"].contiguous()

    def step() -> float:
        optimizer.zero_grad()
        size = batch["label"].shape[1:]
        output = {
            key: functional.interpolate(one, size, mode="bilinear", align_corners=True)
            for key, one in network(image).items()
            if key in ("logits", "depth")
        }
        loss = functional.cross_entropy(output["logits"], batch["label"], ignore_index=plain.VOID)
        if "depth" in output:
            error = (output["depth"] - batch["depth"]).abs() * batch["depth_valid"]
            loss = loss + 0.1 * error.sum() / batch["depth_valid"].sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def recipe_row(path: Path, small: bool) -> str:
    """A row of the table of recipes."""
    config, card = configure(path, small), this_card()
    batch, first = config.train.batch_size, config.compute.accumulate
    rate = memory = usual = usual_memory = None
    for parts in [n for n in range(first, batch // 2 + 1) if batch % n == 0]:
        config = configure(path, small, f"compute.accumulate={parts}")
        with unless_full():
            rate, memory = pace(ours_step(config, pick_device()), batch, small)
            break
    device = pick_device()
    with unless_full():
        torch.backends.cudnn.benchmark = False  # Torch's default; pick_device sets it.
        usual, usual_memory = pace(plain_step(config, device), batch, small)
    cells = [path.stem, batch, config.compute.accumulate, rate or FULL, usual or FULL]
    share, estimated = expected(config, card, rate)
    cells += [rate / usual if rate and usual else "", share, memory, estimated, usual_memory]
    texts = [f"{one:.3g}" if isinstance(one, float) else str(one or "") for one in cells]
    return f"| {' | '.join(texts)} |"


def expected(config: Config, card: Card | None, rate: float | None) -> tuple[str, str]:
    """The share of the card's peak at so many images a second, and the GB that plan.py expects."""
    if card is None:
        return "", ""
    work = TRAINING_PASSES * forward_operations(counted_part(config), config.training_size)
    share = f"{rate * work / card.peak(config.compute.precision):.0%}" if rate else ""
    return share, f"{(make_plan(config, card).training_bytes - card.base) / 1e9:.1f}"


@contextmanager
def unless_full() -> Iterator[None]:
    """A block that ends quietly when the memory is full, and begins with all of it."""
    gc.collect()
    free_memory(pick_device())
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise


def five_folds(small: bool) -> str:
    """Exp060's five folds with flip, from files to a submission, and the same in a plain loop.

    Ours takes all GPUs, the plain loop one. Loading the networks is told apart from the images, by
    two numbers of them.
    """
    encoder, size = ("tu-test_resnet", (64, 96)) if small else ("resnet101", (480, 640))
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_networks(work, encoder, size)
        contenders = [(ours, {}), (plain, {"device": pick_device()})]
        # The first time everything is begun, too, which is not counted.
        for copies in (1, 2) if small else (1, 1, 8):
            multiply(work / "data/test", copies)
            counts.append(len(list((work / "data/test/image").iterdir())))
            for contender, more in contenders:
                started = time.perf_counter()
                contender.infer(work / "data", work, encoder, size, **more)
                seconds[contender.__name__].append(time.perf_counter() - started)
    counts = counts[-2:]
    taken = {name: times[-2:] for name, times in seconds.items()}
    each = {name: (two - one) / (counts[1] - counts[0]) for name, (one, two) in taken.items()}
    all_of_it = (654 - counts[1]) * each["ours"] + taken["ours"][1]
    return (
        f"\n* five folds + flip, from files to a verified submission, {counts[0]} and {counts[1]} "
        f"images: {each['ours']:.3f} s for each more on {max(1, torch.cuda.device_count())} "
        f"device(s), a plain loop {each['plain']:.3f} on one; 654 images: {all_of_it / 60:.1f} "
        "minutes with loading"
    )


def write_networks(work: Path, encoder: str, size: tuple[int, int]) -> None:
    """Data, and for both contenders five networks with the same random weights, settled."""
    ours.write_data(work / "data", size)
    plain.prepare(work, encoder)
    for path in sorted((work / "plain" / encoder).glob("*.pth")):
        network = plain.PlainNet(encoder)
        network.load_state_dict(torch.load(path, weights_only=True))
        torch.save(settled(network).state_dict(), path)
    ours.write_folds(work / "data", work, encoder, size, settled)


def multiply(folder: Path, copies: int) -> None:
    """Put copies of each frame of a folder beside it, with ids of their own."""
    for path in sorted(folder.glob("*/*.png")):
        for number in range(1, copies):
            copyfile(path, path.with_name(f"{path.stem}c{number}.png"))
