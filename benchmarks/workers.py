"""Contenders of the benchmark in processes of their own, which play rounds on command.

This module stays light, and so does the process that imports it to give the commands: Linux
counts the peak memory of a parent towards that of the processes it starts.
"""

import hashlib
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "albumentations", "numpy")
Play = Callable[[int], float]


@dataclass(frozen=True)
class Job:
    """What a contender is to do: `kind` is a key of KINDS; the rest is handed to plain or ours.

    data: the demo rooms. work: the folder for weights and results. size: height and width.
    batch_size: images in a training step.
    """

    kind: str
    data: Path
    work: Path
    encoder: str
    size: tuple[int, int]
    batch_size: int = 2

    @property
    def place(self) -> tuple[Path, Path, str, tuple[int, int]]:
        """The arguments that all functions of a contender begin with."""
        return self.data, self.work, self.encoder, self.size


def cores() -> int:
    """The processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def start(name: str) -> Any:
    """Import a contender, plain or ours, and give it all cores."""
    contender = import_module(name)
    import_module("torch").set_num_threads(cores())
    return contender


def peak_megabytes() -> float:
    """The most memory that this process has held at once.

    Linux also counts, in getrusage, what the process held that started it; not in /proc.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def call(name: str, function: str, *arguments: Any) -> Any:
    """Run one function of a contender in a fresh process and return its result."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_call, name, function, arguments).result()


def _call(name: str, function: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(start(name), function)(*arguments)


class Contender(AbstractContextManager["Contender"]):
    """A contender in its own process, which gets ready when made and plays rounds on command.

    Raises SystemExit when the process fails; its traceback is on stderr then.
    """

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.pipe, theirs = get_context("spawn").Pipe()
        self.process = get_context("spawn").Process(target=_serve, args=(theirs, name, job))
        self.process.start()
        theirs.close()  # So that the end of the process is the end of the pipe.

    def proof(self) -> str:
        """Wait until it is ready; returns what it must have in common with the other one."""
        return self._answer()

    def play(self, amount: int) -> float:
        """One round."""
        self.pipe.send(amount)
        return self._answer()

    def finish(self) -> float:
        """End the process; returns its peak memory in MB."""
        self.pipe.send(None)
        peak = self._answer()
        self.process.join()
        return peak

    def _answer(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.name}: failed, see above") from None

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, name: str, job: Job) -> None:
    play, proof = KINDS[job.kind](start(name), job)
    pipe.send(proof)
    while (amount := pipe.recv()) is not None:
        pipe.send(play(amount))
    pipe.send(peak_megabytes())


def training(contender: Any, job: Job) -> tuple[Play, str]:
    """Steps of the optimizer on one batch: seconds an image."""
    step = contender.training_step(*job.place, job.batch_size)

    def play(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - started) / (steps * job.batch_size)

    return play, ""


def samples(contender: Any, job: Job) -> tuple[Play, str]:
    """Training samples: how many in a second of processor time, over all cores."""
    make = contender.sampler(*job.place)

    def play(count: int) -> float:
        before = _processor_seconds()
        make(count)
        return count / (_processor_seconds() - before)

    return play, ""


def _processor_seconds() -> float:
    """User and system time of this process and its children; finer than os.times."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def five_folds(contender: Any, job: Job) -> tuple[Play, str]:
    """Inference with five folds and two views, from files to the CSV file: seconds an image."""

    def play(count: int) -> float:
        images = many_images(job.data, job.work, count)
        started = time.perf_counter()
        path = contender.infer(images, *job.place[1:])
        seconds = time.perf_counter() - started
        lines = len(path.read_text().splitlines())
        if lines != 1 + 13 * count:
            raise ValueError(f"{path}: {lines} lines for {count} images")
        return seconds / count

    return play, ""


def encoding(contender: Any, job: Job) -> tuple[Play, str]:
    """Run-length texts of the test rooms' labels: masks a second. The texts are the proof."""
    import cv2

    paths = sorted((job.data / "test_label").glob("*.png"))
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]
    texts = "\n".join(text for mask in masks for text in contender.encode(mask))

    def play(rounds: int) -> float:
        started = time.perf_counter()
        for _ in range(rounds):
            for mask in masks:
                contender.encode(mask)
        return rounds * len(masks) / (time.perf_counter() - started)

    return play, hashlib.sha256(texts.encode()).hexdigest()


KINDS = {"training": training, "data": samples, "inference": five_folds, "encoding": encoding}


def many_images(data: Path, work: Path, count: int) -> Path:
    """A data folder whose test/ has `count` images: the demo's own under new names, as links."""
    root = work / f"images_{data.name}_{count}"
    sources = sorted((data / "test/image").glob("*.png"))
    for kind in ("image", "depth"):
        folder = root / "test" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            source = data / "test" / kind / sources[i % len(sources)].name
            link = folder / f"{i:06d}.png"
            if not link.exists():
                link.hardlink_to(source)
    return root


def memory(job: Job, counts: tuple[int, ...]) -> list[dict[str, float]]:
    """Our inference of so many images with one fold; the peak is that of this process so far."""
    contender = start("ours")
    return [_memory(contender, job, count) for count in counts]


def _memory(contender: Any, job: Job, count: int) -> dict[str, float]:
    images = many_images(job.data, job.work, count)
    started = time.perf_counter()
    contender.infer_all_formats(images, *job.place[1:])
    seconds = time.perf_counter() - started
    # Listing this folder of what is open opens one more.
    open_files = len(list(Path("/dev/fd").iterdir())) - 1
    per_image = 1000 * seconds / count
    megabytes = peak_megabytes()
    return {"images": count, "mb": megabytes, "ms_an_image": per_image, "open_files": open_files}


def machine(job: Job) -> dict[str, Any]:
    """The processor and its peak; what our network needs and how fast it is without the rest."""
    ours = start("ours")
    dtype = ours.matrix_dtype()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    versions = {library: version(library) for library in LIBRARIES}
    return {
        "processor": name,
        "cores": cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {**versions, "opencv": import_module("cv2").__version__},
        "dtype": dtype,
        # bfloat16 only where it is native: it is not used elsewhere, and takes minutes emulated.
        "peak": {one: matrix_peak(one) for one in sorted({"float32", dtype})},
        "operations": ours.count_operations(job.encoder, job.size),
        "network_seconds": ours.network_seconds(job.encoder, job.size),
    }


def matrix_peak(dtype: str, side: int = 4096, repeats: int = 4) -> float:
    """Operations a second of a product of two square matrices, the best of several."""
    import torch

    factors = torch.rand(2, side, side).to(getattr(torch, dtype))
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        factors[0] @ factors[1]
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
