"""What all roles share, before and after a pool is joined."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tests.node.provider.provider_net import open_pool

from fallow.node.router import Router


async def test_a_node_knows_its_pool_by_its_ticket(tmp_path: Path) -> None:
    async with open_pool(tmp_path) as pool:
        services = await pool.services("sam", Router())
        assert services.bank == pool.ticket.bank
        assert services.bank_account == pool.ticket.bank_account
        alone = dataclasses.replace(services, ticket=None)
        for ask in ("bank", "bank_account"):
            with pytest.raises(AssertionError, match="no pool"):
                getattr(alone, ask)
