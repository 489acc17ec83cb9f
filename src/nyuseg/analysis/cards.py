"""Devices to plan for: how much memory they have and how fast they are."""

import os
import time
from dataclasses import dataclass

import torch

from nyuseg.models.device import autocast_dtype
from nyuseg.utils.errors import UserError

# Share of the peak that a network gets. Training a ResNet50, NVIDIA reports 2470 images/s on an
# A100 and 1200 on a V100, a fifth and a quarter of what their tensor cores can do; without those
# 367, over half (DeepLearningExamples). Here ResNet101 has 0.7 of a processor's plain matrix
# products, an EfficientNet 0.45.
TENSOR_CORE_SHARE, PLAIN_SHARE = 0.2, 0.5
# Beside tensors: CUDA's context and libraries (an assumption); Python and its libraries (measured).
GPU_BASE, CPU_BASE = 0.6e9, 0.95e9


@dataclass(frozen=True)
class Card:
    """A device. memory: bytes that torch can have; half, single: operations a second of matrix
    products in 16 and 32 bits, at most; base: bytes that are taken before the first tensor;
    tensor_cores: whether it has units for matrix products in 16 bits."""

    name: str
    memory: float
    half: float
    single: float
    base: float = GPU_BASE
    tensor_cores: bool = True

    @property
    def gpu(self) -> bool:
        """Whether it is one."""
        return self.name != "cpu"

    def is_half(self, precision: str) -> bool:
        """Whether matrix products take 16 bits at this compute.precision."""
        if self.gpu:
            return precision == "auto"
        return autocast_dtype(torch.device("cpu"), precision) != torch.float32

    def peak(self, precision: str) -> float:
        """Operations a second, at most."""
        return self.half if self.is_half(precision) else self.single

    def share(self, precision: str) -> float:
        """The part of the peak that is counted on."""
        special = self.tensor_cores and self.is_half(precision)
        return TENSOR_CORE_SHARE if special else PLAIN_SHARE

    def speed(self, precision: str) -> float:
        """Operations a second that are counted on."""
        return self.share(precision) * self.peak(precision)


# name: GiB that torch reports, TFLOP/s in half precision (dense, added up in 32 bits) and in
# single, from NVIDIA's data sheets and architecture white papers. P100 and V100 with PCIe, H100 and
# H200 with SXM.
_GPUS = {
    "t4": (14.6, 65, 8.1),
    "p100": (15.9, 18.7, 9.3),
    "v100": (15.8, 112, 14),
    "l4": (22.0, 121, 30.3),
    "rtx3090": (23.6, 71, 35.6),
    "rtx4090": (23.6, 165, 82.6),
    "a100": (39.4, 312, 19.5),
    "a100-80": (79.2, 312, 19.5),
    "h100": (79.1, 989, 67),
    "h200": (139.8, 989, 67),
}


def find_card(name: str) -> Card:
    """A device by its name; `cpu` is this machine's processor, whose speed is measured now.

    Raises UserError for one that is not listed.
    """
    if name == "cpu":
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        half, single = (_matrix_speed(dtype) for dtype in (torch.bfloat16, torch.float32))
        return Card(name, memory, half, single, CPU_BASE, tensor_cores=False)
    if name not in _GPUS:
        raise UserError(f"--device {name}: expected {', '.join(_GPUS)} or cpu")
    memory_gib, half, single = _GPUS[name]
    cores = name != "p100"
    return Card(name, memory_gib * 2**30, half * 1e12, single * 1e12, tensor_cores=cores)


def _matrix_speed(dtype: torch.dtype, side: int = 1024, repeats: int = 4) -> float:
    """Operations a second of matrix products on this processor: the fastest of a few."""
    matrix = torch.ones(side, side, dtype=dtype)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)
