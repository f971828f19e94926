"""The order of names in JavaScript's `localeCompare`, which the strict manifest is sorted by: that of Unicode's
collation, where `_` comes before `-`, all signs before digits, digits before letters, and a small letter right before
its capital.
"""

from __future__ import annotations

import unicodedata

SIGNS = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"
"""ASCII's signs in the order of the Unicode collation's root table."""
PRIMARY: dict[str, int] = {
    "\t": 1,
    "\n": 2,
    " ": 5,
    **{sign: 10 + place for place, sign in enumerate(SIGNS)},
    **{digit: 100 + place for place, digit in enumerate("0123456789")},
    **{letter: 200 + place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")},
}
OTHERS = 1000
"""Where letters begin that are not ASCII's: in the order of their code points, which is right for most scripts."""


def collation_key(text: str) -> tuple[list[int], list[int], list[bool]]:
    """What to sort by: letters first, then their accents, then their case."""
    if text.isascii() and text.islower() and text.isalnum():
        return [PRIMARY[letter] for letter in text], [], []
    letters: list[int] = []
    accents: list[int] = []
    capitals: list[bool] = []
    for letter in unicodedata.normalize("NFD", text):
        if unicodedata.combining(letter):
            accents.append(ord(letter))
            continue
        small = letter.lower()
        weight = PRIMARY.get(small)
        if weight is None and not letter.isprintable():
            continue
        letters.append(weight if weight is not None else OTHERS + ord(small[0]))
        capitals.append(letter != small)
    return letters, accents, capitals
