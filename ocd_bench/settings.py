"""Settings with metadata: the meaning of each value, the accepted values, and one checker for all settings.

A section of the configuration is a frozen dataclass of plain values. Each of its fields may be declared with :func:`setting`::

    @dataclass(frozen=True)
    class Settings:
        noise: float = setting(0.2, least=0, unit="SD of the inputs", help="Strength of the noise.")

The declaration feeds the checks of ``--set`` and ``--config``, ``ocd-bench list settings``, ``ocd-bench config new`` and
``docs/settings.md``. A field without it is checked by its type alone. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from ocd_bench.errors import UsageError

KEY = "ocd_bench"
"""Key of the :class:`Setting` in a field's metadata."""

MOST_INT = 2**31 - 1
"""Largest whole number if a field declares no ``most``. A larger count would overflow."""

SHOWN = 60
"""Maximum number of characters of a wrong value that an error message repeats."""

WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True)
class Setting:
    """The declaration of one field. For a tuple the limits apply to every element. See :func:`setting` for the arguments."""

    help: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None
    also: tuple[Any, ...] = ()
    multiple: int | None = None
    length: int | None = None
    empty: bool = True
    unit: str = ""

    def accepts(self, value: Any) -> bool:
        """Whether one converted value (not a tuple) is within the limits."""
        if value in self.also:
            return True
        if self.choices is not None:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (not self.multiple or value % self.multiple == 0)
        )

    def range(self) -> str:
        """The limits in words, such as ``1 or more`` or ``one of sgd, adam``; empty if there are none."""
        limits: list[str] = []
        if self.choices is not None:
            limits = [f"one of {', '.join(self.choices)}"]
        elif self.least is not None and self.most is not None:
            limits = [f"{_number(self.least)} to {_number(self.most)}"]
        else:
            words = (
                ("{} or more", self.least),
                ("more than {}", self.above),
                ("less than {}", self.below),
                ("at most {}", self.most),
            )
            limits = [word.format(_number(limit)) for word, limit in words if limit is not None]
        text = ", and ".join(limits)
        if self.multiple:
            text = ", ".join(filter(None, ["an even number" if self.multiple == 2 else f"a multiple of {self.multiple}", text]))
        return ", or ".join(filter(None, [*(_plain(value) for value in self.also), text]))


def setting(
    default: Any,
    *,
    help: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
    also: Sequence[Any] = (),
    multiple: int | None = None,
    length: int | None = None,
    empty: bool | None = None,
    unit: str = "",
) -> Any:
    """A dataclass field that declares what its value means and which values are accepted.

    Args:
        default: of type ``bool``, ``int``, ``float``, ``str``, None or a tuple of one of them, as the field is annotated.
        help: one or two sentences in plain English: what the setting does, and where its default comes from.
        least, most: the range, ends included. Without ``most``, a whole number may be at most 2**31 - 1.
        above, below: the range, ends excluded.
        choices: the texts that are allowed.
        also: further values that are allowed outside the range or the choices, such as 0 for "off".
        multiple: the value must be a multiple of this.
        length: how many elements a tuple must have.
        empty: whether a tuple may be empty; by default only if ``default`` is.
        unit: of a number, such as ``seconds``.

    Raises:
        ValueError: if ``help`` is empty, or a limit does not admit the default.
    """
    if not help.strip():
        raise ValueError("a setting needs a help text")
    if empty is None:
        empty = not isinstance(default, tuple) or not default
    known = Setting(
        " ".join(help.split()), least, most, above, below, None if choices is None else tuple(choices), tuple(also), multiple,
        length, empty, unit,
    )  # fmt: skip
    for value in default if isinstance(default, tuple) else (default,):
        if value is not None and not known.accepts(value):
            raise ValueError(f"the default {value!r} is not {known.range()}")
    return dataclasses.field(default=default, metadata={KEY: known})


def with_default(base: type, name: str, default: Any) -> Any:
    """Field ``name`` of the dataclass ``base`` for a class derived from it, with another default and the same metadata."""
    known = next(field for field in dataclasses.fields(base) if field.name == name)
    return dataclasses.field(default=default, metadata=known.metadata)


def metadata(field: dataclasses.Field[Any]) -> Setting:
    """The declaration of ``field``; without limits if it declares nothing."""
    return field.metadata.get(KEY, Setting())


class Checked:
    """Base of a settings class that also refuses a value out of range when it is created in Python, not only by ``--set``.

    Rules about several fields go into ``__post_init__``, after ``super().__post_init__()``. ``section`` is the name that
    messages use.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        values_as(self.section, type(self), values)


def values_as(section: str, cls: type, values: Mapping[str, Any], origin: str = "") -> dict[str, Any]:
    """``values`` (text of the command line, or plain values) converted to the types of the fields of ``cls``, and checked.

    Args:
        origin: where the values come from, such as ``--config FILE.toml``; put in front of a message.

    Raises:
        UsageError: for a value of another type or out of range, naming ``section.key``, the value and what is expected.
        KeyError: for a name that is no field.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return {name: _checked(section, fields[name], hints[name], value, origin) for name, value in values.items()}


def _checked(section: str, field: dataclasses.Field[Any], kind: Any, value: Any, origin: str) -> Any:
    known = metadata(field)
    name = f"{section}.{field.name}" if section else field.name
    place = f"{origin}: setting {name}" if origin else f"setting {name}"
    try:
        converted = convert(value, kind)
    except ValueError:
        raise UsageError(f"{place}={_short(value)}: expected {expected(kind, known)}") from None
    if problem := _problem(converted, known, field.default):
        raise UsageError(f"{place}={_short(converted)}: {problem}")
    return converted


def _problem(value: Any, known: Setting, default: Any) -> str | None:
    """The problem of a converted value, or None. The default of a field that declares nothing is always accepted."""
    if value is None or (known == Setting() and value == default):
        return None
    if isinstance(value, tuple):
        return _list_problem(value, known)
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected {', '.join(filter(None, ['a finite number', known.range()]))}"
    if isinstance(value, int) and known.most is None and abs(value) > MOST_INT:
        return f"expected at most {MOST_INT:,}"
    if known.accepts(value):
        return None
    hint = nearest(value, known.choices) if known.choices and isinstance(value, str) else ""
    return f"expected {known.range()}{hint}"


def _list_problem(values: tuple[Any, ...], known: Setting) -> str | None:
    if known.length is not None and len(values) != known.length:
        return f"expected {known.length} values"
    if not values and not known.empty:
        return "expected at least one value"
    for value in values:
        if problem := _problem(value, known, None):
            return f"{_short(value)} in this list: {problem}"
    return None


def convert(value: Any, kind: Any) -> Any:
    """``value`` as type ``kind``: bool, int, float, str, one of them or None, or a tuple of one.

    >>> convert("1e3", int), convert("off", bool), convert("1,2", tuple[float, ...])
    (1000, False, (1.0, 2.0))

    Raises:
        ValueError: if it is of another type.
    """
    arguments = get_args(kind)
    if type(None) in arguments:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            return None
        return convert(value, _inner(kind))
    if get_origin(kind) is tuple:
        items: Any = value
        if isinstance(value, str):
            items = [item.strip() for item in value.split(",")]
            if not items[-1]:  # an empty text is an empty list, and a list may end with a comma
                items.pop()
        if not isinstance(items, list | tuple) or "" in items:
            raise ValueError(value)
        return tuple(convert(item, arguments[0]) for item in items)
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in WORDS:
            return WORDS[str(value).lower()]
        raise ValueError(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)
    if kind is int:
        return _whole(value)
    if kind is float:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(value) from None
    if kind is str:
        return str(value)
    raise ValueError(value)


def _whole(value: str | int | float) -> int:
    try:
        return int(value) if not isinstance(value, float) else _whole(repr(value))
    except ValueError:
        number = float(value)  # 1e3
        if not number.is_integer():  # also for infinity and NaN
            raise ValueError(value) from None
        return int(number)


def expected(kind: Any, known: Setting) -> str:
    """The values that a field accepts, in words: ``a whole number, 1 or more``; ``a list of numbers, each 0 or more, at least
    one``."""
    nothing = ", or none" if type(None) in get_args(kind) else ""
    kind = _inner(kind)
    limits = known.range()
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        many = {int: "whole numbers", float: "numbers", str: "names"}.get(inner, "values")
        size = "" if known.length is None else f"{known.length} "
        text = f"a list of {size}{many}"
        if limits:
            text += f", each {limits}"
        return text + ("" if known.empty or known.length else ", at least one") + nothing
    if kind is bool:
        return "true or false" + nothing
    if kind is str:
        return (limits or "text") + nothing
    word = {int: "a whole number", float: "a number"}.get(kind, str(getattr(kind, "__name__", kind)))
    return ", ".join(filter(None, [word, limits])) + nothing


def type_name(kind: Any) -> str:
    """A field's type for ``list settings --json``: ``int``, ``float``, ``str``, ``bool``, ``list of float``."""
    inner = _inner(kind)
    if get_origin(inner) is tuple:
        return f"list of {get_args(inner)[0].__name__}"
    return str(getattr(inner, "__name__", inner))


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known name, or an empty text."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _inner(kind: Any) -> Any:
    """``X`` of ``X | None``; any other type as it is."""
    arguments = get_args(kind)
    if type(None) in arguments:
        return next(argument for argument in arguments if argument is not type(None))
    return kind


def _number(value: float) -> str:
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 1e15)
    return f"{int(value):,}" if whole else f"{value:g}"


def _plain(value: Any) -> str:
    if isinstance(value, int | float):
        return _number(value)
    return str(value) or "nothing"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number with more digits than Python converts to text
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."
