"""Batches of frames, read by processes that live as long as their loader."""

import shutil
import signal
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from nyuseg.dataloading.dataset import FrameSet
from nyuseg.dataloading.inputs import Sample
from nyuseg.utils.cores import beside, cores
from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import leave_to_parent, shielded, stop_if_asked

# Where Linux keeps the memory that processes share; a container has 64 MB of it by default.
SHARED = Path("/dev/shm")
# Batches that each process reads ahead, and the part of the room that is taken for them: other
# runs read beside this one.
AHEAD, PART = 2, 0.5


def make_loader(
    frames: FrameSet, batch_size: int, workers: int | None, device: torch.device, **more: Any
) -> DataLoader[Sample]:
    """Batches of a set as dicts, see collate; `workers` as in sections.Compute, `more` for torch.

    With too little shared memory there are fewer workers, or none, and a line says so.
    """
    gpu = device.type == "cuda"
    if workers is None:
        workers = min(8, max(1, cores() // beside())) if gpu else 0
    workers = _that_fit(workers, batch_size * frames.sample_bytes)
    if "batch_sampler" not in more:
        more["batch_size"] = batch_size
    return DataLoader(
        frames,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=gpu,
        persistent_workers=workers > 0,  # Where they are not forked, they take seconds to start.
        prefetch_factor=AHEAD if workers else None,
        # Not from torch's own stream: a loader draws where it starts workers, not in each epoch.
        generator=torch.Generator(),
        **more,
    )


def _that_fit(workers: int, batch_bytes: int) -> int:
    if not workers or not SHARED.is_dir():
        return workers
    free = shutil.disk_usage(SHARED).free
    fitting = min(workers, int(free * PART / beside() / (AHEAD * batch_bytes)))
    if fitting < workers:
        print(
            f"{SHARED}: {free / 1e6:.0f} MB of shared memory are free, enough for {fitting} of "
            f"{workers} reading processes{'' if fitting else ', so the main process reads'}; "
            "a container gets more by --shm-size=2g",
            flush=True,
        )
    return fitting


def iterate(loader: DataLoader[Sample]) -> Iterator[Sample]:
    """The batches of a loader. Raises UserError, naming the frames, when a worker dies or fails.

    What a worker's own UserError says comes with its traceback around it.
    """
    try:
        yield from _begin(loader)
    except (RuntimeError, OSError, EOFError) as error:
        text = str(error)
        if "shared memory" in text:
            raise UserError(
                f"{SHARED}: no room for a batch; use --set compute.workers=0, or give the "
                "container more by --shm-size=2g"
            ) from None
        if not loader.num_workers or not _is_death(error):
            raise
        for worker in active_children():  # Others may wait for ever for what it held.
            worker.kill()
            worker.join()
        stop_if_asked()  # The signal may have been sent to the workers, too.
        raise UserError(
            f"a DataLoader worker died ({' '.join(text.split()).strip('. ') or 'no word'}), while "
            f"reading {_being_read(loader)}; with too little memory, use --set compute.workers=0"
        ) from None


def _is_death(error: Exception) -> bool:
    """Whether a worker is gone, which breaks the connection when it was handing over a batch."""
    if str(error).startswith("Caught "):  # It lives, and tells its own error.
        return False
    gone = isinstance(error, ConnectionError | EOFError | FileNotFoundError)
    # The thread that pins the batches for a GPU ends with the worker that it reads from.
    return gone or any(text in str(error) for text in ("DataLoader worker", "Pin memory thread"))


def _begin(loader: DataLoader[Sample]) -> Iterator[Sample]:
    if not loader.num_workers:
        return iter(loader)
    with shielded():
        batches = iter(loader)
    # torch's handler would raise wherever Python happens to be. Waiting for a batch, it looks after
    # its workers every five seconds as well, and that is a place to raise.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return batches


def _being_read(loader: DataLoader[Sample]) -> str:
    frames = cast(FrameSet, loader.dataset)
    reading = ", ".join(
        sorted({note.value.decode(errors="ignore") for note in frames.reading} - {""})
    )
    return f"{reading} of {frames.source.root / frames.source.split}"


def _start_worker(_: int) -> None:
    leave_to_parent()
    cv2.setNumThreads(0)  # The workers share the cores; OpenCV would start threads in each.


def collate(samples: list[Sample]) -> Sample:
    """Stack the arrays of samples as tensors, uint16 by its bits as int16; list the rest.

    torch knows few operations on uint16; inputs turns the bits into numbers again.
    """
    batch: Sample = {key: [sample[key] for sample in samples] for key in samples[0]}
    for key, values in batch.items():
        if isinstance(values[0], np.ndarray):
            stacked = np.stack(values)
            bits = stacked.view(np.int16) if stacked.dtype == np.uint16 else stacked
            batch[key] = torch.from_numpy(bits)
            if get_worker_info():
                # Here a lack of room is an error; in the thread that sends, it loses the batch.
                batch[key].share_memory_()
    return batch
