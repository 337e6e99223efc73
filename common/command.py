"""What every command shares: flags made from a settings model, one order of precedence, one way to report errors.

Precedence: a flag, then the environment, then the TOML file, then the default. Unknown keys are errors.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from collabedit.common.errors import CollabEditError, ExitCode, Fault, UsageError

Settings = TypeVar("Settings", bound=BaseModel)
Function = TypeVar("Function", bound=Callable[..., Any])
UNSET = None


def _plain_type(annotation: Any) -> Any:
    """The type behind `X | None`."""
    arguments = [each for each in get_args(annotation) if each is not type(None)]
    return arguments[0] if len(arguments) == 1 and type(None) in get_args(annotation) else annotation


def _parameter(annotation: Any) -> dict[str, Any]:
    """Click's parameter type for a field's annotation; values stay unset (None) unless a flag is given."""
    plain = _plain_type(annotation)
    if plain is bool:
        return {"is_flag": True, "default": None}
    if get_origin(plain) is Literal:
        return {"type": click.Choice([str(each) for each in get_args(plain)])}
    if get_origin(plain) is tuple:
        return {"type": str, "multiple": True}
    if plain in (int, float):
        return {"type": plain}
    if isinstance(plain, type) and issubclass(plain, Path):
        return {"type": click.Path(path_type=Path)}
    return {"type": str}


def _help(field: FieldInfo) -> str:
    said = field.description or ""
    if field.is_required():
        return f"{said}  [required]"
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = default not in (None, False, ()) and not isinstance(default, BaseModel)
    return f"{said}  [default: {str(default).replace(str(Path.home()), '~')}]" if shown else said


def options_of(model: type[BaseModel], *, leave_out: Sequence[str] = ()) -> Callable[[Function], Function]:
    """A decorator that gives a click command one flag for each field of `model`, with the field's description as help.

    What is true unless said otherwise has a second flag, `--no-…`.

    The command receives the flags as keyword arguments, None (or an empty tuple) where not given: pass them on to
    `load_settings`.
    """

    def decorate(function: Function) -> Function:
        for name, field in reversed(model.model_fields.items()):
            if name not in leave_out:
                flag = f"--{name.replace('_', '-')}"
                flag += f"/--no-{flag[2:]}" if field.default is True else ""
                function = click.option(flag, name, help=_help(field), **_parameter(field.annotation))(function)
        return function

    return decorate


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", mend="give the path of a readable TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 at byte {error.start}", mend="save the file as UTF-8") from error
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deep") from error


def _from_environment(model: type[BaseModel], prefix: str) -> dict[str, str | tuple[str, ...]]:
    """Of the variables that are set; several values stand between commas."""
    named = {name: os.environ.get(f"{prefix}{name.upper()}", "") for name in model.model_fields}
    return {
        name: tuple(each.strip() for each in value.split(",")) if _is_several(model, name) else value
        for name, value in named.items()
        if value
    }


def _is_several(model: type[BaseModel], name: str) -> bool:
    return get_origin(_plain_type(model.model_fields[name].annotation)) is tuple


def load_settings(
    model: type[Settings], flags: Mapping[str, Any], *, toml: Path | None = None, environment: str = ""
) -> Settings:
    """Validated settings from a TOML file, variables named `environment` + FIELD, and the flags that were given.

    Raises UsageError that names the file or flag, the setting, and what it may be.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    from_file = _read_toml(toml) if toml else {}
    from_environment = _from_environment(model, environment) if environment else {}
    try:
        return model.model_validate({**from_file, **from_environment, **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = _source(first["loc"], set(given), set(from_environment) - set(given), set(from_file), environment, toml)
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}{said}", mend="--help lists every setting and its range") from error


def _source(
    place: tuple[int | str, ...], given: set[str], variables: set[str], keys: set[str], prefix: str, toml: Path | None
) -> str:
    """Where a setting that cannot be came from, as the user wrote it; one that is missing is named by its flag."""
    if not place:
        return ""
    name = str(place[0])
    if name in variables:
        return f"{prefix}{name.upper()}: "
    if name in keys and name not in given:
        return f"{toml}: {'.'.join(str(part) for part in place)}: "
    return f"--{name.replace('_', '-')}: "


def report(error: CollabEditError) -> None:
    """Prints the fact and the mend on standard error."""
    click.echo(f"error: {error.diagnostics()}", err=True)


def entry_point(command: click.Command) -> Callable[[], None]:
    """The console script of a command: CollabEditError becomes one line and its exit code.

    A mistake of ours keeps its traceback, which goes to standard error with a plea to report it.
    """

    def run() -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when grpc is imported, which is later
        try:
            code = command.main(standalone_mode=False)  # what `ctx.exit` was given; else None, as commands return
            if code:
                sys.exit(code)
        except click.ClickException as error:
            error.show()
            sys.exit(ExitCode.USAGE)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(ExitCode.INTERRUPTED)
        except CollabEditError as error:
            report(error)
            if error.fault is Fault.OURS:
                click.echo("this is a mistake of collabedit's own: please report it", err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(ExitCode.OK)

    return run


def print_json(value: Any) -> None:
    """One JSON object on standard output, the last thing that a command with --json prints."""
    click.echo(json.dumps(value, ensure_ascii=False))
