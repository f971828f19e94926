"""The gallery of cheats: what a dishonest provider does differently from an honest one. Each is a set of `Ways` around
the same brain, since whoever cheats may run any code but must speak the protocol to be paid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from fallow.kinds.train.tasks import TrainParams, TrainRound
from fallow.rules.provider import events as t
from fallow.sim import chain
from fallow.sim.people import digest
from fallow.sim.work import wrong_output
from fallow.wire import codec
from fallow.wire.claims import MerkleTree, output_hash, task_leaf
from fallow.wire.documents import Signed, Voucher
from fallow.wire.ledger import CloseEscrow, Redeem
from fallow.wire.messages import (
    AssignTask,
    Claimed,
    CloseLease,
    LeaseBody,
    Message,
    Ok,
    OpenLane,
    PayVoucher,
    WatchLease,
)
from fallow.wire.tasks import TaskOutput, TaskSpec

if TYPE_CHECKING:
    from fallow.sim.provider import Provider


class Ways:
    """Those of an honest provider. `breaks` is the probability that a worker dies; an honest machine may break too."""

    honest = True
    closes = True
    breaks = 0.0

    def __init__(self, salt: object = "") -> None:
        self.salt = salt

    def answers(self, me: Provider, request: Message) -> bool:
        """Whether a request is heard."""
        return True

    def instead(self, request: Message) -> Message | None:
        """An answer that is given without doing anything."""
        return None

    def serves(self, blob: bytes) -> bool:
        """Whether a blob that is here is handed out."""
        return True

    def work_ms(self, worked_ms: int) -> int:
        """How long the work takes."""
        return worked_ms

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        """What the worker gives; None for nothing, ever."""
        return honest

    def claims(self, me: Provider, effect: t.SignClaim, honest: LeaseBody) -> Sequence[LeaseBody]:
        """What is told of a finished task."""
        return (honest,)

    def lane(self, number: int, honest: bytes) -> tuple[bytes, int]:
        """The answer to a lane task and its units."""
        return honest, 1

    def mischief(self, me: Provider) -> None:
        """Done every two seconds."""


class Cheat(Ways):
    """Base of the dishonest."""

    honest = False


class WrongResult(Cheat):
    """Takes the money and gives noise of the right form."""

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        return wrong_output(effect.spec, self.salt)

    def lane(self, number: int, honest: bytes) -> tuple[bytes, int]:
        return digest("lie", self.salt, honest), 1


class Lazy(WrongResult):
    """Does not work at all, and is very fast at it; some of its answers are right by luck."""

    def work_ms(self, worked_ms: int) -> int:
        return 5

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        return honest if me.world.chance(0.3) else wrong_output(effect.spec, self.salt)


class Replayer(Cheat):
    """Answers with the output of an earlier task."""

    old: TaskOutput | None = None

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        if self.old is None:
            self.old = honest
        return self.old


class Skip(Cheat):
    """Leaves out a tenth of its training steps, at least one, and claims that it took them."""

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        params = _round_of(effect.spec)
        if params is None:
            return honest
        steps = params.recipe.inner_steps
        skipped = me.world.rng.sample(range(steps), -(-steps // 10))
        return chain.committed(effect.spec, params, skipped=set(skipped))


class Flip(Cheat):
    """Alters one element of one gradient."""

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        params = _round_of(effect.spec)
        if params is None:
            return honest
        links = chain.cut_for(params.recipe, chain.PARAMETERS).links(params.recipe.inner_steps)
        return chain.committed(effect.spec, params, flipped={me.world.rng.randrange(links)})


class FalseAlarm(Cheat):
    """Trains honestly, and says of others that they did not."""

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        return honest if honest.parts else wrong_output(effect.spec, self.salt)


class Smart(WrongResult):
    """Honest until it is trusted."""

    done = 0

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        self.done += 1
        return honest if self.done <= 3 else wrong_output(effect.spec, self.salt)

    def lane(self, number: int, honest: bytes) -> tuple[bytes, int]:
        return (honest, 1) if number <= 10 else (digest("lie", self.salt, honest), 1)


class Withholder(Cheat):
    """Claims, and hands out no blobs."""

    def serves(self, blob: bytes) -> bool:
        return False


class Silent(Cheat):
    """Takes tasks and never answers."""

    def output(self, me: Provider, effect: t.StartTask, honest: TaskOutput) -> TaskOutput | None:
        return None if me.world.chance(0.7) else honest


class Vanisher(Cheat):
    """Bids, signs, and is never heard of again."""

    def answers(self, me: Provider, request: Message) -> bool:
        return not isinstance(request, AssignTask | WatchLease | CloseLease | PayVoucher | OpenLane)


class Hostage(Cheat):
    """Says that it closes the lease, and keeps the escrow locked."""

    closes = False

    def instead(self, request: Message) -> Message | None:
        return Ok() if isinstance(request, CloseLease) else None


class Equivocator(Cheat):
    """Signs two answers with one number and shows both."""

    def claims(self, me: Provider, effect: t.SignClaim, honest: LeaseBody) -> Sequence[LeaseBody]:
        return (honest, *_claim_of(me, effect, digest("two-faced", effect.task)))


class Inventor(Cheat):
    """Claims work that it was never given, and what it was given over and over."""

    def claims(self, me: Provider, effect: t.SignClaim, honest: LeaseBody) -> Sequence[LeaseBody]:
        if not effect.task:
            return (honest, honest)
        invented = msgspec.structs.replace(effect, task=digest("invented", effect.sequence))
        known = [task for lease in me.state.leases.values() for task in lease.tasks if task != effect.task]
        others = [msgspec.structs.replace(effect, task=task) for task in known[:2]]
        extra = [body for one in (invented, *others) for body in _claim_of(me, one, b"nothing")]
        return (honest, *extra, honest, honest)

    def mischief(self, me: Provider) -> None:
        for lease_id in me.state.leases:
            told = me.streams.told(lease_id)
            for event in me.world.rng.sample(told, min(2, len(told))) if len(told) < 60 else ():
                me.streams.append(lease_id, 0, event.at_ms, event.body)


class Overmeter(Cheat):
    """Runs the meter: claims more units than the task has."""

    def claims(self, me: Provider, effect: t.SignClaim, honest: LeaseBody) -> Sequence[LeaseBody]:
        root = msgspec.structs.replace(effect.root, units=effect.root.units * 10 + 1)
        return (me.claim_body(effect, root),)

    def lane(self, number: int, honest: bytes) -> tuple[bytes, int]:
        return honest, 5


class Copycat(Cheat):
    """Shows another provider's signed claim as its own."""

    seen: list[Claimed]

    def __init__(self, salt: object = "", seen: list[Claimed] | None = None) -> None:
        super().__init__(salt)
        self.seen = seen if seen is not None else []

    def claims(self, me: Provider, effect: t.SignClaim, honest: LeaseBody) -> Sequence[LeaseBody]:
        if not effect.task:
            return (honest,)
        copied = [claim for claim in self.seen if claim.task == effect.task] or self.seen[-1:]
        return tuple(msgspec.structs.replace(claim, task=effect.task) for claim in copied[:1]) or (honest,)


class Forger(Cheat):
    """Brings vouchers to the bank that nobody signed, or that others were given, and closes early."""

    def mischief(self, me: Provider) -> None:
        for lease_id, lease in list(me.state.leases.items()):
            forged = me.person.sign_unseen(Voucher(lease_id, lease.document.cap_ucr))
            vouchers = [forged]
            if lease.voucher is not None:
                raised = Signed(forged.body, lease.voucher.signature)
                vouchers += [raised, lease.voucher, lease.voucher]
            for voucher in vouchers:
                me.call(me.bank, Redeem(voucher), 2_000, lambda _answer: None)
            if me.world.chance(0.05):
                me.call(me.bank, CloseEscrow(lease_id), 2_000, lambda _answer: None)


def _round_of(spec: TaskSpec) -> TrainRound | None:
    params = codec.decode(TrainParams, spec.params) if spec.kind == "train" else None
    return params if isinstance(params, TrainRound) and params.recipe.exact else None


def _claim_of(me: Provider, effect: t.SignClaim, value: bytes) -> tuple[LeaseBody, ...]:
    """A well-signed claim of the same number over something else."""
    if not effect.task:
        return ()
    output = TaskOutput(value, ())
    tree = MerkleTree([task_leaf(effect.task, output_hash(output), effect.root.units)])
    root = msgspec.structs.replace(effect.root, root=tree.root)
    return (me.claim_body(msgspec.structs.replace(effect, output=output), root),)


EXACT_ONLY = ("skip", "flip", "alarm")
GALLERY: dict[str, type[Cheat]] = {
    "lazy": Lazy, "wrong": WrongResult, "replay": Replayer, "smart": Smart, "withhold": Withholder, "silent": Silent,
    "vanish": Vanisher, "hostage": Hostage, "equivocate": Equivocator, "invent": Inventor, "overmeter": Overmeter,
    "copycat": Copycat, "forge": Forger, "skip": Skip, "flip": Flip, "alarm": FalseAlarm,
}  # fmt: skip
"""By name. Those of EXACT_ONLY are honest at all work that is not committed to link by link. "sybil" (one account,
several nodes) and "collude" (two accounts, one lie) are several WrongResults with one salt; `sim/pool.py` makes
them."""
