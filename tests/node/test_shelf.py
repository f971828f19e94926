"""Parts of tasks laid out as files: from here, from peers, and never more than was allowed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.node.steward.steward_net import office

from fallow.errors import FallowError
from fallow.node.shelf import Shelf
from fallow.wire.tasks import Part
from fallow.wire.trees import TreeEntry, encode_tree


async def test_files_and_folders_from_here_and_from_peers(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 1) as (desk, (seller,)):
        text, theirs = b"a text" * 100, seller.services.blobs
        file = theirs.put(text)
        tree = theirs.put(encode_tree([TreeEntry("a.txt", file, len(text), False)]))
        shelf, sources = Shelf(desk.services), (seller.services.rpc.address(),)
        nobody = await shelf.lay(Part("one", file, len(text)), tmp_path / "none", (), 1 << 20, "a test")
        assert nobody == ("", 0)
        path, size_bytes = await shelf.lay(Part("one", file, len(text)), tmp_path / "out", sources, 1 << 20, "a test")
        assert (Path(path).read_bytes(), size_bytes) == (text, len(text))
        folder, _ = await shelf.lay(Part("folder", tree, 0), tmp_path / "out", sources, 1 << 20, "a test")
        found = [one for one in Path(folder).rglob("*") if one.is_file()] or [Path(folder)]
        assert [one.read_bytes() for one in found] == [text]


async def test_what_is_larger_than_allowed_is_not_taken(tmp_path: Path) -> None:
    async with asyncio.timeout(60), office(tmp_path, 1) as (desk, (seller,)):
        blob = seller.services.blobs.put(b"x" * 1_000)
        with pytest.raises(FallowError) as refused:
            await Shelf(desk.services).lay(
                Part("one", blob, 1_000), tmp_path / "out", (seller.services.rpc.address(),), 10, "a test"
            )
        assert refused.value.code == "E1604"
