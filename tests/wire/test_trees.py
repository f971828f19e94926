from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.errors import FallowError, PeerFault, UsageError
from fallow.wire.codec import encode
from fallow.wire.trees import MAX_ENTRIES, Tree, TreeEntry, decode_tree, encode_tree, is_tree, path_problem

NAMES = st.text("abcXYZ0-_é", min_size=1, max_size=6)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def entry(path: str, size_bytes: int = 1) -> TreeEntry:
    return TreeEntry(path, b"b" * 32, size_bytes)


def refuse(*paths: str) -> str:
    """Both sides refuse these paths: the one that packs, and the one that is sent them; -> what they say."""
    with pytest.raises(UsageError) as ours:
        encode_tree([entry(path) for path in paths])
    assert ours.value.code == "E1104"
    with pytest.raises(PeerFault) as theirs:
        decode_tree(raw(*paths))
    assert theirs.value.code == "E1102"
    return ours.value.what


def raw(*paths: str) -> bytes:
    """A tree as a stranger may write it, sorted but not checked."""
    return encode(Tree(tuple(entry(path) for path in sorted(paths, key=lambda path: path.encode(errors="replace")))))


@given(st.lists(PATHS, max_size=12))
def test_a_tree_comes_back_sorted_or_is_refused_for_a_reason(paths: list[str]) -> None:
    folded = [path.casefold() for path in paths]
    folders = {f.rsplit("/", n)[0] for f in folded for n in range(1, f.count("/") + 1)}
    spelled = {p.rsplit("/", n)[0] for p in paths for n in range(1, p.count("/") + 1)}
    clash = len(set(folded)) < len(folded) or folders & set(folded) or len(folders) < len(spelled)
    try:
        tree = decode_tree(encode_tree([entry(path) for path in paths]))
    except UsageError:
        assert clash
    else:
        assert not clash
        assert [e.path.encode() for e in tree.entries] == sorted(path.encode() for path in paths)
        assert tree.size_bytes == len(paths)


def test_an_ordinary_model_folder_travels() -> None:
    paths = ["config.json", "model-00001-of-00002.safetensors", "tokenizer/vocab.txt", "tokenizer/merges.txt",
             ".gitignore", "a file with spaces.txt", "日本語/モデル.bin", "x..y", "...z"]  # fmt: skip
    tree = decode_tree(encode_tree([entry(path) for path in paths]))
    assert {e.path for e in tree.entries} == set(paths)


def test_the_order_of_the_files_does_not_matter() -> None:
    files = [entry("b"), entry("a/c"), entry("a")]
    assert encode_tree(files[:2]) == encode_tree(files[1::-1])


def test_entries_keep_what_they_say() -> None:
    kept = TreeEntry("run.sh", b"x" * 32, 77, executable=True)
    assert decode_tree(encode_tree([kept])).entries == (kept,)
    assert decode_tree(encode_tree([])).entries == ()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "..", "../x", "a/../b", "a/..", ".", "./a", "a/./b", "a//b", "a/", "/", "//a",
        "C:\\x", "C:x", "a\\b", "..\\x", "file:stream", "a\0b", "a\nb", "a\x7f", "a\x1b[31m", "a\u2028b",
        "con", "CON", "aux.txt", "a/NUL", "com1.log", "Lpt9", "nul .txt", "a.", "a ", "a./b", "x/ ", "a*", "a?",
        'a"', "a<b", "a|b", "e\u0301", "x" * 256, "é" * 128, "a/" * 600 + "a",
    ],
)  # fmt: skip
def test_paths_that_lead_out_or_mean_something_else_are_refused(path: str) -> None:
    assert refuse(path)
    assert path_problem(path)
    assert refuse("fine", path)


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"), ("a", "A"), ("readme", "ReadMe"), ("straße", "STRASSE"), ("a", "a/b"), ("A", "a/b"),
        ("a/b", "a/b/c"), ("a/x", "A/y"), ("a/b/x", "a/B/y"), ("ﬁle", "file"), ("x/A", "x/a"),
        ("a/b", "a-b", "A"), ("K", "K"),
    ],
)  # fmt: skip
def test_two_names_that_some_system_takes_for_one_are_refused(paths: tuple[str, ...]) -> None:
    assert refuse(*paths)


def test_a_tree_out_of_order_is_refused() -> None:
    data = encode(Tree((entry("b"), entry("a"))))
    with pytest.raises(FallowError) as refused:
        decode_tree(data)
    assert "order" in refused.value.what


def test_a_tree_of_too_many_files_is_refused() -> None:
    many = [entry(str(n)) for n in range(MAX_ENTRIES + 1)]
    with pytest.raises(UsageError) as ours:
        encode_tree(many)
    assert ours.value.code == "E1104"
    with pytest.raises(PeerFault):
        decode_tree(raw(*(e.path for e in many)))


def test_what_is_no_tree_is_told_apart() -> None:
    assert is_tree(encode_tree([entry("a")]))
    for data in (b"", b"text", raw("../x"), encode(entry("a")), encode_tree([entry("a")]) + b"\0"):
        assert not is_tree(data)


@given(st.binary(max_size=100))
def test_noise_is_no_tree_and_never_raises(data: bytes) -> None:
    assert not is_tree(data) or decode_tree(data) == Tree(())


@given(st.text(max_size=30))
def test_whatever_passes_stays_inside(path: str) -> None:
    if not path_problem(path):
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert "\\" not in path
        assert "\0" not in path


def test_a_lone_surrogate_is_refused() -> None:
    """What Python makes of a file name that is not UTF-8."""
    assert path_problem("a\udc80")
    with pytest.raises(UsageError):
        encode_tree([msgspec.structs.replace(entry("a"), path="a\udc80")])
