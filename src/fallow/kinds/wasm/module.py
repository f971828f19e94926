"""What can be said of a WebAssembly module without running it: whether it is one that we run, what it wants, and how
large it is in all the ways that would make its compilation explode. Asked on the buyer's machine before any money
moves, and again by the worker before it compiles.

Defends against: what is no module, or none for this system; sizes that make a compiler take hours or gigabytes. Does
not defend against: code that is not valid, which the engine finds, and tells, when it compiles it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fallow.errors import FallowError, fail
from fallow.kinds.wasm.calls import SIGNATURES
from fallow.units import MIB, format_size

MAX_MODULE_BYTES = 64 * MIB
MAX_FUNCTIONS = 200_000
MAX_BODY_BYTES = MIB
MAX_LOCALS = 10_000
MAX_ITEMS = 200_000
"""Of types, imports, exports, globals and segments, each."""
MAX_TABLES, MAX_TABLE_ELEMENTS = 16, 1_000_000
PAGE_BYTES = 64 << 10
SYSTEM = "wasi_snapshot_preview1"
_MAGIC, _CORE, _COMPONENT = b"\0asm", b"\1\0\0\0", b"\1\0"
_FUNCTION, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)
_VALUES = {0x7F: "i", 0x7E: "I", 0x7D: "f", 0x7C: "F", 0x7B: "v", 0x70: "r", 0x6F: "r"}
_BUILD = "Build a WASI preview 1 command: cargo build --target wasm32-wasip1, or GOOS=wasip1 go build, or wasi-sdk."
_REMEDIES = {
    "wasi_unstable": ("It was built for WASI preview 0, which compilers left in 2020.", _BUILD),
    "env": ("It was built for a page or a host of its own (Emscripten's, often), or a library was not linked.",
            "Link with -sSTANDALONE_WASM (Emscripten) or with wasi-sdk, and link all libraries."),
    "gojs": ("It was built for a browser (GOOS=js).", "GOOS=wasip1 GOARCH=wasm go build -o prog.wasm"),
    "go": ("It was built for a browser (GOOS=js).", "GOOS=wasip1 GOARCH=wasm go build -o prog.wasm"),
    "wbg": ("It was built for a browser, by wasm-bindgen.", "cargo build --release --target wasm32-wasip1"),
    "__wbindgen_placeholder__": ("It was built for a browser, by wasm-bindgen.",
                                 "cargo build --release --target wasm32-wasip1"),
}  # fmt: skip


@dataclass
class ModuleFacts:
    """A module that can run: what it imports, and the memory that it begins with."""

    size_bytes: int
    functions: int = 0
    imports: list[str] = field(default_factory=list[str])
    memory_bytes: int = 0

    def lines(self) -> tuple[str, ...]:
        """For people."""
        wants = ", ".join(sorted(self.imports)) or "nothing"
        size, memory = format_size(self.size_bytes), format_size(self.memory_bytes)
        return (
            f"{size}, {self.functions:,} functions, {memory} of memory at the start",
            f"asks the system for: {wants}",
        )


def inspect(data: bytes, memory_bytes: int) -> ModuleFacts:
    """What there is to know of a module that is to run in so much memory. Raises UsageError E1721, with the remedy, for
    one that cannot. Costs time in proportion to the number of its functions."""
    _refuse_strangers(data)
    try:
        found = _Reader(data).module()
    except (IndexError, UnicodeDecodeError, _Odd) as error:
        what = str(error) if isinstance(error, _Odd) else "it ends in the middle"
        raise refusal(f"The module is damaged: {what}.", "The file was cut or changed on its way.", _BUILD) from None
    if found.memory_bytes > memory_bytes:
        need = -(-found.memory_bytes // MIB)
        begins, limit = format_size(found.memory_bytes), format_size(memory_bytes)
        what = f"The program begins with {begins} of memory, its limit is {limit}."
        raise refusal(what, "Its data and stack alone are that large.", f"Raise --memory to {need} or more.")
    return found


def refusal(what: str, cause: str, next_step: str) -> FallowError:
    """E1721."""
    return fail("E1721", what, cause=cause, next_step=next_step)


def _refuse_strangers(data: bytes) -> None:
    """What is no core module of a size that we take."""
    if len(data) > MAX_MODULE_BYTES:
        what = f"The program is {format_size(len(data))}; at most {format_size(MAX_MODULE_BYTES)} are taken."
        raise refusal(what, "It may hold debug information or data.", "Strip it (wasm-strip), or pass data as --input.")
    if data.lstrip()[:7] == b"(module" or data.lstrip()[:2] == b";;":
        raise refusal("The file is WebAssembly text.", "Programs are binary.", "wat2wasm prog.wat -o prog.wasm")
    if data[:4] != _MAGIC:
        cause = "It begins with other bytes than a module does." if data else "The file is empty."
        raise refusal("The file is no WebAssembly module.", cause, _BUILD)
    if data[4:8] == _CORE:
        return
    if data[6:8] == _COMPONENT:
        step = "Build for wasm32-wasip1 instead of wasip2: cargo build --release --target wasm32-wasip1"
        raise refusal("The file is a component (WASI preview 2), not a module.", "Only preview 1 is run.", step)
    raise refusal(f"The module is of version {data[4:8].hex()}.", "Only version 1 is known.", _BUILD)


class _Odd(Exception):
    """What a module must not have, in words."""


class _Reader:
    """Reads a module's sections but for the code itself. Raises IndexError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 8
        self._types: list[str] = []
        self._functions: list[int] = []
        self._exports: dict[str, tuple[int, int]] = {}
        self._memories = self._elements = self._bodies = 0
        self._facts = ModuleFacts(len(data))

    def module(self) -> ModuleFacts:
        readers = {1: self._type, 2: self._import, 3: self._function, 4: self._table, 5: self._memory, 7: self._export}
        while self._at < len(self._data):
            section, size = self._byte(), self._number()
            end = self._at + size
            if end > len(self._data):
                raise IndexError
            if section in readers:
                for _ in range(self._count()):
                    readers[section]()
                if self._at != end:
                    raise _Odd(f"section {section} is not as long as it says")
            elif section == 10:
                self._code(end)
            elif section in (6, 9, 11) and self._count() > MAX_ITEMS:
                raise self._too_many(f"segments or globals in section {section}")
            self._at = end
        return self._checked()

    def _checked(self) -> ModuleFacts:
        defined = len(self._functions) - sum(1 for one in self._facts.imports if one)
        if self._bodies != defined:
            raise _Odd("it declares other functions than it has")
        start = self._exports.get("_start")
        if start is None:
            more = " It is a library (reactor)." if "_initialize" in self._exports else ""
            raise refusal(
                "The module has no _start.", f"It has no main function that could be run.{more}",
                "Build a program, not a library: in Rust a [[bin]], in C with main() and without -mexec-model=reactor.",
            )  # fmt: skip
        if start[0] != _FUNCTION or self._signature(start[1]) != ":":
            raise refusal("The module's _start is no function without arguments.", "It is no WASI command.", _BUILD)
        if self._facts.imports and self._exports.get("memory", (0, 0))[0] != _MEMORY:
            raise refusal("The module does not export its memory.", "The system cannot write to it.", _BUILD)
        self._facts.functions = defined
        return self._facts

    # sections -----------------------------------------------------------------------------------------------------

    def _type(self) -> None:
        form = self._byte()
        if form != 0x60:
            raise refusal(
                "The module uses types that are not taken (garbage collection).", "Only functions have types here.",
                "Build without the GC proposal.",
            )  # fmt: skip
        self._types.append(":".join("".join(self._value() for _ in range(self._count())) for _ in range(2)))

    def _import(self) -> None:
        module, name, what = self._name(), self._name(), self._byte()
        if what == _MEMORY:
            raise refusal(
                "The module imports its memory.", "It was built for threads, which there are none of.",
                "Build without -pthread and without --shared-memory.",
            )  # fmt: skip
        if what != _FUNCTION:
            raise refusal(f"The module imports {module}.{name}, which is no function.", "Nobody could give it.", _BUILD)
        self._functions.append(self._number())
        if module != SYSTEM:
            cause, step = _REMEDIES.get(module, ("Only WASI preview 1 is there.", _BUILD))
            if module.startswith("wasi:"):
                cause, step = "It was built for WASI preview 2.", "cargo build --release --target wasm32-wasip1"
            raise refusal(f"The module imports {module[:60]}.{name[:60]}, which there is none of.", cause, step)
        wanted = SIGNATURES.get(name)
        if wanted is None:
            raise refusal(f"The module imports {SYSTEM}.{name[:60]}, which is none of its functions.", "", _BUILD)
        if self._signature(len(self._functions) - 1) != wanted:
            raise refusal(f"The module imports {name} with other arguments than it has.", "", _BUILD)
        self._facts.imports.append(name)

    def _function(self) -> None:
        self._functions.append(self._number())
        if len(self._functions) > MAX_FUNCTIONS:
            raise self._too_many("functions")

    def _table(self) -> None:
        if self._byte() == 0x40:  # with a value to begin with
            raise refusal("The module has a table of a kind that is not taken.", "Only plain tables are.", _BUILD)
        least, _ = self._limits()
        self._elements += least
        if self._elements > MAX_TABLE_ELEMENTS:
            raise self._too_many("table elements")

    def _memory(self) -> None:
        least, flags = self._limits()
        if flags & 2:
            raise refusal(
                "The module's memory is shared.", "It was built for threads, which there are none of.",
                "Build without -pthread and without --shared-memory.",
            )  # fmt: skip
        if flags & 4:
            raise refusal("The module's memory has 64-bit addresses.", "", "Build for wasm32, not for wasm64.")
        self._memories += 1
        if self._memories > 1:
            raise refusal("The module has more than one memory.", "", _BUILD)
        self._facts.memory_bytes = least * PAGE_BYTES

    def _export(self) -> None:
        name, what = self._name(), self._byte()
        self._exports[name] = (what, self._number())

    def _code(self, end: int) -> None:
        self._bodies = self._count()
        for number in range(self._bodies):
            size = self._number()
            after = self._at + size
            if after > end:
                raise IndexError
            if size > MAX_BODY_BYTES:
                raise self._too_much(f"function {number} is {format_size(size)} of code", MAX_BODY_BYTES)
            groups = self._count()
            if groups > MAX_LOCALS or sum(self._local() for _ in range(groups)) > MAX_LOCALS:
                raise self._too_many(f"local variables in function {number}")
            self._at = after

    def _local(self) -> int:
        count = self._number()
        self._value()
        return count

    # words --------------------------------------------------------------------------------------------------------

    def _too_many(self, what: str) -> FallowError:
        cause = "Compiling it could take hours or all memory, so no provider does."
        return refusal(f"The module has too many {what}.", cause, "Optimise it for size: -Os, or wasm-opt -Os.")

    def _too_much(self, what: str, most: int) -> FallowError:
        cause = f"At most {format_size(most)} are compiled, since compiling more could take hours."
        return refusal(f"The module is too large: {what}.", cause, "Optimise it for size: -Os, or wasm-opt -Os.")

    def _signature(self, function: int) -> str:
        if function >= len(self._functions) or self._functions[function] >= len(self._types):
            raise _Odd("a function without a type")
        return self._types[self._functions[function]]

    def _limits(self) -> tuple[int, int]:
        flags = self._byte()
        least = self._number(10)
        if flags & 1:
            self._number(10)
        return least, flags

    def _value(self) -> str:
        found = _VALUES.get(self._byte())
        if found is None:
            raise refusal("The module uses types of values that are not taken.", "They are of later proposals.", _BUILD)
        return found

    def _name(self) -> str:
        size = self._number()
        if size > 10_000 or self._at + size > len(self._data):
            raise IndexError
        self._at += size
        return self._data[self._at - size : self._at].decode("utf-8")

    def _count(self) -> int:
        """How many items follow; each takes a byte at least."""
        found = self._number()
        if found > len(self._data) - self._at:
            raise IndexError
        return found

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self, most: int = 5) -> int:
        """An unsigned LEB128."""
        found = 0
        for place in range(most):
            byte = self._byte()
            found |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return found
        raise _Odd("a number that does not end")
