"""The error tree, and what every error must say: what happened, the likely cause, where the money is, what to type
next, and a code that `fallow explain` explains offline, as its page under `docs/reference/errors/` does.

    FallowError
    ├─ UsageError         the caller's mistake: bad configuration, unknown model, unreadable file
    ├─ RejectedError      the protocol said no, as it may: no offers, budget too small, escrow closed
    ├─ PeerFault          another node misbehaved: bad signature, late or wrong result
    ├─ UnprovenError      neither so nor not: what would show it is not there
    ├─ UnavailableError   try again later: timeout, unreachable, full
    └─ InternalError      our bug: please report it

Rules return rejections as values; exceptions start where the world starts (adapters, node, sdk, gateway, cli).
One hundred codes per room, never reused: E10xx units and config, E11xx wire, E12xx market, E13xx money, E14xx jobs,
E15xx trust, E16xx blobs, E17xx workloads, E18xx node and transport, E19xx gateway, E20xx cli and sdk, E21xx
interop.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGES = "docs/reference/errors"
"""Where each code has a page, from the repository's root."""


@dataclass(frozen=True)
class ErrorCode:
    """One way to fail. `cause` and `next_step` are the defaults that a raiser may replace with something sharper."""

    code: str
    title: str
    cause: str
    next_step: str
    family: type[FallowError]


class FallowError(Exception):
    """An error a person can act on. `code` is stable; `money` says where the money is ("nothing was spent" when no
    escrow was touched); `next_step` is a command where one helps; `retryable` tells a program whether to try again."""

    retryable = False

    def __init__(self, code: str, what: str, *, cause: str = "", money: str = "", next_step: str = "") -> None:
        entry = CODES[code]
        super().__init__(what)
        self.code, self.what = code, what
        self.cause = cause or entry.cause
        self.money = money or "Nothing was spent."
        self.next_step = next_step or entry.next_step

    @property
    def docs_page(self) -> str:
        """The path of the code's page in the repository."""
        return page_of(self.code)

    def five_lines(self) -> str:
        """The error as the CLI prints it."""
        return (
            f"{self.what}\nLikely cause: {self.cause}\nMoney: {self.money}\n"
            f"Next:  {self.next_step}\n{self.code}  fallow explain {self.code}, or {self.docs_page}"
        )

    def details(self) -> dict[str, str | bool]:
        """The same for `--json`, with stable keys."""
        return {
            "code": self.code, "what": self.what, "cause": self.cause, "money": self.money,
            "next": self.next_step, "docs_page": self.docs_page, "retryable": self.retryable,
        }  # fmt: skip


# What a family says of itself is also told on the pages of its codes.


class UsageError(FallowError):
    """The request was wrong; trying again unchanged fails again."""


class RejectedError(FallowError):
    """The rules said no, as they may. Nothing is broken."""


class PeerFault(FallowError):
    """Another node misbehaved. It was not trusted, and what it sent was dropped."""


class UnprovenError(FallowError):
    """Nothing is wrong, and nothing shows that all is right."""


class UnavailableError(FallowError):
    """Not now; the same command may work later."""

    retryable = True


class InternalError(FallowError):
    """A bug in Fallow."""


CODES: dict[str, ErrorCode] = {}


def page_of(code: str) -> str:
    """The path of a code's page in the repository."""
    return f"{PAGES}/{code}.md"


def fail(code: str, what: str, *, cause: str = "", money: str = "", next_step: str = "") -> FallowError:
    """Build the error of `code` in its own class, to be raised by the caller. Raises KeyError for an unknown code."""
    return CODES[code].family(code, what, cause=cause, money=money, next_step=next_step)


def first_of(errors: BaseExceptionGroup[FallowError]) -> FallowError:
    """The first error of a group, however deep: of several tasks that failed at once one speaks for all."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _declare(family: type[FallowError], *rows: tuple[str, str, str, str]) -> None:
    for code, title, cause, next_step in rows:
        assert code not in CODES, f"{code} is declared twice"
        CODES[code] = ErrorCode(code, title, cause, next_step, family)


_declare(
    UsageError,
    ("E1001", "configuration cannot be read", "The file is not valid TOML or holds an unknown key.", "fallow doctor"),
    ("E1002", "not an amount", "Amounts are credits with at most six decimals.", "Write 0.05 or 2."),
    ("E1003", "not an id", "The text is no id of ours, or too short to be unique.", "fallow jobs"),
    ("E1004", "home folder cannot be used", "It is not a folder, or not writable by you.", "fallow doctor"),
    ("E1306", "books of another bank", "The ledger file belongs to another key or another version.", "fallow doctor"),
    ("E1606", "path cannot be taken in", "It holds a device, a bad name or a link that leads out.", "Copy it first."),
    ("E1607", "folder cannot be written", "Something is in the way, or it is not yours to write.", "Choose another."),
    ("E1005", "not a ticket", "A ticket is one long line that starts with fallow1.", "fallow up   # prints it"),
    ("E1104", "folder cannot travel", "A file's name would not mean the same on every system.", "Rename the file."),
    ("E1105", "keys open to others", "Other users of this machine may read or replace your keys.", "chmod 600 them."),
    ("E1106", "keys cannot be read", "The key file is damaged, or not written by Fallow.", "Restore it from a backup."),
    (
        "E1701",
        "not a model",
        "The path holds neither config.json with weights nor a GGUF file.",
        "Give a model folder.",
    ),
    ("E1702", "not training data", "Data is text, or rows of a shape that is known.", "See docs/reference/data.md."),
    ("E1703", "data is empty", "There is nothing, or too little, to learn from.", "Give a longer file."),
    ("E1706", "training blew up", "Numbers became infinite: the learning rate is too high.", "Lower --learning-rate."),
    ("E1707", "task makes no sense", "Its parameters or inputs do not fit its kind.", "Update Fallow on both sides."),
    ("E1708", "a package is missing", "This kind of work needs an extra that is not installed.", "fallow doctor"),
    (
        "E1710",
        "workload failed",
        "Its program stumbled over the task's inputs.",
        "Check the inputs; see fallow logs JOB.",
    ),
    (
        "E1721",
        "program cannot be run",
        "It is no WebAssembly command for WASI preview 1.",
        "Build for wasm32-wasip1.",
    ),
    (
        "E1722",
        "program cannot be compiled",
        "Compiling it takes longer, or more memory, than providers give.",
        "Make it smaller: -Os, or wasm-opt -Os.",
    ),
    (
        "E1723",
        "program goes too deep",
        "It calls itself without end, or deeper than the stack that every machine has.",
        "Recurse less, or use a stack of its own.",
    ),
    (
        "E1724",
        "program failed",
        "It ended with another status than 0, or could not go on; its output is a result like any other.",
        "fallow results JOB",
    ),
    ("E1709", "model has no exact form", "Exact arithmetic knows models of Llama's form.", "Choose another model."),
    (
        "E1711",
        "no method for such rows",
        "The rows are in order, but want DPO or KTO.",
        "Give the better answers alone.",
    ),
    (
        "E1712",
        "no chat template",
        "A base model knows no chats.",
        "Take its instruct model.",
    ),
    ("E1805", "cannot listen there", "It is not an address of this machine.", "Write 0.0.0.0:PORT or 127.0.0.1:PORT."),
    ("E1810", "home cannot be read", "It is damaged, or a newer Fallow wrote it.", "Update Fallow, or use --home."),
    ("E1807", "a node runs here already", "Each home folder belongs to one process.", "Choose another with --home."),
    ("E2001", "wrong usage", "An option or argument does not fit.", "fallow --help"),
    ("E2002", "no such job", "No job of yours has this id.", "fallow jobs"),
    ("E2003", "no such file", "The path does not exist or cannot be read.", "Check the path."),
    ("E2004", "no node is running here", "Commands talk to a node of yours, and none answers.", "fallow up"),
    ("E2005", "unknown error code", "No error has this code.", "fallow explain --list"),
    ("E2006", "not confirmed", "Commands that spend ask first.", "Add --yes to go on without asking."),
    ("E2007", "an extra is not installed", "The command needs an extra's packages.", "pip install 'fallow[train,llm]'"),
    ("E2008", "something is wrong with this machine", "A check of fallow doctor failed.", "Mend what is WRONG."),
    ("E2101", "file breaks its format's rules", "Its own network would refuse it, too.", "Mend the lines it names."),
    ("E2102", "file of no format that we read", "It lacks the fields that tell.", "fallow import FILE --format FORMAT"),
    ("E2103", "file is too much to read", "It is larger, deeper or has more in it than we read.", "Split the file."),
    ("E1901", "no such model", "The model is not served on this network.", "fallow serve MODEL"),
    ("E1902", "wrong API key", "The key is missing, mistyped or revoked.", "fallow serve --new-key"),
    ("E1903", "request too large", "The prompt and answer exceed what this model is served with.", "Shorten it."),
    ("E1904", "malformed request", "A field is missing or has the wrong type.", "Check the request."),
)
_declare(
    RejectedError,
    ("E1201", "no offers", "No provider on the network offers this kind of work now.", "fallow why JOB"),
    ("E1202", "no offer fits", "Providers are there, but none has enough of what the job needs.", "fallow why JOB"),
    ("E1203", "offers too dear", "Every fitting provider asks for more than the budget allows.", "Raise --budget."),
    ("E1204", "no such lease", "The provider does not know the lease, or it has ended.", "fallow jobs"),
    ("E1205", "lease covers no more", "What it may cost is used up, or the task is not its kind.", "fallow jobs"),
    ("E1206", "owner is active", "The machine's owner came back; work moves elsewhere by itself.", "fallow jobs"),
    (
        "E1301",
        "too little money",
        "The account's balance or stake is below what this takes.",
        "fallow wallet",
    ),
    ("E1302", "escrow closed", "The lease was settled already.", "fallow jobs"),
    ("E1303", "transfer refused", "The ledger's rules do not allow it.", "fallow wallet"),
    ("E1304", "no account at this bank", "This node has not joined the pool, or its certificate ran out.", "fallow up"),
    ("E1401", "budget too small", "The cheapest fitting offers cost more than the budget.", "Raise --budget."),
    ("E1402", "job cancelled", "You cancelled it.", "fallow logs JOB"),
    ("E1403", "job failed", "Every attempt failed.", "fallow logs JOB"),
    ("E1404", "deadline passed", "The job did not finish in the time you gave it.", "Raise --timeout."),
    ("E1405", "job of a former version", "It was under way when Fallow was replaced.", "Hand it in again."),
    ("E1501", "receipt does not verify", "The receipt was changed, or was never valid.", "Ask for the receipt again."),
    ("E1504", "cannot be done again here", "Other machines would not give the same bits.", "fallow explain E1504"),
    ("E1604", "blob is too large", "It is larger than what was agreed or what there is room for.", "fallow doctor"),
    ("E1905", "API key's budget is spent", "The key has no credits left.", "fallow serve --top-up KEY"),
)
_declare(
    UnprovenError,
    ("E1505", "receipt is not anchored", "No bank was named that you know.", "fallow verify RECEIPT --bank 0xACCOUNT"),
    ("E1506", "receipt lacks evidence", "It was made before, or while the bank was away.", "Ask for it again."),
)
_declare(
    PeerFault,
    (
        "E1101",
        "bad signature",
        "The document was changed or signed by somebody else.",
        "Nothing to do; it was dropped.",
    ),
    ("E1102", "malformed message", "The peer sent bytes that are no message of ours.", "Update Fallow on both sides."),
    ("E1103", "not valid now", "It has expired, or one of the two clocks is wrong.", "Check this machine's clock."),
    ("E1502", "wrong result", "Other providers computed something else from the same input.", "fallow results JOB"),
    (
        "E1503",
        "replay found a difference",
        "The provider did not compute what it signed for.",
        "fallow verify RECEIPT --replay --links all",
    ),
    ("E1705", "update does not fit", "A worker published a file that is no update to this model.", "fallow logs JOB"),
    ("E1806", "peer failed", "The other node had an error that it does not explain.", "Try another node."),
    ("E1601", "blob is corrupt", "A source sent bytes that do not match their hash.", "Try again."),
    ("E1605", "source stalled", "A source took a request and then sent nothing.", "Nothing to do; it was dropped."),
)
_declare(
    UnavailableError,
    ("E1602", "blob cannot be found", "No source that we know of has it.", "Start the node that has it."),
    ("E1603", "disk is full", "The blob store's quota or the disk is used up.", "fallow doctor"),
    ("E1704", "worker died", "The worker process ended: out of memory, time limit, or killed.", "fallow logs JOB"),
    ("E1801", "node cannot be reached", "It is off, or the network between is down.", "Try again."),
    ("E1802", "call timed out", "The peer is slow or gone.", "Try again."),
    ("E1803", "too many requests", "A queue is full.", "Try again later."),
    ("E1305", "bank cannot keep its books", "Its disk is full, slow, or locked by another program.", "fallow doctor"),
    ("E1804", "port is taken", "Another program listens on it.", "Choose another with --port."),
    ("E1809", "workers cannot be shut in", "The system does not let a user build a sandbox.", "fallow doctor"),
    ("E1906", "no provider is serving", "Every provider of this model went away.", "fallow serve MODEL"),
)
_declare(
    InternalError,
    ("E9001", "internal error", "This is a bug in Fallow.", "Please report it with the output of fallow doctor."),
)
WORKLOAD_CODES = frozenset(code for code in CODES if code.startswith("E17"))
"""What a workload may say of a task."""
GATEWAY_CODES = frozenset(code for code in CODES if code.startswith("E19"))
"""What may be said of a request for an answer."""
