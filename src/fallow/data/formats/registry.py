"""All formats, in the order in which they are asked. The last one takes every text."""

from __future__ import annotations

from fallow.data.formats.columns import Arrow, Parquet
from fallow.data.formats.csv_table import Csv
from fallow.data.formats.format import Format
from fallow.data.formats.json_values import JsonValues
from fallow.data.formats.other import Other
from fallow.data.formats.plain import Plain
from fallow.data.source import Source

FORMATS: tuple[Format, ...] = (Parquet(), Arrow(), Other(), JsonValues(), Csv(), Plain())


def format_of(source: Source) -> Format:
    """What a file is."""
    return next(form for form in FORMATS if form.knows(source))
