from __future__ import annotations

import pytest

from fallow.interop.akash.decode import Decoder
from fallow.interop.akash.quantities import bytes_of, cpu_of, gpu_of, ram_key
from fallow.interop.shape import Trouble
from fallow.interop.tree import compose


def value(decoder: Decoder, text: str) -> object:
    troubles: list[Trouble] = []
    found = decoder(compose(text.encode()), troubles)
    return None if troubles else found


@pytest.mark.parametrize(
    ("decoder", "text", "expected"),
    [
        (bytes_of, "512Mi", 2**29), (bytes_of, "1.5k", 1500), (bytes_of, "7", 7), (bytes_of, "1e3", 1000),
        (bytes_of, "1K", None), (bytes_of, "-1", None), (bytes_of, "1 Gi", None), (bytes_of, "{a: 1}", None),
        (bytes_of, "17Ei", None), (cpu_of, "500m", 500), (cpu_of, "0.2999", 299), (cpu_of, "1.5m", None),
        (cpu_of, "-1", None), (cpu_of, "9999999", None), (gpu_of, "2", 2), (gpu_of, "2.0", None), (gpu_of, "-1", None),
        (ram_key, "80Gi", "80Gi"), (ram_key, "81920Mi", "80Gi"), (ram_key, "1G", None),
    ],
)  # fmt: skip
def test_quantities(decoder: Decoder, text: str, expected: object) -> None:
    assert value(decoder, text) == expected


def test_nothing_is_zero() -> None:
    assert [decoder(None, []) for decoder in (bytes_of, cpu_of, gpu_of)] == [0, 0, 0]
