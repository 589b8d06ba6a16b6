"""What a shell proposes for values of options: names that edgeeff knows by itself, read quickly and without fail."""

from __future__ import annotations

from collections.abc import Iterable

import click

from edgeeff.errors import EdgeeffError


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def variants(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Propose the named variants."""
    from edgeeff.scaling import VARIANTS

    return _beginning(incomplete, VARIANTS)


def schemes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Propose the quantization schemes."""
    from edgeeff.converters.schemes import SCHEMES

    return _beginning(incomplete, SCHEMES)


def targets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Propose what can be measured on: this machine and the user's own targets; nothing when their file is damaged."""
    from edgeeff.devices.targets import LOCAL, own_targets

    try:
        own = own_targets()
    except EdgeeffError:
        own = {}
    return _beginning(incomplete, (LOCAL.name, *own))


def commands(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Propose the commands."""
    group = context.find_root().command
    return _beginning(incomplete, group.list_commands(context) if isinstance(group, click.Group) else ())
