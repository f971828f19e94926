"""Tasks in a group that may be going down, as they do when a call comes in while the node shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fallow.errors import fail

T = TypeVar("T")


def begin(group: asyncio.TaskGroup | None, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
    """Run `work` in the group. Raises UnavailableError E1801, and drops the work, when the group takes no more; None is
    one that has gone."""
    with suppress(RuntimeError):  # all that a group has to say of it
        if group is not None:
            return group.create_task(work, name=name or None)
    work.close()
    raise fail("E1801", "This node is shutting down.")
