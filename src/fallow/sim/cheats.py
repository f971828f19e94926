"""The gallery of cheats: what a dishonest provider does otherwise than an honest one. Each is a set of `Ways` around
the node's own code: in the place of its worker's answers, of what its peers are answered, or beside it. Whoever
cheats may run any code, but must speak the protocol to be paid."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec

from fallow.errors import FallowError, fail
from fallow.kinds.train.tasks import TrainParams, TrainRound
from fallow.node.services import Services
from fallow.rules.provider.state import LeaseEntry
from fallow.sim import chain
from fallow.sim.chain import digest
from fallow.sim.work import honest_output, lane_value, wrong_output
from fallow.wire import codec
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.documents import ClaimRoot, Document, Signed, Voucher
from fallow.wire.ledger import CloseEscrow, Redeem
from fallow.wire.messages import (
    AssignTask,
    BlobFound,
    BlobStat,
    Claimed,
    CloseLease,
    LaneClaimed,
    LeaseEvent,
    Message,
    Ok,
    OpenLane,
    PayVoucher,
    WatchLease,
)
from fallow.wire.tasks import Part, TaskOutput, TaskSpec

MISCHIEF_S = 2.0


class Body(Protocol):
    """The machine that a cheat has (`host.py`). `shown` are the claims that anybody has made so far."""

    @property
    def services(self) -> Services: ...

    @property
    def leases(self) -> Mapping[bytes, LeaseEntry]: ...

    @property
    def shown(self) -> Sequence[Claimed]: ...

    def sign_unseen(self, document: Document) -> Signed: ...


class Ways:
    """Those of an honest provider."""

    honest = True
    lane_units = 1
    """What an answer to a lane task is metered at."""
    ignored: tuple[type[Message], ...] = ()
    """Requests that are not answered at all."""
    instead: Mapping[type[Message], Message] = MappingProxyType({})
    """Answers that are given without doing anything."""

    def __init__(self, salt: object = "", rng: random.Random | None = None) -> None:
        self.salt, self.rng = salt, rng or random.Random(repr(salt))

    def seconds(self, spec: TaskSpec, honest_s: float) -> float:
        """How long the work takes."""
        return honest_s

    def output(self, spec: TaskSpec) -> TaskOutput:
        """What the worker gives."""
        return honest_output(spec)

    def lane(self, number: int, params: bytes, seed: int) -> bytes:
        """The answer to a lane task."""
        return lane_value(params, seed)

    def events(self, me: Body, event: LeaseEvent) -> Sequence[LeaseEvent]:
        """What is told of an event of a lease."""
        return (event,)

    async def mischief(self, me: Body) -> None:
        """Done every `MISCHIEF_S`."""


class Cheat(Ways):
    """Base of the dishonest."""

    honest = False


class WrongResult(Cheat):
    """Takes the money and gives noise of the right form."""

    def output(self, spec: TaskSpec) -> TaskOutput:
        return wrong_output(spec, self.salt)

    def lane(self, number: int, params: bytes, seed: int) -> bytes:
        return digest("lie", self.salt, params)


class Lazy(WrongResult):
    """Does not work at all, and is very fast at it; some of its answers are right by luck."""

    def seconds(self, spec: TaskSpec, honest_s: float) -> float:
        return 0.005

    def output(self, spec: TaskSpec) -> TaskOutput:
        return honest_output(spec) if self.rng.random() < 0.3 else super().output(spec)


class Replayer(Cheat):
    """Answers with the output of an earlier task."""

    old: TaskOutput | None = None

    def output(self, spec: TaskSpec) -> TaskOutput:
        self.old = self.old or honest_output(spec)
        return self.old


class Skip(Cheat):
    """Leaves out a tenth of its training steps, at least one, and claims that it took them."""

    def output(self, spec: TaskSpec) -> TaskOutput:
        params = _round_of(spec)
        if params is None:
            return honest_output(spec)
        steps = params.recipe.inner_steps
        return chain.committed(spec, params, skipped=set(self.rng.sample(range(steps), -(-steps // 10))))


class Flip(Cheat):
    """Alters one element of one gradient."""

    def output(self, spec: TaskSpec) -> TaskOutput:
        params = _round_of(spec)
        if params is None:
            return honest_output(spec)
        links = chain.cut_for(params.recipe, chain.PARAMETERS).links(params.recipe.inner_steps)
        return chain.committed(spec, params, flipped={self.rng.randrange(links)})


class FalseAlarm(Cheat):
    """Trains honestly, and says of others that they did not."""

    def output(self, spec: TaskSpec) -> TaskOutput:
        honest = honest_output(spec)
        return honest if honest.parts else wrong_output(spec, self.salt)


class Smart(WrongResult):
    """Honest until it is trusted."""

    done = 0

    def output(self, spec: TaskSpec) -> TaskOutput:
        self.done += 1
        return honest_output(spec) if self.done <= 3 else super().output(spec)

    def lane(self, number: int, params: bytes, seed: int) -> bytes:
        return lane_value(params, seed) if number <= 10 else super().lane(number, params, seed)


class Refuser(WrongResult):
    """Says of nearly every task that it could not be done, and lies on the rest."""

    def output(self, spec: TaskSpec) -> TaskOutput:
        if self.rng.random() < 0.98:
            raise fail("E1604", "The disk is full.")
        return super().output(spec)


class Glutton(Cheat):
    """Claims outputs larger than any disk."""

    def events(self, me: Body, event: LeaseEvent) -> Sequence[LeaseEvent]:
        if not isinstance(event.body, Claimed):
            return (event,)
        huge = Part("update", digest("huge", event.body.task), 1 << 45)
        return (_claim_of(me, event.body, event.body.task, TaskOutput(event.body.output.value, (huge,))),)


class Withholder(Cheat):
    """Claims, and hands out no blobs."""

    instead = MappingProxyType({BlobStat: BlobFound(None)})


class Silent(Cheat):
    """Takes tasks and mostly never answers."""

    def seconds(self, spec: TaskSpec, honest_s: float) -> float:
        return 1e9 if self.rng.random() < 0.7 else honest_s


class Vanisher(Cheat):
    """Bids, signs, and is never heard of again."""

    ignored = (AssignTask, WatchLease, CloseLease, PayVoucher, OpenLane)


class Hostage(Cheat):
    """Says that it closes the lease, and keeps the escrow locked."""

    instead = MappingProxyType({CloseLease: Ok()})


class Equivocator(Cheat):
    """Signs two answers with one number and shows both."""

    def events(self, me: Body, event: LeaseEvent) -> Sequence[LeaseEvent]:
        if not isinstance(event.body, Claimed):
            return (event,)
        return (event, _claim_of(me, event.body, event.body.task, TaskOutput(digest("two-faced", event.body.task), ())))


class Inventor(Cheat):
    """Claims work that it was never given, and what it was given over and over."""

    def __init__(self, salt: object = "", rng: random.Random | None = None) -> None:
        super().__init__(salt, rng)
        self.told: list[tuple[bytes, LeaseEvent]] = []

    def events(self, me: Body, event: LeaseEvent) -> Sequence[LeaseEvent]:
        body = event.body
        if isinstance(body, LaneClaimed):
            return (event, _unnumbered(event), _second_root(me, body))
        if not isinstance(body, Claimed):
            return (event,)
        lease = codec.decode(ClaimRoot, body.claim.body).lease
        others = [old for under, old in self.told if under == lease and isinstance(old.body, Claimed)][-2:]
        self.told.append((lease, event))
        invented = _claim_of(me, body, digest("invented", event.sequence), TaskOutput(b"nothing", ()))
        return (event, invented, *map(_unnumbered, others), _unnumbered(event))


class Overmeter(Cheat):
    """Runs the meter: claims more units than the task has."""

    lane_units = 5

    def events(self, me: Body, event: LeaseEvent) -> Sequence[LeaseEvent]:
        if not isinstance(event.body, Claimed):
            return (event,)
        root = codec.decode(ClaimRoot, event.body.claim.body)
        claim = me.sign_unseen(msgspec.structs.replace(root, units=root.units * 10 + 1))
        return (msgspec.structs.replace(event, body=msgspec.structs.replace(event.body, claim=claim)),)


class Copycat(Cheat):
    """Shows another provider's signed claim as its own."""

    def events(self, me: Body, event: LeaseEvent) -> Sequence[LeaseEvent]:
        if not isinstance(event.body, Claimed):
            return (event,)
        shown, task = me.shown, event.body.task
        copied = [claim for claim in shown if claim.task == task] or shown[-1:]
        bodies = [msgspec.structs.replace(claim, task=task) for claim in copied[:1]] or [event.body]
        return (msgspec.structs.replace(event, body=bodies[0]),)


class Forger(Cheat):
    """Brings vouchers to the bank that nobody signed, or that others were given, and closes early."""

    async def mischief(self, me: Body) -> None:
        for lease, entry in list(me.leases.items()):
            forged = me.sign_unseen(Voucher(lease, entry.document.cap_ucr))
            requests: list[Message] = [Redeem(forged)]
            if entry.voucher is not None:
                raised = Signed(forged.body, entry.voucher.signature)
                requests += [Redeem(raised), Redeem(entry.voucher), Redeem(entry.voucher)]
            if self.rng.random() < 0.05:
                requests.append(CloseEscrow(lease))
            for request in requests:
                try:
                    await me.services.rpc.call(me.services.bank, request, 2.0)
                except FallowError:
                    return


def _round_of(spec: TaskSpec) -> TrainRound | None:
    params = codec.decode(TrainParams, spec.params) if spec.kind == "train" else None
    return params if isinstance(params, TrainRound) and params.recipe.exact else None


def _unnumbered(event: LeaseEvent) -> LeaseEvent:
    """The same told again, as if it were new."""
    return msgspec.structs.replace(event, sequence=0)


def _claim_of(me: Body, claimed: Claimed, task: bytes, output: TaskOutput) -> LeaseEvent:
    """A well-signed claim of the same number over something else."""
    root = codec.decode(ClaimRoot, claimed.claim.body)
    tree = MerkleTree([task_leaf(task, output_hash(output), root.units)])
    claim = me.sign_unseen(msgspec.structs.replace(root, root=tree.root))
    return LeaseEvent(0, 0, msgspec.structs.replace(claimed, task=task, output=output, claim=claim))


def _second_root(me: Body, body: LaneClaimed) -> LeaseEvent:
    """Another signed claim, with another number, over the same answers of a lane."""
    root = codec.decode(ClaimRoot, body.claim.body)
    claim = me.sign_unseen(msgspec.structs.replace(root, sequence=root.sequence + 100_000))
    return LeaseEvent(0, 0, LaneClaimed(claim, body.first))


EXACT_ONLY = ("skip", "flip", "alarm")
GALLERY: dict[str, type[Cheat]] = {
    "lazy": Lazy, "wrong": WrongResult, "replay": Replayer, "smart": Smart, "withhold": Withholder, "silent": Silent,
    "vanish": Vanisher, "hostage": Hostage, "equivocate": Equivocator, "invent": Inventor, "overmeter": Overmeter,
    "copycat": Copycat, "forge": Forger, "skip": Skip, "flip": Flip, "alarm": FalseAlarm,
    "refuse": Refuser, "glut": Glutton,
}  # fmt: skip
"""By name. Those of EXACT_ONLY are honest at all work that is not committed to link by link. "sybil" (one account,
several nodes) and "collude" (two accounts, one lie) are several WrongResults with one salt."""
