"""The command `edgeeff doctor`: what is installed, what is missing for which command, and how to get it.

Like the other commands it imports its code when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeeff.command import common, console, print_json
from edgeeff.completion import commands

if TYPE_CHECKING:
    from edgeeff.doctor import Checkup


@click.command()
@click.argument("command", required=False, metavar="[COMMAND]", shell_complete=commands)
@common
def doctor(command: str | None, as_json: bool) -> None:
    """Say what is installed, and what is missing for which command.

    Also how to get it, and versions that are known not to go together. With [COMMAND] only what that command needs; the
    exit code is 4 when it cannot run. Nothing is imported and nothing installed.

    \b
    Examples:
      edgeeff doctor
      edgeeff doctor convert
      edgeeff doctor --json
    """
    from edgeeff import doctor as examination

    found = examination.check(command)
    if as_json:
        print_json(found)
    else:
        _render(found)
    if command is not None:
        examination.require(found, command)


def _render(found: Checkup) -> None:
    from edgeeff import render

    out, facts = console(), render.facts()
    facts.add_row("edgeeff", render.shown(f"{found.edgeeff}, Python {found.python} ({found.executable})"))
    facts.add_row("machine", render.shown(found.machine))
    there = [" ".join(filter(None, (one.name, one.version))) for one in found.installed if one.found]
    facts.add_row("installed", render.shown(", ".join(there)))
    absent = ", ".join(one.name for one in found.installed if not one.found)
    if absent:
        facts.add_row("not there", render.shown(absent))
    lacking = {one.command for one in found.commands if one.when is None and not one.ready}
    ready = [name for name in dict.fromkeys(one.command for one in found.commands) if name not in lacking]
    if ready:
        facts.add_row("ready", render.shown(", ".join(ready)))
    out.print(facts)
    for one in found.commands:
        if not one.ready:
            what = f"edgeeff {one.command}{'' if one.when is None else f', {one.when}'}"
            lacks = f"[yellow]missing:[/] {render.shown(what)}: {render.shown(', '.join(one.missing))}"
            out.print(f"{lacks}\n  {render.shown(one.get or '')}", soft_wrap=True)
    for conflict in found.conflicts:
        out.print(f"[yellow]conflict:[/] {render.shown(conflict)}", soft_wrap=True)
