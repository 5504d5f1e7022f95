"""From the text ``module:app`` to a `Framework`.

``module:app`` names an object, ``module:create_app()`` a factory, whose arguments may be plain
literals. The current folder comes first on the path. Whatever goes wrong is a `StartError` that
names the cause and, when the application's code raised, its file and line.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import traceback
from types import TracebackType
from typing import Any

from theframework.app import Framework
from theframework.errors import StartError


def load(target: str) -> Framework:
    """Import and return the application that `target` names."""
    module_name, attribute = split_target(target)
    expression = _parse_expression(attribute)
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(module_name, folder)
    found = _evaluate(module, expression, target)
    if isinstance(found, Framework):
        return found
    raise StartError(f"{target} is {_described(found, attribute)}, not a Framework")


def split_target(target: str) -> tuple[str, str]:
    """Module and attribute of ``module:attribute``. Raises `StartError` for any other form."""
    module_name, separator, attribute = target.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        module_name = module_name.removesuffix(".py").strip("./").replace("/", ".")
        hint = f"{module_name}:{attribute or 'app'}"
        raise StartError(f"{target!r} is a file name; write it as a module: {hint}")
    if not (separator and module_name and attribute):
        raise StartError(f"{target!r} does not name an application; write MODULE:NAME")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise StartError(f"{module_name!r} is not a module name; write MODULE:NAME")
    return module_name, attribute


def _parse_expression(attribute: str) -> ast.expr:
    """A dotted name, or a call of one with literal arguments; nothing else is evaluated."""
    try:
        parsed = ast.parse(attribute, mode="eval").body
    except (SyntaxError, ValueError):
        parsed = None
    node: ast.AST | None = parsed.func if isinstance(parsed, ast.Call) else parsed
    while isinstance(node, ast.Attribute):
        node = node.value
    if parsed is None or not isinstance(node, ast.Name):
        raise StartError(f"{attribute!r} is neither a name nor a call like create_app()")
    return parsed


def _import(module_name: str, folder: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise StartError(
                f"there is no module {missing!r} in {folder} or on Python's path"
            ) from None
        raise _failure(f"cannot import {module_name}", error) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the like must not end a worker wordlessly
        raise _failure(f"cannot import {module_name}", error) from None


def _evaluate(module: Any, expression: ast.expr, target: str) -> object:
    if not isinstance(expression, ast.Call):
        return _attribute(module, expression)
    try:
        arguments = [ast.literal_eval(node) for node in expression.args]
        keywords = {
            node.arg: ast.literal_eval(node.value)
            for node in expression.keywords
            if node.arg is not None
        }
    except ValueError:
        raise StartError(f"the arguments in {target!r} must be plain literals") from None
    factory = _attribute(module, expression.func)
    if not callable(factory):
        raise StartError(f"{target!r}: {ast.unparse(expression.func)} is not callable")
    try:
        return factory(*arguments, **keywords)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failure(f"{target} failed", error) from None


def _attribute(module: Any, expression: ast.expr) -> Any:
    dotted = ast.unparse(expression)
    found = module
    for name in dotted.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = getattr(module, "__file__", None) or module.__name__
            raise StartError(f"module {module.__name__!r} has no {dotted!r} ({where})") from None
    return found


def _described(found: object, attribute: str) -> str:
    if callable(found) and not isinstance(found, type):
        return f"a function (write {attribute}() to call a factory)"
    article = "an" if type(found).__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {type(found).__name__}"


def _failure(what: str, error: BaseException) -> StartError:
    # The text of a syntax error repeats its place; the message alone does not.
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(text.split())
    cause = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = _place(error)
    details = "".join(traceback.format_exception(error)).rstrip()
    return StartError(f"{what}: {cause}" + (f" ({place})" if place else ""), details)


def _place(error: BaseException) -> str:
    """File and line to look at: of a syntax error, or of the innermost line of the user's own."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = list(_frames(error.__traceback__))
    own = [frame for frame in frames if _is_own(frame[0])]
    if not (own or frames):
        return ""
    name, line = (own or frames)[-1]
    return f"{name}, line {line}"


def _frames(trace: TracebackType | None) -> list[tuple[str, int]]:
    found = []
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<frozen ") and name != __file__ and name != importlib.__file__:
            found.append((name, trace.tb_lineno))
        trace = trace.tb_next
    return found


def _is_own(filename: str) -> bool:
    """Whether a file is the application's: neither installed nor the standard library's."""
    library = os.path.dirname(os.__file__)
    package = os.path.dirname(__file__)
    foreign = filename.startswith((library + os.sep, package + os.sep, "<"))
    return not (foreign or "site-packages" in filename or "dist-packages" in filename)
