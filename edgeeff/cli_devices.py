"""The commands under `edgeeff devices`: which boards there are and how to reach them.

Like the other commands they import their code when they run.
"""

from __future__ import annotations

import click


@click.group()
def devices() -> None:
    """List, add and remove the boards that edgeeff measures on.

    \b
    Examples:
      edgeeff devices list
    """
