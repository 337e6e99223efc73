"""What the commands below `collab pki` share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


def state_option(whose: str) -> Callable[[Function], Function]:
    """`--state`: by default the client's, or the server's, in the user's state folder."""
    said = f"State folder of the {whose}.  [default: {whose} in the user's state folder of collabedit]"
    return click.option("--state", type=click.Path(path_type=Path), default=lambda: _state(whose), help=said)


def json_option(function: Function) -> Function:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)


def stated(state: Path, whose: str = "client") -> str:
    """What a command that follows needs to work on the same folder: ` --state …`, "" for the usual one."""
    return "" if state == _state(whose) else f" --state {shlex.quote(str(state))}"


def _state(whose: str) -> Path:
    from platformdirs import user_state_path

    return Path(user_state_path("collabedit")) / whose
