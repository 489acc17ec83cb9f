"""What gpu_check.py checks and measures, each part by itself; `small` is for testing them."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import ours  # It puts src on the path, first.
import pandas as pd
import plain
import torch
from recipes import NATIVE, Noise
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
from nyuseg.models.device import free_memory, is_out_of_memory, pick_device
from nyuseg.models.network import MultiTaskNet, build_model
from nyuseg.models.normalisation import resolve_normalisation
from nyuseg.training import optimization
from nyuseg.training.optimization import TrainingStep

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
WARM_UP, SECONDS = 3, 8.0
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


def ours_step(config: Config, device: torch.device) -> Callable[[], torch.Tensor]:
    """A step of the optimizer, with the batch that the configuration says."""
    step = TrainingStep(network_of(config).train(), config.train, config.compute, device)
    batch = batch_of(config, config.train.batch_size, device)
    return lambda: step(batch())


# Checks


def step_agrees(small: bool) -> str:
    """Gradients of a float32 step on this device and on the processor."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
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


def gradients(config: Config, device: torch.device) -> list[torch.Tensor]:
    """Those of the first step, on the processor."""
    step = TrainingStep(network_of(config).train(), config.train, config.compute, device)
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
    device = pick_device()
    config = configure(EXP060, small, "compute.precision=fp32")
    ensemble = Ensemble([network_of(config)], config, device, tta=True)
    images = torch.rand(16, config.data.channel_count, *config.data.size)
    whole = ensemble(images)[0].cpu()
    if device.type == "cuda":
        one = torch.cuda.max_memory_allocated()
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.6 * one / total)
    else:
        ensemble.max_batch = 3
    parts = ensemble(images)[0].cpu()
    assert ensemble.max_batch < len(images), "the memory was not full: nothing was halved"
    assert torch.allclose(whole, parts, atol=1e-4), "the parts are not what the whole is"
    return f"* with too little memory {ensemble.max_batch} images at once, the same answer"


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
    count = 2 if small else torch.cuda.device_count()
    if count < 2:
        return "* data-parallel: one GPU here, nothing to share with"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours.write_data(work / "data", (96, 128))
        for name, processes in (("one", 1), ("all", count)):
            started = time.monotonic()
            subprocess.run(_training(work, name, processes), check=True, capture_output=True)
            metrics = pd.read_csv(work / f"oof/{name}/fold_0/metrics.csv")
            rows.append((float(metrics["train_loss"][0]), time.monotonic() - started))
    (one, _), (together, seconds) = rows
    difference = abs(one / together - 1)
    assert difference < 0.01, f"the loss of {count} processes differs by {difference:.1%}"
    what = f"* {count} processes train as one: the epoch's loss differs by"
    return f"{what} {difference:.1e} ({seconds:.0f} s)"


def _training(work: Path, name: str, processes: int) -> list[str]:
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
    found = [card for word, card in CARDS.items() if re.search(rf"\b{word}", name + " ")]
    return find_card(found[0]) if found else None


def pace(step: Callable[[], Any], images: int, small: bool) -> tuple[float, float]:
    """Images a second, and peak memory in GB: of tensors on the GPU, 0 without one."""
    gpu = torch.cuda.is_available()
    wait: Callable[[], Any] = torch.cuda.synchronize if gpu else lambda: None
    for _ in range(1 if small else WARM_UP):
        step()
    wait()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    count, started = 0, time.perf_counter()
    while count < (1 if small else 5) or time.perf_counter() - started < SECONDS * (not small):
        step()
        wait()  # Nothing of ours waits; a step's time would otherwise be that of asking for it.
        count += 1
    seconds = time.perf_counter() - started
    return count * images / seconds, torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0


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
    device, card = pick_device(), this_card()
    rate = memory = None
    for accumulate in (1, 2, 4, 8):
        config = configure(path, small, f"compute.accumulate={accumulate}")
        if config.train.batch_size % accumulate:
            continue
        with unless_full(device):
            rate, memory = pace(ours_step(config, device), config.train.batch_size, small)
            break
    usual = usual_memory = None
    with unless_full(device):
        usual, usual_memory = pace(plain_step(config, device), config.train.batch_size, small)
    share = estimated = ""
    if card and rate:
        work = TRAINING_PASSES * forward_operations(counted_part(config), config.training_size)
        share = f"{rate * work / card.peak(config.compute.precision):.0%}"
        estimated = f"{(make_plan(config, card).training_bytes - card.base) / 1e9:.1f}"
    full = "does not fit"
    return (
        f"| `{path.stem}` | {config.train.batch_size} | {config.compute.accumulate} "
        f"| {f'{rate:.2f}' if rate else full} | {f'{usual:.2f}' if usual else full} "
        f"| {f'{rate / usual:.1f}' if rate and usual else ''} | {share} "
        f"| {f'{memory:.1f}' if memory is not None else ''} | {estimated} "
        f"| {f'{usual_memory:.1f}' if usual_memory is not None else ''} |"
    )


@contextmanager
def unless_full(device: torch.device) -> Iterator[None]:
    """A block that ends quietly when the device's memory is full."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    free_memory(device)


def five_folds(small: bool) -> str:
    """Exp060's five folds with flip, from files to a submission, and the same in a plain loop."""
    encoder, size = ("tu-test_resnet", (64, 96)) if small else ("resnet101", (480, 640))
    times, copies = {}, 1 if small else 8
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours.prepare(work / "data", work, [encoder], size)
        plain.prepare(work, encoder)
        multiply(work / "data/test", copies)
        count = len(list((work / "data/test/image").iterdir()))
        for name, contender in (("ours", ours), ("plain", plain)):
            more = {"device": pick_device()} if contender is plain else {}
            contender.infer(work / "data", work, encoder, size, **more)  # Kernels are chosen once.
            started = time.perf_counter()
            contender.infer(work / "data", work, encoder, size, **more)
            times[name] = (time.perf_counter() - started) / count
    faster = times["plain"] / times["ours"]
    return (
        f"\n* five folds + flip, {count} images from files to a verified submission: "
        f"{times['ours']:.3f} s an image, a plain loop {times['plain']:.3f} ({faster:.1f} times); "
        f"654 images: {654 * times['ours'] / 60:.1f} minutes"
    )


def multiply(folder: Path, copies: int) -> None:
    """Put copies of each frame of a folder beside it, with ids of their own."""
    for path in sorted(folder.glob("*/*.png")):
        for number in range(1, copies):
            copyfile(path, path.with_name(f"{path.stem}c{number}.png"))
