"""Several processes of one run: their group is ended before the program is."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist


@contextmanager
def group_ended() -> Iterator[None]:
    """End the process group that was begun inside.

    Left to Python's exit, a thread of it may still run then, and C++ aborts the process. All processes wait for each
    other first, as the first one holds what the others are connected to; after an error nobody is waited for.
    """
    try:
        yield
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
    finally:
        if dist.is_available() and dist.is_initialized():
            with suppress(RuntimeError):  # another process may be gone already
                dist.destroy_process_group()
