"""What the machines of a simulated pool have around them: time, the network, who else is there, and who hears what
happens."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from fallow.adapters.keys import Identity
from fallow.node.config import Ticket
from fallow.rules.steward.events import Timing
from fallow.sim.chain import digest
from fallow.sim.disk import quick_folder
from fallow.sim.loop import VirtualLoop
from fallow.sim.plan import Plan
from fallow.sim.referee import Referee
from fallow.sim.weather import Weather
from fallow.units import Account, NodeId
from fallow.wire.documents import Document, Signed
from fallow.wire.eip712 import sign
from fallow.wire.messages import Claimed, LeaseEvent, NodeAddress

MANY = 900


@dataclass(frozen=True, slots=True)
class Watched(Identity):
    """An identity that shows what it signs before it does."""

    saw: Callable[[bytes, Document], None] = field(default=lambda _account, _document: None, repr=False)

    def sign(self, document: Document, bank: bytes) -> Signed:
        self.saw(self.account, document)
        return sign(document, self.account_secret, bank)


class Visitor(Protocol):
    """Somebody who takes no part: what it brought along, and how often it did what it does until the world ends."""

    name: str
    identity: Identity
    brought_ucr: int
    rounds: int

    async def live(self) -> None: ...


class World:
    """`shown` are the claims that honest providers have made, `claimed` who claimed which task; `hear` is told of the
    first. `invitation` is what machines join the pool with, once the bank has been up."""

    bank_account: Account

    def __init__(self, loop: VirtualLoop, seed: int, plan: Plan, timing: Timing) -> None:
        self.loop, self.seed, self.plan, self.timing = loop, seed, plan, timing
        self.folder = Path(tempfile.mkdtemp(prefix="fallow-sim-", dir=quick_folder()))
        self.lines: list[str] = []
        self.network = Weather(seed, plan)
        self.referee = Referee(lambda: int(loop.time() * 1_000), timing.lost_after)
        self.directories: tuple[NodeAddress, ...] = ()
        self.invitation: Ticket | None = None
        self.shown: list[Claimed] = []
        self.claimed: set[tuple[bytes, bytes]] = set()
        self.hear: Callable[[Claimed], None] = lambda _claim: None

    def identity(self, name: str) -> Watched:
        """The keys of a machine follow from its name, or its account's."""
        account = next((p.account for p in self.plan.providers if p.name == name), "") or name
        plain = Watched.from_secrets(digest("node", name), digest("account", account))
        found = Watched(
            NodeId(plain.node), Account(plain.account), plain.node_secret, plain.account_secret, self.referee.signing
        )  # fmt: skip
        self.referee.names |= {found.account: account, found.node: name}
        return found

    def invite(self, ticket: Ticket | None) -> None:
        """The bank is up: whoever starts from now on has its ticket at home, be the bank up or not. An invitation is
        good for a thousand, who all have accounts already."""
        if ticket is not None and len(self.plan.providers) >= MANY:
            ticket = msgspec.structs.replace(ticket, token="")
        self.invitation = ticket

    def note(self, line: str) -> None:
        """Something happened; part of the trace."""
        text = f"{int(self.loop.time() * 1_000):>8} {line}"
        self.lines.append(text)
        self.network.trace.update(text.encode())

    def telling(self, account: bytes, event: LeaseEvent, *, honest: bool) -> None:
        """A provider tells its requester something."""
        if isinstance(event.body, Claimed):
            self.claimed.add((account, event.body.task))
            if honest:
                self.shown.append(event.body)
                self.referee.claiming(account, event.body)
                self.hear(event.body)

    def fell_over(self, name: str, error: BaseException) -> None:
        """A node ended by itself."""
        last = "".join(traceback.format_exception(error)[-3:])
        self.referee.wrong(f"the node of {name} ended: {error!r}: {last}")
