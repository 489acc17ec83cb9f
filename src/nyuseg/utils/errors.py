"""The one exception that is meant for the user, and how memory that is full is told."""

# Classes of torch and Python, by name: what needs no torch does not import it.
FULL_CLASSES = ("OutOfMemoryError", "MemoryError")
# What the processor's allocator, cuBLAS, cuDNN (which then finds no way to compute) and CUDA say.
FULL_WORDS = (
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute",
    "CUDA error: out of memory",
)


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    Entry scripts print it without a traceback and exit with code 1.
    """


def first_line(error: Exception) -> str:
    """The first line of what a library's error says; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether it failed for lack of memory.

    Torch's allocator on a processor has no class of its own for that, and the libraries of a GPU
    say it in their own words.
    """
    return type(error).__name__ in FULL_CLASSES or any(words in str(error) for words in FULL_WORDS)
