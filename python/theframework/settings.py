"""The one table of settings.

Each field of `Settings` is a row. The command line's options, the keywords of
`Framework.run`, the environment variables and the page `docs/settings.md` are all read from it
(``python -m theframework.settings`` prints the page).

A value comes from the nearest source: the option or keyword, else the environment, else the
default. ``bind`` and ``host``/``port`` say the same thing, so the nearer of the two wins, and
giving both in one source is refused.

This file knows names, types and bounds. What a setting *does* is elsewhere: in the core, the
listeners, the supervisor or the worker.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from theframework._framework_core import check_trusted_peers
from theframework.addresses import PORT_MAX, Address, TcpAddress, parse_address

ENVIRONMENT_PREFIX = "THEFRAMEWORK_"
DRIVERS = ("auto", "io_uring", "poll")
# As `_framework_core.io_uring_features` names them.
IO_URING_FEATURES = (
    "submit_all",
    "coop_taskrun",
    "single_issuer",
    "defer_taskrun",
    "ext_arg",
    "skip_success",
    "buffer_ring",
    "multishot_accept",
    "multishot_receive",
)
HEADER_MAPS = ("drop", "refuse", "dangerous")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_YEAR_SECONDS = 366 * 24 * 3600
_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS = frozenset({"0", "false", "no", "off"})


class SettingsError(ValueError):
    """A setting that is unknown or out of its bounds; the text is one sentence for a person."""


@dataclass(frozen=True)
class Setting:
    """One row of the table: everything about a setting but its meaning."""

    name: str
    type: type
    default: Any
    unit: str
    help: str
    aliases: tuple[str, ...] = ()
    short: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    is_power_of_two: bool = False
    is_networks: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases: what a keyword may be called."""
        return (self.name, *self.aliases)

    @property
    def env(self) -> str:
        """The environment variable of the setting."""
        return environment_name(self.name)

    @property
    def flag(self) -> str:
        """The long option of the setting."""
        return option_name(self.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """All options: the short one, the long one and those of the aliases."""
        long = tuple(option_name(name) for name in self.names)
        return (f"-{self.short}", *long) if self.short else long

    @property
    def bounds(self) -> str:
        """The legal values in words, for messages and the page."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.words:
            return "any of " + ", ".join(self.words) + ", separated by commas"
        if self.type is bool:
            return "yes or no"
        if self.type is tuple:
            return "HOST:PORT, [IPV6]:PORT or unix:PATH"
        if self.is_networks:
            return "addresses and networks (10.0.0.0/8), or *, separated by commas"
        if self.type is str:
            return "text"
        if self.is_power_of_two:
            return f"a power of two from {_shown(self.minimum)} to {_shown(self.maximum)}"
        noun = "a whole number" if self.type is int else "a number"
        if self.above is not None:
            return f"{noun} above {self.above:g}, at most {_shown(self.maximum)}"
        return f"{noun} from {_shown(self.minimum)} to {_shown(self.maximum)}"

    def parse(self, value: object, source: str) -> Any:
        """Check `value`, a text or already of the setting's type; `source` names it in errors."""
        try:
            parsed = _PARSERS[self.type](value)
        except ValueError as error:
            reason = f": {error}" if self.type is tuple else ""
            raise self._refusal(value, source, reason) from None
        if isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
            self._check_bounds(parsed, value, source)
        if self.choices and parsed not in self.choices:
            raise self._refusal(value, source)
        if self.words and isinstance(parsed, str) and not {*listed(parsed)} <= {*self.words}:
            raise self._refusal(value, source)
        if self.is_networks and isinstance(parsed, str):
            self._check_networks(parsed, value, source)
        if self.is_power_of_two and isinstance(parsed, int) and parsed.bit_count() != 1:
            raise self._refusal(value, source)
        if isinstance(parsed, str) and not _is_header_text(parsed):
            raise SettingsError(f"{source} holds a character that no header or name may hold")
        return parsed

    def _check_bounds(self, parsed: float, value: object, source: str) -> None:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        too_low = parsed < low or (self.above is not None and parsed <= self.above)
        if too_low or parsed > high or math.isnan(parsed):
            raise self._refusal(value, source)

    def _check_networks(self, parsed: str, value: object, source: str) -> None:
        try:
            check_trusted_peers(parsed)
        except ValueError as error:
            raise self._refusal(value, source, f": {error}") from None

    def _refusal(self, value: object, source: str, reason: str = "") -> SettingsError:
        return SettingsError(f"{source} must be {self.bounds}, not {value!r}{reason}")


def _row(
    default: Any,
    help: str,
    *,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    short: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    is_power_of_two: bool = False,
    is_networks: bool = False,
) -> Any:
    described = {
        "help": help,
        "unit": unit,
        "aliases": aliases,
        "short": short,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": choices,
        "words": words,
        "is_power_of_two": is_power_of_two,
        "is_networks": is_networks,
    }
    return field(default=default, metadata=described)


def _size(default: int, help: str, *, minimum: int = 0, aliases: tuple[str, ...] = ()) -> Any:
    return _row(default, help, unit="bytes", minimum=minimum, maximum=2**40, aliases=aliases)


def _time(
    default: float,
    help: str,
    *,
    may_be_zero: bool = False,
    aliases: tuple[str, ...] = (),
) -> Any:
    return _row(
        default,
        help,
        unit="seconds",
        minimum=0 if may_be_zero else None,
        above=None if may_be_zero else 0,
        maximum=_YEAR_SECONDS,
        aliases=aliases,
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings with their values; see the module's text for where those come from."""

    host: str = _row("127.0.0.1", "Host name or address to listen on.")
    port: int = _row(
        8000, "TCP port to listen on; 0 takes a free one.", minimum=0, maximum=PORT_MAX
    )
    bind: tuple[str, ...] = _row(
        (),
        "Where to listen: HOST:PORT, [IPV6]:PORT or unix:PATH, instead of host and port. "
        "May be given several times (in the environment: separated by commas).",
        short="b",
    )
    workers: int = _row(
        1, "Worker processes; 0 means one per core.", short="w", minimum=0, maximum=1024
    )
    backlog: int = _row(
        2048,
        "Connections that the kernel queues per listener until a worker accepts them; the "
        "system's net.core.somaxconn caps it.",
        unit="connections",
        minimum=1,
        maximum=2**31 - 1,
    )
    reuse_port: bool = _row(
        False,
        "Give each worker a listening socket of its own (SO_REUSEPORT) instead of one that all "
        "share.",
    )
    max_connections: int = _row(
        4096,
        "Connections that one worker serves at a time; lowered when the descriptor limit is "
        "below it.",
        unit="connections",
        minimum=1,
        maximum=1_000_000,
        aliases=("worker_connections",),
    )
    accept_pause: float = _time(
        1.0,
        "How long a full worker leaves new connections to others before it answers them with "
        "503; 0 answers at once.",
        may_be_zero=True,
    )
    max_target_size: int = _size(
        8192,
        "Longest request target (path and query); a longer one gets 414.",
        minimum=1,
        aliases=("limit_request_line",),
    )
    max_header_size: int = _size(32_768, "Largest request head; a larger one gets 431.", minimum=64)
    max_body_size: int = _size(
        1_048_576, "Largest request body; exactly this size passes, a larger one gets 413."
    )
    max_stream_size: int = _size(
        0,
        "Largest request body of a route that streams, unless the route says; a larger one gets "
        "413, or the handler BodyError. 0: no limit.",
    )
    read_ahead: int = _size(
        65_536,
        "Bytes of later requests that a connection holds while a handler of it runs.",
        minimum=1,
    )
    read_timeout: float = _time(
        30, "Time for a whole request head, and between two reads of a body; then 408."
    )
    min_body_rate: int = _row(
        1024,
        "Slowest body after its first read_timeout, while the server waits for the client; a "
        "slower one gets 408. 0 allows any rate.",
        unit="bytes per second",
        minimum=0,
        maximum=2**40,
    )
    write_timeout: float = _time(
        30, "Time without the client taking a byte of the response; then the connection closes."
    )
    keepalive_timeout: float = _time(
        75,
        "Time that an idle connection stays open; keep it above the idle time of a proxy in front.",
        aliases=("keepalive", "keep_alive"),
    )
    handler_timeout: float = _time(
        30,
        "Time for a handler until its response begins, ended by HandlerTimeout at its next wait "
        "and answered with 503; 0 turns it off.",
        may_be_zero=True,
    )
    graceful_timeout: float = _time(
        30, "Time that requests in flight get at a stop; 0 ends them at once.", may_be_zero=True
    )
    switch_interval: float = _row(
        0.0002,
        "How long a computing Python thread keeps the interpreter once the server wants it "
        "(sys.setswitchinterval).",
        unit="seconds",
        above=0,
        maximum=1,
    )
    driver: str = _row(
        "auto",
        "What talks to the kernel: io_uring; or poll (epoll), which runs anywhere and costs more "
        "per request. auto takes io_uring where it works, and says once why not.",
        choices=DRIVERS,
    )
    receive_buffers: int = _row(
        512,
        "Receive buffers of 4 KiB of each worker, shared by all its connections: as many can bring "
        "bytes in one turn of the loop; others wait for the next.",
        unit="buffers",
        minimum=16,
        maximum=32_768,
        is_power_of_two=True,
    )
    io_uring_without: str = _row(
        "",
        "Features of io_uring that are not used though the kernel has them: for kernels with a "
        "defect in one, and for tests.",
        words=IO_URING_FEATURES,
    )
    header_map: str = _row(
        "drop",
        "What becomes of a header with an underscore in its name, which a WSGI application could "
        "not tell from the one with a hyphen: drop leaves it out of request.headers; refuse "
        "answers 400; dangerous keeps it. request.raw_headers has every header.",
        choices=HEADER_MAPS,
    )
    forwarded_allow_ips: str = _row(
        "127.0.0.1,::1",
        "Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, for request.client and "
        "request.scheme; * believes everyone, so nobody but proxies may reach the server then. A "
        "peer on a unix socket is believed always. List every proxy on the way, so that the "
        "client's address can be told from theirs.",
        is_networks=True,
    )
    server_header: str = _row("", "Value of the Server header of every response; empty sends none.")
    log_level: str = _row(
        "info", "Least severe messages that are logged.", aliases=("loglevel",), choices=LOG_LEVELS
    )

    def addresses(self) -> list[Address]:
        """Where to listen, in the order given."""
        if self.bind:
            return [parse_address(text) for text in self.bind]
        return [TcpAddress(self.host, self.port)]

    def worker_count(self) -> int:
        """`workers` with 0 resolved: the cores that this process may use."""
        return self.workers or len(os.sched_getaffinity(0))

    def as_dict(self) -> dict[str, Any]:
        """Every setting by its name."""
        return {setting.name: getattr(self, setting.name) for setting in TABLE}


def environment_name(name: str) -> str:
    """The environment variable that belongs to a setting's name or alias."""
    return ENVIRONMENT_PREFIX + name.upper()


def option_name(name: str) -> str:
    """The long option that belongs to a setting's name or alias."""
    return "--" + name.replace("_", "-")


def listed(text: str) -> list[str]:
    """The words of a text that separates them by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def resolve(
    options: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    as_options: bool = False,
) -> Settings:
    """Settings from `options` (by name or alias), the environment and the defaults.

    Raises `TypeError` for an unknown name, as any unknown keyword would, and `SettingsError` for
    a bad value. With `as_options` errors name the command line's options.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    _overlay(values, _from_environment(environ))
    label = option_name if as_options else str
    given = {name: (label(name), value) for name, value in options.items()}
    _overlay(values, _parsed(given))
    return Settings(**values)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, tuple[str, object]] = {}
    for name in _BY_NAME:
        variable = environment_name(name)
        if variable in environ:
            given[name] = (variable, environ[variable])
    return _parsed(given)


def _parsed(given: Mapping[str, tuple[str, object]]) -> dict[str, Any]:
    """Values of one source by canonical name. Two names of one setting are a contradiction."""
    values: dict[str, Any] = {}
    source_of: dict[str, str] = {}
    for name, (source, value) in given.items():
        setting = _BY_NAME.get(name)
        if setting is None:
            raise TypeError(f"there is no setting {name!r}{_did_you_mean(name)}")
        if setting.name in values:
            raise SettingsError(f"{source_of[setting.name]} and {source} are the same setting")
        values[setting.name] = setting.parse(value, source)
        source_of[setting.name] = source
    for name in ("host", "port"):
        if name in values and values.get("bind"):
            raise SettingsError(
                f"{source_of['bind']} already says where to listen; leave out {source_of[name]}"
            )
    return values


def _overlay(values: dict[str, Any], nearer: Mapping[str, Any]) -> None:
    """Put a nearer source over `values`; a nearer address replaces the other spelling of one."""
    if nearer.get("bind"):
        values.pop("host", None)
        values.pop("port", None)
    elif "host" in nearer or "port" in nearer:
        values.pop("bind", None)
    values.update(nearer)


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, _BY_NAME, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _parse_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(value)
    return int(value)


def _parse_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(value)
    return float(value)


def _parse_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise ValueError(value)


def _parse_str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _parse_binds(value: object) -> tuple[str, ...]:
    """A list of binds, or one text with commas between them."""
    if isinstance(value, str):
        value = listed(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError("not a text or a list of texts")
    for text in value:
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is not a text")
        parse_address(text)
    return tuple(value)


_PARSERS = {
    int: _parse_int,
    float: _parse_float,
    bool: _parse_bool,
    str: _parse_str,
    tuple: _parse_binds,
}


def _is_header_text(text: str) -> bool:
    return all(" " <= character <= "\xff" and character != "\x7f" for character in text)


def _shown(number: float | None) -> str:
    return "any" if number is None else f"{number:.15g}"


def _table() -> tuple[Setting, ...]:
    types = {"int": int, "float": float, "bool": bool, "str": str, "tuple[str, ...]": tuple}
    return tuple(
        Setting(name=row.name, type=types[str(row.type)], default=row.default, **row.metadata)
        for row in fields(Settings)
    )


TABLE: tuple[Setting, ...] = _table()
_BY_NAME: dict[str, Setting] = {name: setting for setting in TABLE for name in setting.names}


_PAGE_HEAD = """\
# Settings

<!-- Written by `make docs` from python/theframework/settings.py; change it there. -->

A setting is given as an option of `theframework run`, as a keyword of `app.run()`, or as an
environment variable; the option or keyword wins over the environment. Times are in seconds,
sizes in bytes. `bind` stands in place of `host` and `port`: the one that is given nearer counts.
"""


def page() -> str:
    """The text of `docs/settings.md`."""
    return _PAGE_HEAD + "".join(_page_entry(setting) for setting in TABLE)


def _page_entry(setting: Setting) -> str:
    lines = [
        f"\n## {setting.name}\n",
        f"{setting.help}\n",
        f"- default: {_default_text(setting)}",
        f"- values: {setting.bounds}",
        f"- option: {', '.join(f'`{flag}`' for flag in setting.flags)}",
        f"- environment: `{setting.env}`",
    ]
    if setting.aliases:
        lines.append(f"- also called: {', '.join(f'`{alias}`' for alias in setting.aliases)}")
    return "\n".join(lines) + "\n"


def _default_text(setting: Setting) -> str:
    if setting.default == () or setting.default == "":
        return "empty"
    if setting.type is bool:
        return "yes" if setting.default else "no"
    number = f"{setting.default:,}" if setting.type is int else str(setting.default)
    if setting.name == "port":
        number = str(setting.default)
    return f"{number} {setting.unit}".rstrip()


if __name__ == "__main__":
    print(page(), end="")
