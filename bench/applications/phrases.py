"""English phrases and their German translations, from CLDR, which the package ``babel`` ships."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import cache
from typing import Any

from strop.bench.applications.sequences import Pair
from strop.bench.models.text import Part, part_of

SOURCE, TARGET = "en", "de"
_NAMES = ("languages", "territories", "scripts", "currencies")
_AMOUNTS = (1, 2, 3, 5, 7, 12, 24, 40, 99, 150)
# Days between two dates: no divisor of a week, a month or a year, so that all of them occur.
_DAYS, _FROM, _UNTIL = 13, datetime.date(1960, 1, 1), datetime.date(2040, 1, 1)


@cache
def phrases(part: Part) -> tuple[Pair, ...]:
    """Names, dates, measures, amounts of money, and languages of countries; each phrase once.

    The parts share words and patterns, and no phrase. Phrases that are the same in both languages
    are left out.
    """
    found = {source: Pair(source, target) for source, target in _all() if source != target}
    return tuple(pair for source, pair in found.items() if part_of(source) == part)


def _all() -> Iterator[tuple[str, str]]:
    yield from _names()
    yield from _dates()
    yield from _measures()
    yield from _languages_of_countries()


def _locales() -> tuple[Any, Any]:
    """The two languages.

    Raises:
        ModuleNotFoundError: babel is missing, and how to install it.
    """
    try:
        from babel import Locale
    except ModuleNotFoundError as error:
        message = "babel is missing: pip install 'strop[applications]'"
        raise ModuleNotFoundError(message) from error
    return Locale(SOURCE), Locale(TARGET)


def _names() -> Iterator[tuple[str, str]]:
    first, second = _locales()
    for kind in _NAMES:
        names = [getattr(locale, kind) for locale in (first, second)]
        for code in sorted(set(names[0]) & set(names[1])):
            yield names[0][code], names[1][code]


def _dates() -> Iterator[tuple[str, str]]:
    from babel.dates import format_date

    for number in range(0, (_UNTIL - _FROM).days, _DAYS):
        day = _FROM + datetime.timedelta(number)
        form = ("full", "long", "medium")[number % 3]
        yield format_date(day, form, SOURCE), format_date(day, form, TARGET)


def _measures() -> Iterator[tuple[str, str]]:
    from babel.numbers import format_currency
    from babel.units import format_unit

    first, _ = _locales()
    for number in _AMOUNTS:
        for unit in sorted(first.unit_display_names):
            yield format_unit(number, unit, locale=SOURCE), format_unit(number, unit, locale=TARGET)
        for code in sorted(first.currencies)[number % 3 :: 3]:
            said = [
                format_currency(number, code, locale=locale, format_type="name")
                for locale in (SOURCE, TARGET)
            ]
            yield said[0], said[1]


def _languages_of_countries() -> Iterator[tuple[str, str]]:
    from babel import Locale
    from babel.localedata import locale_identifiers

    for code in locale_identifiers():
        locale = Locale.parse(code)
        if locale.territory:
            names = (locale.get_display_name(SOURCE), locale.get_display_name(TARGET))
            if all(names):
                yield str(names[0]), str(names[1])
