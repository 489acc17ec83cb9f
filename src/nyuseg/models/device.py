"""Where and in which precision to compute."""

import ctypes
import platform
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import torch

from nyuseg.utils.errors import UserError, first_line
from nyuseg.utils.files import CLONE

Network = TypeVar("Network", bound=torch.nn.Module)

LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "albumentations", "ttach", "numpy")

# Batches that a processor predicts side by side, at most: each takes some 0.2 GB for Exp060.
STREAMS = 4


def pick_devices() -> list[torch.device]:
    """Every GPU; without one the processor, once for each batch that it predicts side by side.

    Cores that have a batch each never wait for one another. Sets torch up for the devices. Raises
    UserError for a GPU that is there and cannot be used.
    """
    torch.backends.cudnn.benchmark = True  # Every batch has the same shape.
    if count := gpu_count():
        return [torch.device("cuda", index) for index in range(count)]
    _keep_freed_memory()
    return [torch.device("cpu")] * min(STREAMS, torch.get_num_threads())


def gpu_count() -> int:
    """How many GPUs there are. Raises UserError for one that cannot be used."""
    count = torch.cuda.device_count()
    if count and (fault := gpu_fault()):
        raise UserError(
            f"GPU: {fault}; install a torch that fits it (pytorch.org), or hide it to use the "
            "processor: export CUDA_VISIBLE_DEVICES="
        )
    return count


@cache
def gpu_fault() -> str | None:
    """Why this torch cannot compute on one of the GPUs that are there; None when it can on all."""
    if not torch.cuda.is_available():  # Only the driver's own library counted it.
        return f"its driver is too old for torch {torch.__version__}, or broken"
    for index in range(torch.cuda.device_count()):
        if not _has_code(torch.cuda.get_arch_list(), torch.cuda.get_device_capability(index)):
            name = torch.cuda.get_device_name(index)
            return f"torch {torch.__version__} has no code for {name} (GPU {index})"
    return None


def _has_code(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether code for some of `architectures`, such as sm_86 and compute_90, runs on a GPU.

    Machine code (sm) runs on its own major version from its own minor one on; what is compiled when
    it is loaded (compute), on all later ones. See NVIDIA's CUDA C++ Programming Guide, 'Application
    Compatibility'. True where none of NVIDIA's is among them.
    """
    known = [re.match(r"(sm|compute)_(\d+)(\d)", name) for name in architectures]
    found = [(match[1], (int(match[2]), int(match[3]))) for match in known if match]
    return not found or any(
        version <= capability and (kind == "compute" or version[0] == capability[0])
        for kind, version in found
    )


def pick_device() -> torch.device:
    """The first of pick_devices."""
    return pick_devices()[0]


def require_compiler(device: torch.device) -> None:
    """Raise UserError when torch.compile does not work here, found out on the smallest function.

    It needs a C++ compiler for a processor, Triton and a C compiler for a GPU.
    """
    needs = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler, such as g++"
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except Exception as error:  # Of dynamo, inductor, Triton or the compiler itself.
        reason = f"{first_line(error):.120}"
        raise UserError(
            f"compute.compile: torch cannot compile on this machine ({reason}); install "
            f"{needs}, or --set compute.compile=false"
        ) from None
    finally:
        torch.compiler.reset()


def _keep_freed_memory() -> None:
    """Make the C library keep large blocks that are freed, for the next network layer.

    By default it returns each to the system and asks for it again, which then clears every page:
    a tenth of a training step. The numbers are those of glibc's malloc.h; elsewhere nothing is
    done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    library = ctypes.CDLL(None)
    library.mallopt(mmap_max, 0)  # Large blocks come from the heap,
    library.mallopt(trim_threshold, 2**31 - 1)  # which does not shrink below this,
    library.mallopt(arena_max, 1)  # and is the same for all threads.


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The dtype of matrix products: float32, or with `auto` the fast one of this device.

    bfloat16 on GPUs from Ampere on and on processors with native bfloat16; float16 on older GPUs
    (training then needs a loss scaler); float32 elsewhere.
    """
    if precision == "fp32":
        return torch.float32
    if device.type == "cuda":
        ampere = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if ampere else torch.float16
    # No public question tells native bfloat16 from emulated, which is slower than float32.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for a `with` block; does nothing when the dtype is float32."""
    dtype = autocast_dtype(device, precision)
    enabled = dtype != torch.float32
    # torch accepts no float32 autocast, so a disabled one names bfloat16.
    return torch.autocast(device.type, dtype if enabled else torch.bfloat16, enabled=enabled)


def free_memory(device: torch.device) -> None:
    """Give back what torch, or on a processor the C library, keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def to_device(model: Network, device: torch.device) -> Network:
    """Move a network to a device, with its filters laid out as convolutions like them best."""
    return model.to(device).to(memory_format=torch.channels_last)


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions, device, threads, precision and the code's commit, for the record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "device": f"{device.type} ({name}), {torch.get_num_threads()} CPU threads",
        **_commit(),
        "precision": str(autocast_dtype(device, precision)).removeprefix("torch."),
        **{library: _version(library) for library in LIBRARIES},
    }


def _version(library: str) -> str | None:
    """None for one that is not installed: prediction alone does not need all."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _commit() -> dict[str, Any]:
    """The git commit of this code and whether the work tree has no other change; None unknown."""
    if CLONE is None:
        return {"commit": None, "clean": None}

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(CLONE), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # No git, or a copy without history.
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "clean": None if changes is None else not changes}
