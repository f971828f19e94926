"""Fallow: a decentralized compute network for AI.

    import fallow

    with fallow.connect() as net:
        job = net.train("my-model/", "notes.txt", budget="2", workers=4)
        job.wait()
        job.save("tuned/")

`connect` and `aconnect` speak to the node of a home folder, which `fallow up` starts. Importing this package loads
nothing of it until a name is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` would be half of the cost of importing this
if TYPE_CHECKING:
    from typing import Any

    from fallow import errors
    from fallow.errors import FallowError, InternalError, PeerFault, RejectedError, UnavailableError, UsageError
    from fallow.sdk.blocking import Fallow, Job
    from fallow.sdk.blocking import Fallow as connect
    from fallow.sdk.client import AsyncFallow
    from fallow.sdk.client import AsyncFallow as aconnect
    from fallow.sdk.jobs import AsyncJob

__version__ = "0.1.0"

_WHERE = {
    "connect": ("fallow.sdk.blocking", "Fallow"),
    "aconnect": ("fallow.sdk.client", "AsyncFallow"),
    "Fallow": ("fallow.sdk.blocking", "Fallow"),
    "AsyncFallow": ("fallow.sdk.client", "AsyncFallow"),
    "Job": ("fallow.sdk.blocking", "Job"),
    "AsyncJob": ("fallow.sdk.jobs", "AsyncJob"),
    "errors": ("fallow.errors", ""),
    "FallowError": ("fallow.errors", "FallowError"),
    "UsageError": ("fallow.errors", "UsageError"),
    "RejectedError": ("fallow.errors", "RejectedError"),
    "PeerFault": ("fallow.errors", "PeerFault"),
    "UnavailableError": ("fallow.errors", "UnavailableError"),
    "InternalError": ("fallow.errors", "InternalError"),
}

__all__ = [
    "AsyncFallow", "AsyncJob", "Fallow", "FallowError", "InternalError", "Job", "PeerFault", "RejectedError",
    "UnavailableError", "UsageError", "aconnect", "connect", "errors",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _WHERE[name]
    except KeyError:
        raise AttributeError(f"module 'fallow' has no attribute {name!r}") from None
    from importlib import import_module

    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return sorted(__all__)
