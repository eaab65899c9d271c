"""Check what `@distortion(…)` is given, and the function under it, when it is registered.

What is wrong is a UserError that names the function, the value and the way out.
"""

import inspect
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from distortions.guard import describe
from utils.errors import UserError

KADID_PREFIX = "kadid_"
DTYPES = ("float32", "uint8")
RESERVED = (
    "all",
    "auto",
    "default",
    "kadid",
    "pristine",
)  # have a meaning of their own in flags and labels


def check_function(function: Any, standard: Sequence[str]) -> None:
    """Refuse what cannot be registered, by its kind or its name.

    standard: the names that only the project's own functions have.
    """
    inner = inspect.unwrap(function)
    if not callable(inner) or isinstance(inner, type):
        _refuse(inner, "is no function", "a function", "write it as `def name(…)`")
    if not getattr(inner, "__name__", "").isidentifier():
        _refuse(inner, "has no name", "a function with a name", "write it as `def name(…)`")
    name = function.__name__
    if not name.isidentifier():
        advice = "use letters, digits and _ alone"
        _refuse(function, f"has the name {name!r}", "a name without spaces or commas", advice)
    if name in RESERVED:
        _refuse(function, f"has the name {name!r}, which is taken", "another", "rename it")
    if name in standard and function.__module__ != "distortions.standard":
        _refuse(
            function,
            f"has the name {name!r} of one of the default eight, whose results would change",
            "a name of its own",
            "rename it",
        )
    is_kadid = str(function.__module__).startswith("distortions.kadid")
    if name.startswith(KADID_PREFIX) and not is_kadid:
        got = f"has the name {name!r}, whose beginning is that of KADID-10k's family"
        _refuse(function, got, "another beginning", "rename it")
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        _refuse(function, "is a generator", "a function", "replace `yield` by `return`")
    if inspect.iscoroutinefunction(inner):
        _refuse(function, "is async", "a function", "write `def` in place of `async def`")


def check_signature(function: Any, has_table: bool) -> None:
    """Refuse a function that cannot be called with what a distortion gets, in its order."""
    inner = getattr(function, "of_one_image", None)
    first = "images" if inner is None else "image"
    names = (first, "parameter", "rng") if has_table else (first, "level", "direction", "rng")
    expected = f"({', '.join(names)})" + (", because it has a table" if has_table else "")
    try:
        signature = inspect.signature(inner or function, follow_wrapped=False)
    except ValueError:  # written in C
        return
    given = list(signature.parameters)
    advice = f"write `def {function.__name__}({', '.join(names)})`"
    if given[:1] == ["self"]:
        advice += ", outside of a class"
    try:
        signature.bind(*names)
    except TypeError:
        _refuse(function, f"takes {signature}", expected, advice)
    for i, name in enumerate(given):
        if name in ("level", "direction", "rng") and name in names and names.index(name) != i:
            _refuse(function, f"takes {signature}", f"the order {expected}", advice)


def check_quality(function: Any, worst_quality: Any) -> float:
    """Return the quality that level 1 leaves, a number from 0 to 100."""
    if is_number(worst_quality) and 0 <= worst_quality <= 100:
        return as_number(worst_quality)
    return _refuse(
        function,
        f"has worst_quality={_show(worst_quality)}",
        "a number from 0 to 100",
        "give the quality that level 1 leaves, as @distortion(worst_quality=50)",
    )


def check_tables(
    function: Any, levels: Any, directions: Any, parameter: Any, positions: Sequence[float]
) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    """Return the names of the directions, and a table of the parameter for each, or for all.

    positions: the levels where a table has its values.
    """
    if not isinstance(parameter, str):
        advice = 'give a text, such as parameter="sigma, pixels"'
        _refuse(function, f"has parameter={_show(parameter)}", "a text", advice)
    if isinstance(levels, Mapping):
        if directions and tuple(directions) != tuple(levels):
            got = f"has directions={_show(directions)} beside those of its levels"
            _refuse(function, got, "one of both", "leave out directions=")
        names = _check_directions(function, tuple(levels), counts=(2,))
        tables = tuple(_check_table(function, levels[name], positions) for name in names)
    else:
        names = _check_directions(function, directions, counts=(0, 2))
        tables = (_check_table(function, levels, positions),) if _has_levels(levels) else ()
        if tables and names:
            low, high = names
            _refuse(
                function,
                f"has directions={names!r} and one table",
                "a table for each direction",
                f"give levels={{{low!r}: (…), {high!r}: (…)}}",
            )
    if tables and not parameter.strip():
        advice = 'give what the table holds, such as parameter="sigma, pixels"'
        _refuse(function, "has levels= without parameter=", "both", advice)
    if parameter and not tables:
        advice = f"give its values at the levels {positions}, or leave out parameter="
        _refuse(function, f"has parameter={parameter!r} without levels=", "both", advice)
    return names, tables


def _check_table(function, values, positions):
    """Return a table as a tuple of a finite number for each position."""
    expected = f"{len(positions)} numbers, at the levels {positions}"
    values = values.tolist() if hasattr(values, "tolist") else values
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    is_complete = is_sequence and len(values) == len(positions)
    if not is_complete or not all(map(is_number, values)):
        _refuse(
            function, f"has levels={_show(values)}", expected, "give one number for each of them"
        )
    return tuple(map(as_number, values))


def _check_directions(function, names, counts):
    """Return the names of the directions −1 and +1, or none where counts allow it."""
    is_sequence = isinstance(names, Sequence) and not isinstance(names, str)
    is_named = is_sequence and all(isinstance(name, str) and name.strip() for name in names)
    if is_named and len(names) == len(set(names)) and len(names) in counts:
        return tuple(names)
    advice = 'give them as "low" and "high" in levels={"low": (…), "high": (…)}'
    if 0 in counts:
        advice = 'give directions=("low", "high"), or leave it out'
    return _refuse(
        function,
        f"has the directions {_show(names)}",
        "two different names, of the directions −1 and +1",
        advice,
    )


def check_dtype(function: Any, dtype: Any) -> str:
    """Return the dtype of the images that the function takes and gives."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    return _refuse(
        function,
        f"has dtype={_show(dtype)}",
        "'float32' (values in 0–1) or 'uint8' (bytes)",
        "give one of these; without dtype= it is float32",
    )


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number: Python's or numpy's, but neither True nor False."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def as_number(value: Any) -> float:
    """Return a number of any type as Python's."""
    return value if isinstance(value, int) else float(value)


def _has_levels(levels):
    """Tell whether something is given for levels=, right or wrong."""
    return not (isinstance(levels, tuple | list) and len(levels) == 0)


def _show(value):
    """Return a value's representation in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:80] + "…"


def _refuse(function, got, expected, advice) -> NoReturn:
    raise UserError(f"{describe(function)} {got}, expected {expected}; {advice}")
