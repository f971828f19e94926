"""The memory of what is served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.gateway.steward_stub import Steward

from fallow.errors import FallowError
from fallow.gateway import models as models_module
from fallow.gateway.models import Models
from fallow.node.local_socket import local_socket
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket


class Watch:
    """A clock that the test sets."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return 0


async def test_a_request_does_not_wait_for_the_list_again_and_an_old_list_is_not_trusted(tmp_path: Path) -> None:
    steward, watch = Steward(tmp_path), Watch()
    async with asyncio.TaskGroup() as group:
        link = NodeSocket(socket_path(tmp_path))
        models = Models(link, watch, lambda work, name: group.create_task(work, name=name))  # type: ignore[arg-type]
        async with local_socket(tmp_path, steward.router()):
            assert (await models.find("countdown")).name == "countdown"
        watch.now_s = models_module.GOOD_S
        assert (await models.find("countdown")).name == "countdown"  # although nobody answers any more
        watch.now_s += 1
        with pytest.raises(FallowError, match="No node is running"):
            await models.find("countdown")
    steward.log.close()
