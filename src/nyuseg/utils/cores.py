"""The processor's cores, and among how many processes they are shared."""

import os


def cores() -> int:
    """How many cores this process may use, where the system tells; else how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def beside() -> int:
    """How many processes on this machine train side by side: whoever starts them says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
