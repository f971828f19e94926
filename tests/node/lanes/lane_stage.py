"""Providers whose lanes a test plays, and a steward's lanes that ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.node.provider.provider_net import Pool, open_pool
from tests.node.steward.steward_net import Rogue, Told, rogue

from fallow.errors import fail
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.node.api_keys import ApiKeys
from fallow.node.lanes import leg
from fallow.node.lanes.lane import Lanes
from fallow.node.lanes.session import serve_lanes
from fallow.node.local_socket import local_socket
from fallow.node.router import Caller, Router
from fallow.node.services import Services
from fallow.rules.steward import events as t
from fallow.sdk.home import socket_path
from fallow.sdk.link import NodeSocket
from fallow.wire.claims import lane_leaf, merkle_root, params_hash, setting_hash, value_hash
from fallow.wire.codec import decode, encode
from fallow.wire.documents import ClaimRoot, Lease, Signed
from fallow.wire.eip712 import hash_document
from fallow.wire.local import LaneJob, ServeJob
from fallow.wire.messages import LaneItem, LaneReady, LaneResult, LaneStop, LaneTask, Message, OpenLane
from fallow.wire.tasks import LaneSetting

JOB = b"j" * 32
WORDS = [f"{n} " for n in range(9, -1, -1)]
SERVE = ServeJob("countdown", b"m" * 32, b"", 1, 512)
ECHO = LaneJob("echo", 1)
Answer = Callable[["Player", LaneTask], AsyncIterator[Message]]


async def echo(_player: Player, task: LaneTask) -> AsyncIterator[Message]:
    yield LaneResult(task.number, task.params, 1)


async def countdown(player: Player, task: LaneTask) -> AsyncIterator[Message]:
    """A made-up model: counts down from where `resume` stands; dies after `player.dies_after` words."""
    asked = decode(Generate, task.params)
    words = WORDS[len(asked.resume.split()) :][: asked.max_tokens]
    for count, word in enumerate(words):
        if count == player.dies_after:
            player.dies_after = -1
            raise fail("E1801", "the provider is killed here")
        if task.stream:
            yield LaneItem(task.number, word.encode())
    read = 7 + len(asked.resume.split())
    finish = "length" if len(words) == asked.max_tokens else "stop"
    value = GenerateValue("".join(words), finish, read, len(words))
    yield LaneResult(task.number, encode(value), read + len(words))


@dataclass
class Player:
    """A provider's end of one lane. `say` sends something unasked; with `hold` set tasks are noted and not answered."""

    node: Rogue
    lease: bytes
    plan: t.PrepareLane
    answer: Answer = echo
    dies_after: int = -1
    hold: bool = False
    refuse: str = ""
    opened: int = 0
    setting: bytes = b""
    asked: list[LaneTask] = field(default_factory=list)
    answered: list[tuple[LaneTask, LaneResult]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    unasked: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        @self.node.router.stream(OpenLane)
        async def _(_caller: Caller, request: OpenLane, inputs: AsyncIterator[Message]) -> AsyncIterator[Message]:
            self.opened += 1
            kind = self.plan.work.workload
            opened = LaneSetting(kind, request.inputs, request.context_tokens, request.exact)
            self.setting = setting_hash(opened)
            if self.refuse:
                raise fail(self.refuse, "no")
            yield LaneReady(1, 512)
            async for message in inputs:
                if isinstance(message, LaneStop):
                    self.stopped.append(message.number)
                    continue
                assert isinstance(message, LaneTask)
                self.asked.append(message)
                if self.hold:
                    continue
                async for said in self.answer(self, message):
                    if isinstance(said, LaneResult):
                        self.answered.append((message, said))
                    yield said
                while not self.unasked.empty():
                    yield self.unasked.get_nowait()

    def leaf(self, task: LaneTask, result: LaneResult) -> bytes:
        params, value = params_hash(task.params), value_hash(result.value)
        return lane_leaf(task.number, params, task.seed, value, result.units, self.setting)

    def root(self, pairs: list[tuple[LaneTask, LaneResult]] | None = None, sequence: int = 1) -> ClaimRoot:
        """A root over what was answered, or over `pairs`."""
        pairs = self.answered if pairs is None else pairs
        leaves = [self.leaf(task, result) for task, result in pairs]
        return ClaimRoot(self.lease, sequence, merkle_root(leaves), len(pairs), sum(r.units for _, r in pairs))

    def sign(self, root: ClaimRoot, bank: bytes) -> tuple[Signed, bytes]:
        return self.node.services.identity.sign(root, bank), hash_document(root, bank)


@dataclass
class Facts:
    """What lanes ask of the steward's state."""

    us: Services
    players: dict[bytes, Player] = field(default_factory=dict)
    room: dict[bytes, int] = field(default_factory=dict)
    kind: str = "echo"

    def job_of(self, lease: bytes) -> bytes | None:
        return JOB if lease in self.players else None

    def kind_of(self, job: bytes) -> str:
        return self.kind

    def room_units(self, lease: bytes) -> int:
        return self.room.get(lease, 1_000_000)

    def signed_lease(self, lease: bytes) -> Signed | None:
        player = self.players[lease]
        me, them = self.us.identity, player.node.services.identity
        terms = Lease(
            b"o" * 32, b"q" * 32, me.account, them.account, me.node, them.node, self.kind, 1, 1, 1, 1, 1,
            self.us.bank_account,
        )  # fmt: skip
        return them.sign(terms, self.us.bank_account)


@dataclass
class LaneStage:
    """The lanes of Sam's steward, their providers, and a door for clients."""

    pool: Pool
    us: Services
    lanes: Lanes
    keys: ApiKeys
    facts: Facts
    told: Told
    link: NodeSocket

    async def player(self, name: str, work: Any = ECHO, answer: Answer = echo, **how: Any) -> Player:
        """Another provider, whose lane is not prepared yet."""
        node = await rogue(self.pool, name)
        lease = name.encode().ljust(32, b".")
        plan = t.PrepareLane(lease, node.services.rpc.address(), work)
        self.facts.players[lease] = made = Player(node, lease, plan, answer, **how)
        self.facts.kind = "generate" if isinstance(work, ServeJob) else "echo"
        return made

    async def ready(self, player: Player) -> Player:
        """Prepare the lane and wait until the brain hears that it is ready."""
        before = sum(isinstance(event, t.LaneLoaded) for event in self.told.events)
        self.lanes.prepare(player.plan)
        await self.told.wait(t.LaneLoaded, before + 1)
        return player

    async def claim(self, player: Player, root: ClaimRoot, first: int = 1, sequence: int = 1) -> None:
        """Let a claim come in, as the watch of the lease would."""
        signed, digest = player.sign(root, self.us.bank_account)
        await self.lanes.claimed(player.lease, sequence, signed, digest, root, first)


@asynccontextmanager
async def lane_stage(folder: Path) -> AsyncGenerator[LaneStage]:
    async with open_pool(folder) as pool:
        us, owner, told = await pool.services("sam", Router()), Router(), Told()
        facts = Facts(us)
        lanes = Lanes(us, told, facts)
        pool.spawn(lanes.run())
        keys = ApiKeys(us.log, us.clock, us.entropy)
        serve_lanes(owner, lanes, keys, lambda job: None)
        async with local_socket(us.home, owner):
            await asyncio.sleep(0)
            yield LaneStage(pool, us, lanes, keys, facts, told, NodeSocket(socket_path(us.home)))


def generate(max_tokens: int = 10, resume: str = "") -> bytes:
    return encode(Generate((), "count down", max_tokens, resume=resume))


def impatient(monkeypatch: Any) -> None:
    """No test waits for a second chance longer than it must."""
    monkeypatch.setattr(leg, "LOAD_RETRY_S", 0.01)
