from __future__ import annotations

import pytest

from fallow.errors import PeerFault
from fallow.sim.seals import stand_in
from fallow.wire.documents import Signed, Voucher
from fallow.wire.eip712 import account_of, open_signed, recover, sign

SECRET, BANK = b"s" * 32, b"b" * 20
VOUCHER = Voucher(b"l" * 32, 5)


def test_a_stand_in_signature_belongs_to_one_key_and_one_document() -> None:
    with stand_in():
        signed, account = sign(VOUCHER, SECRET, BANK), account_of(SECRET)
        assert open_signed(signed, Voucher, BANK, account) == VOUCHER
        assert account_of(b"t" * 32) != account
        other = sign(Voucher(b"l" * 32, 6), SECRET, BANK)
        with pytest.raises(PeerFault):
            recover(Signed(other.body, signed.signature), BANK)
        with pytest.raises(PeerFault):
            recover(signed, b"c" * 20)


def test_it_is_worth_nothing_outside() -> None:
    with stand_in():
        fake, account = sign(VOUCHER, SECRET, BANK), account_of(SECRET)
    real = sign(VOUCHER, SECRET, BANK)
    assert account_of(SECRET) != account
    assert open_signed(real, Voucher, BANK, account_of(SECRET)) == VOUCHER
    with pytest.raises(PeerFault):
        open_signed(fake, Voucher, BANK, account)
    with stand_in(), pytest.raises(PeerFault):
        recover(real, BANK)


def test_the_real_curve_is_back_after_an_error() -> None:
    before = sign(VOUCHER, SECRET, BANK)
    with pytest.raises(KeyError), stand_in():
        raise KeyError
    assert sign(VOUCHER, SECRET, BANK) == before
