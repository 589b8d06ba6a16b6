"""The commands under `edgeeff devices`: which boards there are, how to reach them, and what they need.

Like the other commands they import their code when they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeeff.command import common, console, print_json

if TYPE_CHECKING:
    from edgeeff.devices.setup import SetUp
    from edgeeff.devices.targets import Facts
    from edgeeff.results import ProbeRecord


@click.group()
def devices() -> None:
    """List, add, remove, probe and set up the boards to measure on.

    A target is a named way to reach a board: over SSH, or this machine, which is called local. Targets are kept in
    targets.toml in the config folder, ~/.config/edgeeff unless EDGEEFF_CONFIG names another.
    """


@devices.command("list")
@common
def list_(as_json: bool) -> None:
    """List your targets, and the boards with published facts.

    float32, int8 and TPU (an Edge TPU) are peaks in 10^9 operations per second over all cores, a multiply-add counted
    as two; dot says whether there is an int8 dot product; copy is memcpy by one core in GB/s (10^9 bytes), as others
    measured it. Empty where it is not known. --json has more figures, and the source of each.

    \b
    Examples:
      edgeeff devices list
      edgeeff devices list --json
    """
    from edgeeff.devices.targets import boards, targets

    reachable = [target for target in targets().values() if target.url is not None]
    if as_json:
        print_json({"targets": reachable, "boards": list(boards().values())})
        return
    from rich.text import Text

    from edgeeff import render

    mine = render.table("target", "address", "board", "")
    known = render.table("board", "cores", "float32", "int8", "dot", "copy", "TPU")
    for column in mine.columns:
        column.justify = "left"
        column.no_wrap = False
    for target in reachable:
        mine.add_row(
            target.name, Text(target.url or "", overflow="fold"), target.board, "emulated" if target.emulated else ""
        )
    for facts in boards().values():
        known.add_row(*_figures(facts))
    out = console()
    out.print(mine)
    out.print(known)
    out.print("Next: edgeeff devices add NAME ssh://USER@HOST --board BOARD")


@devices.command()
@click.argument("name")
@click.argument("url")
@click.option("--board", metavar="BOARD", help="Which board it is, for its published facts (`edgeeff devices list`).")
@click.option("--python", metavar="PATH", help="The Python to use on the board.  [default: what setup finds or makes]")
@click.option("--emulated", is_flag=True, help="A program stands in for the board; records will say so.")
@click.option("--notes", default="", help="Anything that you want to remember about it.")
@click.option("--replace", "replace_it", is_flag=True, help="Replace the target of that name.")
@click.option(
    "--accept-host-key",
    "fingerprints",
    multiple=True,
    metavar="SHA256:...",
    help="Connect now, and trust the host key that has this fingerprint; once for each host on the way.",
)
@common
def add(
    name: str,
    url: str,
    board: str | None,
    python: str | None,
    emulated: bool,
    notes: str,
    replace_it: bool,
    fingerprints: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add the board at URL as target NAME.

    URL is ssh://[USER@]HOST[:PORT], or local. What ~/.ssh/config, your SSH agent, your keys and known_hosts say of the
    host holds here, too. Adding does not connect, unless it is to accept a host key; accepted ones are kept in
    known_hosts in the config folder, your own file stays as it is.

    \b
    Examples:
      edgeeff devices add pi5 ssh://pi@pi5.local --board raspberry-pi-5
      edgeeff devices add lab ssh://pi@192.168.1.20:2222 --python /home/pi/venv/bin/python
      edgeeff devices add pi5 ssh://pi@pi5.local --accept-host-key SHA256:47DEQpj8HBSa...
    """
    from edgeeff.devices import targets

    target = targets.Target(name, url, board, python, emulated, notes)
    # The message about an unknown key proposes this command, whether the target is there already or not.
    known = targets.own_targets().get(name)
    accept_only = bool(fingerprints) and known is not None and known.url == url and not replace_it
    if not accept_only:
        targets.check_new(target, replace_it=replace_it)
    if fingerprints:
        import asyncio

        from edgeeff.devices.transport import accept_host_keys

        asyncio.run(accept_host_keys(target, fingerprints))
    if accept_only and known is not None:
        target = known
    else:
        targets.add(target, replace_it=replace_it)
    if as_json:
        print_json({"target": target})
        return
    for fingerprint in fingerprints:
        click.echo(f"host key accepted: {fingerprint}")
    if not accept_only:
        click.echo(f"added: {name}, {url}")
    click.echo(f"Next: edgeeff devices setup {name}")


@devices.command()
@click.argument("name")
@common
def remove(name: str, as_json: bool) -> None:
    """Remove the target NAME; the board is not touched.

    \b
    Example:
      edgeeff devices remove pi5
    """
    from edgeeff.devices import targets

    target = targets.remove(name)
    if as_json:
        print_json({"removed": target})
        return
    click.echo(f"removed: {name}, {target.url}")


@devices.command()
@click.argument("name")
@common
def probe(name: str, as_json: bool) -> None:
    """Show what the board NAME is and what state it is in.

    Model, system, CPU, memory, frequencies, temperature, throttling, runtimes that work, Edge TPU. Sends one file there
    and removes it again. `local` is this machine.

    \b
    Examples:
      edgeeff devices probe local
      edgeeff devices probe pi5 --json
    """
    import asyncio

    from edgeeff.devices import setup as boards
    from edgeeff.devices import targets, transport

    target = targets.find(name)

    async def ask() -> ProbeRecord:
        async with transport.connect(target) as board:
            return await boards.probe(board, target)

    record = asyncio.run(ask())
    if as_json:
        print_json(record)
        return
    from edgeeff.devices import probe_view

    out = console()
    probe_view.render(record, out)
    if record.runtime is None:
        out.print(f"Next: edgeeff devices setup {name}")


@devices.command()
@click.argument("name")
@click.option("--offline", is_flag=True, help="Fetch the packages with this machine and send them to the board.")
@click.option(
    "--runtime",
    type=click.Choice(["ai-edge-litert", "tflite-runtime"]),
    help="The runtime to install.  [default: the newest LiteRT that fits, else tflite-runtime]",
)
@click.option("--python", "base", metavar="PATH", help="Make the environment of this Python.  [default: python3]")
@click.option("--again", is_flag=True, help="Make a new environment even where one works.")
@common
def setup(name: str, offline: bool, runtime: str | None, base: str | None, again: bool, as_json: bool) -> None:
    """Give the board NAME a runtime, if it has none that works.

    Makes a virtual environment in ~/.cache/edgeeff on the board, with the runtime that fits its Python, libc and CPU:
    up to 140 MB there. Nothing else on the board changes.

    \b
    Examples:
      edgeeff devices setup pi5
      edgeeff devices setup pi5 --offline
      edgeeff devices setup coral --runtime tflite-runtime
    """
    import asyncio

    from edgeeff.devices import setup as boards
    from edgeeff.devices import targets, transport

    target = targets.find(name)

    def say(step: str) -> None:
        click.echo(f"{name}: {step}", err=True)

    async def make() -> SetUp:
        async with transport.connect(target) as board:
            return await boards.set_up(board, target, offline=offline, runtime=runtime, base=base, again=again, say=say)

    done = asyncio.run(make())
    if as_json:
        print_json({"target": target, "setup": done})
        return
    state = "ready" if done.packages else "was ready already"
    click.echo(f"{state}: {name}, {done.runtime.name} {done.runtime.version}, {done.python}")
    click.echo(f"Next: edgeeff devices probe {name}")


def _figures(facts: Facts) -> list[str]:
    """Return a row of the table of boards."""

    def giga(value: float | None) -> str:
        return "" if value is None else f"{value / 1e9:g}"

    copy = "-".join(f"{value / 1e9:.1f}" for value in dict.fromkeys(facts.memory_copy_bytes_per_s or ()))
    dot = {None: "", True: "yes", False: "no"}[facts.has_int8_dot_product]
    return [
        facts.key,
        f"{facts.cores} x {giga(facts.clock_hz)} GHz" if facts.cores else "",
        giga(facts.peak_float32_ops_per_s),
        giga(facts.peak_int8_ops_per_s),
        dot,
        copy,
        giga(facts.accelerator_int8_ops_per_s),
    ]
