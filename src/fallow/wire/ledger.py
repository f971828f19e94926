"""What a bank is asked and answers. Every operation carries an `operation` id chosen by the asker: asking twice is
harmless, the second answer equals the first."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from fallow.wire.documents import U64, Address, Label, Signed, Word
from fallow.wire.messages import Message, Text
from fallow.wire.tasks import LaneSetting, TaskSpec

MAX_DRAWN = 256
"""Accounts that a bank draws for one claim."""
MAX_CHARGED = 64
"""Charged leases that are named to an account at a time."""


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One node's commitment to an answer of a task: its lease (signed by it), its claim root, the answer's hash and
    the Merkle path from the leaf to the root. `number` is that of a lane task within its lease, 0 for an assigned
    task; `claims.evidence_leaf` makes the leaf of either."""

    lease: Signed
    claim: Signed
    output: Word
    units: U64
    index: U64
    path: Annotated[tuple[Word, ...], msgspec.Meta(max_length=32)]
    number: U64 = 0


class OpenAccount(Message, frozen=True):
    """-> LedgerDone. Makes the account known and binds the node; with a valid join `token`, which most pools ask of new
    accounts, it also gets the pool's welcome grant, once per account."""

    operation: Word
    certificate: Signed
    token: Label


class Grant(Message, frozen=True):
    """-> LedgerDone. New credits; only for the pool's operator."""

    operation: Word
    account: Address
    amount_ucr: U64


class Transfer(Message, frozen=True):
    """-> LedgerDone. From the caller's account."""

    operation: Word
    to: Address
    amount_ucr: U64


class Deposit(Message, frozen=True):
    """-> LedgerDone. Moves money from the caller's balance into its stake."""

    operation: Word
    amount_ucr: U64


class Unbond(Message, frozen=True):
    """-> LedgerDone. Takes stake out; it stays slashable for the pool's unbonding time and is then free."""

    operation: Word
    amount_ucr: U64


class OpenEscrow(Message, frozen=True):
    """-> LedgerDone. Locks the lease's `cap_ucr` out of the requester's balance and its `stake_ucr` in the provider's
    stake. Both signatures are needed. The operation id is the lease's hash."""

    lease: Signed
    provider_signature: Signed
    requester_certificate: Signed
    provider_certificate: Signed


class Redeem(Message, frozen=True):
    """-> LedgerDone. Pays the provider what the voucher adds to what was paid before."""

    voucher: Signed


class CloseEscrow(Message, frozen=True):
    """-> LedgerDone. By the provider at any time, by the requester after the lease's end: what is not paid goes back
    to the requester, the provider's stake is free again."""

    lease: Word


class Slash(Message, frozen=True):
    """-> LedgerDone. Locks the stake that the verdict asks for until the accused has answered, or the time for that is
    over (`Appeal`, `Rule`); what is taken in the end goes to the pool. Needs the accused's claim, for which the bank
    has drawn, and those of at least two others who agree on another answer: accounts of their own that were drawn for
    it, with as much stake as is taken. `orders` are the signed orders that the leases of `accused` and `others` name,
    in this order: all ask for one class of machines. For answers on lanes `setting` is what all the lanes were opened
    with, and `task` has its inputs and the accused's units."""

    verdict: Signed
    task: TaskSpec
    accused: Evidence
    others: Annotated[tuple[Evidence, ...], msgspec.Meta(min_length=2, max_length=8)]
    orders: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=9)] = ()
    setting: LaneSetting | None = None


class SlashEquivocation(Message, frozen=True):
    """-> LedgerDone. Two different claim roots with one sequence number, both signed by the lease's provider, are proof
    by themselves: all that is left of the lease's stake goes to the pool, at once."""

    lease: Word
    first: Signed
    second: Signed


class Appeal(Message, frozen=True):
    """-> LedgerDone. The accused says no to the charge over `task` under its lease, while there is time to answer: now
    the pool's referee decides. Without a ruling in time the charge falls."""

    lease: Word
    task: Word


class Rule(Message, frozen=True):
    """-> LedgerDone. The referee's word on a charge that was appealed: upheld, and it is carried out; or overturned:
    the accused gets its stake back, and the witnesses lose what they put up, to the accused as far as the claim was
    worth it, the rest to the pool."""

    lease: Word
    task: Word
    upheld: bool


class IssueToken(Message, frozen=True):
    """-> LedgerDone. An invitation that admits `uses` accounts with the welcome grant until `expires_ms`; only for the
    pool's operator, who alone knows the text behind `token_hash` (`rules.escrow.token_hash`). Issuing one again
    replaces its uses and time."""

    operation: Word
    token_hash: Word
    uses: U64
    expires_ms: U64


class DrawAuditors(Message, frozen=True):
    """-> DrawOf. Randomness for choosing who checks `claim`, fixed at the first time of asking and only after the claim
    exists, so that a provider cannot know its auditors and a steward cannot try again for others."""

    claim: Signed


class Drawn(Message, frozen=True):
    """What the books say, before the bank has signed it. `drawn` are the accounts that may bear witness against the
    claim, first drawn first (`trust.draw_by_stake`)."""

    seed: Word
    drawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_DRAWN)] = ()


class DrawOf(Message, frozen=True):
    """An `AuditDraw` document signed by the bank's account, and `drawn` as in `Drawn`."""

    draw: Signed
    drawn: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_DRAWN)] = ()


class LedgerDone(Message, frozen=True):
    """The operation took effect (now, or when it was first asked)."""

    operation: Word


class Refusal(StrEnum):
    """Why an operation did not take effect; what decides by it looks here, and never into words."""

    NO_ACCOUNT = "no_account"
    """The caller has no account at this bank."""
    NO_SUCH_ACCOUNT = "no_such_account"
    """The account named in the request is not known here."""
    BALANCE_TOO_SMALL = "balance_too_small"
    STAKE_TOO_SMALL = "stake_too_small"
    GRANT_STAYS = "grant_stays"
    """What would be sent is the pool's welcome grant, which is for work."""
    ZERO_AMOUNT = "zero_amount"
    TOO_MUCH_MONEY = "too_much_money"
    """More would be minted than the books can hold."""
    NOT_OPERATOR = "not_operator"
    NOT_A_PARTY = "not_a_party"
    """The caller is not the side of the lease that may ask for this."""
    SAME_ACCOUNT = "same_account"
    OPERATION_REUSED = "operation_reused"
    """This operation id was already used by this caller for another request."""
    BAD_DOCUMENT = "bad_document"
    """Bytes that are no such document, one for another bank, or a request that breaks its own limits."""
    WRONG_SIGNER = "wrong_signer"
    WRONG_CERTIFICATE = "wrong_certificate"
    """The certificate is expired, outdated, or names another account or node."""
    BAD_TOKEN = "bad_token"  # noqa: S105 - the name of a reason
    POOL_FULL = "pool_full"
    TOO_MANY_PENDING = "too_many_pending"
    TOO_MANY_NODES = "too_many_nodes"
    BAD_TIMES = "bad_times"
    """A lease that is over, runs backwards or lasts too long."""
    NO_ESCROW = "no_escrow"
    ESCROW_CLOSED = "escrow_closed"
    OVER_CAP = "over_cap"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    BAD_EVIDENCE = "bad_evidence"
    """The accused's claim is missing, not its own, or says something else."""
    BAD_WITNESS = "bad_witness"
    """Fewer than two others with accounts and stake of their own agree."""
    ALREADY_JUDGED = "already_judged"
    NOT_DRAWN = "not_drawn"
    """The bank has not drawn auditors for this claim, or others than these witnesses."""
    UNLIKE_MACHINES = "unlike_machines"
    """The orders of accused and witnesses do not name one class of machines, though this work depends on it."""
    UNDER_CHARGE = "under_charge"
    """Another charge under this lease is not decided yet."""
    NO_CHARGE = "no_charge"
    """Nothing of the kind was charged under this lease."""
    NOT_REFEREE = "not_referee"
    PLEDGED = "pledged"
    """This stake stands behind a charge that is not decided yet."""


class LedgerRefused(Message, frozen=True):
    """The rules said no; nothing changed."""

    operation: Word
    reason: Refusal
    detail: Text = ""


class GetBalance(Message, frozen=True):
    """-> BalanceOf. Anyone may ask about any account: a pool's books are open to its members."""

    account: Address


class BalanceOf(Message, frozen=True):
    """`available_ucr` can be spent; `escrowed_ucr` is locked in open leases; `staked_ucr` is stake in all, of which
    `bonded_ucr` stands behind open leases and `unbonding_ucr` is on its way out. `charged` are some of the leases under
    which charges lock a part of it."""

    account: Address
    available_ucr: U64
    escrowed_ucr: U64
    staked_ucr: U64
    bonded_ucr: U64
    unbonding_ucr: U64
    earned_ucr: U64
    slashed_ucr: U64
    charged: Annotated[tuple[Word, ...], msgspec.Meta(max_length=MAX_CHARGED)] = ()


class GetSettlement(Message, frozen=True):
    """-> SettlementOf."""

    lease: Word


class OpenCharge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A charge over `task` that is not decided yet: `locked_ucr` of the accused's stake is set aside. Unless
    `appealed`, it is carried out after `due_ms`; after an appeal it falls then, if the referee has not ruled.
    `evidence` is what it was charged with."""

    task: Word
    locked_ucr: U64
    due_ms: U64
    appealed: bool
    evidence: Slash | None = None


class SettlementOf(Message, frozen=True):
    """A `Settlement` document signed by the bank's account; None for an unknown lease. `charge` is one under it that is
    not decided yet."""

    settlement: Signed | None
    charge: OpenCharge | None = None


class GetBooks(Message, frozen=True):
    """-> Books: the whole in one line."""


class Books(Message, frozen=True):
    """`minted_ucr` must equal `sum_ucr`, the sum over all accounts, escrows, stakes and the pool's own purse."""

    bank: Address
    minted_ucr: U64
    sum_ucr: U64
    accounts: U64
    open_escrows: U64


LedgerRequest = (
    OpenAccount
    | Grant
    | IssueToken
    | Transfer
    | Deposit
    | Unbond
    | OpenEscrow
    | Redeem
    | CloseEscrow
    | Slash
    | SlashEquivocation
    | Appeal
    | Rule
    | DrawAuditors
)
