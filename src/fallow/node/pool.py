"""A node's pool: founding one (bank, directory), and joining one (an account at its bank)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from fallow.errors import FallowError
from fallow.node.bank import Bank, BankPolicy
from fallow.node.config import Ticket, save_ticket
from fallow.node.directory import Directory
from fallow.node.own_machine import OwnMachine
from fallow.node.router import Router
from fallow.node.rulings import Rulings
from fallow.node.services import Services
from fallow.ports import Ledger, Patience
from fallow.units import parse_money
from fallow.wire.messages import NodeAddress

AS_LONG_AS_IT_TAKES = Patience(math.inf, 5.0, first_wait_s=0.5, most_wait_s=5.0)

CONFIRM_S = 2.0


class Pool:
    """What ties one node to its pool. `books` opens those of a bank, and whoever gave it closes them."""

    def __init__(
        self, services: Services, directories: tuple[NodeAddress, ...], books: Callable[[BankPolicy], Ledger]
    ) -> None:
        self._s, self._directories, self._books = services, directories, books
        self._bank: Bank | None = None

    def open_bank(self, router: Router) -> Rulings:
        """Keep the books of a pool here; -> who rules on its appeals. Raises UnavailableError E1305 or UsageError E1306
        for books that cannot be used."""
        config = self._s.config
        policy = BankPolicy(welcome_ucr=parse_money(config.welcome), invited_only=not config.open_to_all)
        books = self._books(policy)
        self._bank = Bank(books, self._s.identity, self._s.clock)
        self._bank.register(router)
        return Rulings(self._s, books, OwnMachine(self._s))

    def open_directory(self, router: Router) -> None:
        """List offers here."""
        Directory(self._s.clock, self._stake).register(router)
        here = self._s.rpc.address()
        if here.node not in [one.node for one in self._directories]:
            self._directories = (here, *self._directories)

    async def _stake(self, account: bytes) -> int:
        """What stands behind an offer, as the bank knows it; 0 when it does not say so in time."""
        if self._s.ticket is None:
            return 0
        try:
            async with asyncio.timeout(CONFIRM_S):
                balance = await self._s.settlement().balance(account)
        except (FallowError, TimeoutError):
            return 0
        return balance.staked_ucr - balance.unbonding_ucr

    async def join(self) -> None:
        """Know the pool's bank and directories, and have an account there; waits for a bank that is not up yet. A node
        without a pool (a directory alone) does nothing. Raises RejectedError E1304 when the bank does not take it."""
        if self._bank is not None:
            token = await self._bank.new_token(uses=self._s.config.ticket_uses)
            me = self._s.identity
            if self._s.ticket is None:
                await self._bank.endow(parse_money(self._s.config.purse))
            self._s.ticket = Ticket(self._s.rpc.address(), me.account, self._directories, token)
            save_ticket(self._s.home, self._s.ticket)
        if self._s.ticket is None:
            return
        self._s.directories[:] = self._s.ticket.directories or self._directories
        certificate = self._s.identity.certificate(self._s.clock.now_ms())
        token = "" if self._bank is not None else self._s.ticket.token  # a founder has its purse
        await self._s.settlement(AS_LONG_AS_IT_TAKES).open_account(certificate, token)
