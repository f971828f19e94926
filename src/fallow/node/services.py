"""What every role of a node shares: who it is, and the doors to the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fallow.adapters.keys import Identity
from fallow.node.bank_client import BankClient
from fallow.node.blobs import Fetcher
from fallow.node.config import Config, Ticket
from fallow.node.rpc import Rpc
from fallow.ports import ONCE, Blobs, Clock, Entropy, EventLog, Machine, Patience, Runner, SettlementClient, Transport
from fallow.wire.messages import NodeAddress


@dataclass
class Services:
    """One node's identity, ports and neighbours. `directories` is a list that discovery may add to."""

    home: Path
    config: Config
    identity: Identity
    clock: Clock
    entropy: Entropy
    transport: Transport
    rpc: Rpc
    log: EventLog
    blobs: Blobs
    fetcher: Fetcher
    runner: Runner
    machine: Machine
    ticket: Ticket | None = None
    directories: list[NodeAddress] = field(default_factory=list[NodeAddress])

    def settlement(self, patience: Patience = ONCE) -> SettlementClient:
        """The client's side of money in the pool that this node belongs to."""
        return BankClient(self.rpc, self.bank, self.bank_account, self.clock, self.entropy, patience)

    @property
    def bank(self) -> NodeAddress:
        """The pool's bank. Only roles that need a pool ask, after they have joined one."""
        assert self.ticket is not None, "this node belongs to no pool"
        return self.ticket.bank

    @property
    def bank_account(self) -> bytes:
        """The account that the bank signs with, which is also the signing domain of all documents."""
        assert self.ticket is not None, "this node belongs to no pool"
        return self.ticket.bank_account
