"""Values as a person reads them, by Grafana's ids of units, and round values for an axis."""

import math
from collections.abc import Callable, Mapping
from typing import Final

_DAY_SECONDS: Final = 86_400
_TIMES: Final = ((_DAY_SECONDS, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
_CLOCK_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, _DAY_SECONDS)
_WANTED_STEPS: Final = 4


def written(value: float, unit: str) -> str:
    """Return a value with its unit, three digits of it; raise KeyError for a unit that no board has."""
    if math.isnan(value):
        return "no value"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return _UNITS[unit](value)


def figure(value: float, digits: int = 3) -> str:
    """Return a number with so many digits that count, without exponent and without zeros at its end."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def axis(low: float, high: float, unit: str) -> list[float]:
    """Return round values, evenly apart, of which the first is not above `low` and the last not below `high`."""
    high = high if high > low else low + 1
    step = _step((high - low) / _WANTED_STEPS, unit)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _step(least: float, unit: str) -> float:
    """Return the smallest round step that is at least so large."""
    if unit == "s" and 1 < least <= _DAY_SECONDS:
        return next(float(step) for step in _CLOCK_STEPS if step >= least)
    if unit == "s" and least > _DAY_SECONDS:
        return _DAY_SECONDS * _decimal_step(least / _DAY_SECONDS)
    if unit == "bytes" and least >= 1:
        return 2.0 ** math.ceil(math.log2(least))
    return _decimal_step(least)


def _decimal_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(round_one * power for round_one in (1, 2, 2.5, 5, 10) if round_one * power >= least * (1 - 1e-9))


def _short(value: float) -> str:
    return _scaled(value, 1000, ("", " K", " Mil", " Bil"))


def _bytes(value: float) -> str:
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: float, base: int, names: tuple[str, ...]) -> str:
    place = 0
    while abs(value) >= base and place < len(names) - 1:
        value, place = value / base, place + 1
    return f"{figure(value)}{names[place]}"


def _dollars(value: float) -> str:
    return f"{'-' if value < 0 else ''}${_scaled(abs(value), 1000, ('', 'K', 'M', 'B'))}"


def _seconds(value: float) -> str:
    for size, name in _TIMES:
        if abs(value) >= size:
            return f"{figure(value / size)} {name}"
    return "0 s" if value == 0 else f"{figure(value * 1e6)} µs"


_UNITS: Final[Mapping[str, Callable[[float], str]]] = {
    "short": _short,
    "bytes": _bytes,
    "currencyUSD": _dollars,
    "s": _seconds,
    "d": lambda value: f"{figure(value)} days",
    # Four digits: 99.95 % is promised.
    "percentunit": lambda value: f"{figure(value * 100, 4)} %",
    "reqps": lambda value: f"{_short(value)} req/s",
    "bool_yes_no": lambda value: "Yes" if value else "No",
}
