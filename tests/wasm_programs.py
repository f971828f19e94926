"""Small programs for tests, as text."""

from __future__ import annotations

import wasmtime

CALLS = {
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "fd_close": "(param i32) (result i32)",
    "fd_seek": "(param i32 i64 i32 i32) (result i32)",
    "fd_filestat_get": "(param i32 i32) (result i32)",
    "fd_readdir": "(param i32 i32 i32 i64 i32) (result i32)",
    "fd_allocate": "(param i32 i64 i64) (result i32)",
    "proc_exit": "(param i32)",
    "args_sizes_get": "(param i32 i32) (result i32)",
    "args_get": "(param i32 i32) (result i32)",
    "environ_sizes_get": "(param i32 i32) (result i32)",
    "environ_get": "(param i32 i32) (result i32)",
    "random_get": "(param i32 i32) (result i32)",
    "clock_time_get": "(param i32 i64 i32) (result i32)",
    "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    "path_create_directory": "(param i32 i32 i32) (result i32)",
    "path_symlink": "(param i32 i32 i32 i32 i32) (result i32)",
    "path_rename": "(param i32 i32 i32 i32 i32 i32) (result i32)",
    "path_unlink_file": "(param i32 i32 i32) (result i32)",
    "sock_send": "(param i32 i32 i32 i32 i32) (result i32)",
}
"""What programs here may call, each as $name."""


def wat(body: str, *, calls: str = "", data: str = "", pages: int = 1, more: str = "") -> str:
    """A program: `calls` are imported, `data` lies at 1024, `body` is what it does. Places below 1024 are for it to
    use; $print writes bytes of its memory to standard output."""
    names = dict.fromkeys(["fd_write", *calls.split()])
    imports = "\n".join(f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {CALLS[name]}))' for name in names)
    return f"""(module {imports}
      (memory (export "memory") {pages})
      (data (i32.const 1024) "{data}")
      {more}
      (func $put (param $fd i32) (param $at i32) (param $size i32) (result i32)
        (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $size))
        (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (func $print (param $at i32) (param $size i32)
        (drop (call $put (i32.const 1) (local.get $at) (local.get $size))))
      (func (export "_start") {body}))"""


def wasm(text: str) -> bytes:
    """A program's bytes."""
    return bytes(wasmtime.wat2wasm(text))


HELLO = wat("(call $print (i32.const 1024) (i32.const 6))", data="hello\\n")
EXIT_3 = wat("(call $proc_exit (i32.const 3))", calls="proc_exit")
FOREVER = wat("(loop (br 0))")

CAT = wat(
    """(local $n i32)
    (loop $again
      (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (i32.const 4096))
      (drop (call $fd_read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
      (local.set $n (i32.load (i32.const 24)))
      (if (local.get $n) (then (call $print (i32.const 4096) (local.get $n)) (br $again))))""",
    calls="fd_read",
)
"""Standard input to standard output."""

OPEN_OUT = """
    (local.set $fd (i32.const -1))
    (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 10) (i32.const 9)
      (i64.const 0xffff) (i64.const 0xffff) (i32.const 0) (i32.const 32)))
    (local.set $fd (i32.load (i32.const 32)))"""
WRITE_FILE = wat(
    f"(local $fd i32) {OPEN_OUT} (drop (call $put (local.get $fd) (i32.const 1024) (i32.const 10)))",
    calls="path_open",
    data="out/result",
)
"""Its own name into out/result."""
