"""The command line: ``theframework run MODULE:APP …`` and ``theframework check``.

The options of ``run`` are the rows of the table of settings. Errors are one sentence on stderr:
exit status 2 for a wrong command line, 1 for a server that could not start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from theframework._version import __version__
from theframework.errors import PROGRAM, StartError, complain
from theframework.settings import TABLE, Setting, SettingsError, resolve

F = TypeVar("F", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        status = commands.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        complain(_sentence(error))
        return 2
    except SettingsError as error:
        complain(error)
        return 2
    except StartError as error:
        complain(error)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    return status if isinstance(status, int) else 0


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> int:
    """A web server for synchronous Python."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return 0


def _with_settings(command: F) -> F:
    """Give a command one option per setting, in the table's order."""
    for setting in reversed(TABLE):
        command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[[F], F]:
    # Values stay texts here: the table parses those of the environment and of code alike.
    default = " ".join(
        str(part) for part in (setting.default, setting.unit) if part not in ("", ())
    )
    text = setting.help if default == "" else f"{setting.help}  [default: {default}]"
    if setting.type is bool:
        switches = "/".join((setting.flag, setting.flag.replace("--", "--no-", 1)))
        return click.option(switches, setting.name, default=None, help=text)
    return click.option(
        *setting.flags,
        setting.name,
        default=None,
        multiple=setting.type is tuple,
        metavar=_METAVARS[setting.type],
        help=text,
    )


_METAVARS = {int: "N", float: "SECONDS", str: "TEXT", tuple: "ADDRESS"}


@commands.command("run")
@click.argument("target", metavar="MODULE:APP")
@_with_settings
def run_command(target: str, **options: Any) -> int:
    """Serve the application MODULE:APP (or MODULE:FACTORY()).

    Every option can also be set in the environment, as THEFRAMEWORK_ and its name.
    """
    # Imported late: help and usage errors need no server.
    from theframework.loader import load, split_target
    from theframework.server import serve

    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings = resolve(given, as_options=True)
    split_target(target)
    return serve(lambda: load(target), settings)


@commands.command("check")
def check_command() -> int:
    """Show what this host offers (kernel, io_uring, limits), and which driver it gets."""
    from theframework.host import describe

    lines, is_usable = describe()
    for line in lines:
        click.echo(line)
    return 0 if is_usable else 1


def _sentence(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        close = error.possibilities or ()
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"there is no option {error.option_name}{hint}"
    text = error.format_message().strip().removesuffix(".")
    return text[:1].lower() + text[1:]
