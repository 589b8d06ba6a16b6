"""The command `edgeeff compile`: quantized files for the Edge TPU, through Google's compiler.

Like the other commands it imports its code when it runs.
"""

from __future__ import annotations

from pathlib import Path

import click

from edgeeff.command import common, console, print_json

PATH = click.Path(path_type=Path)


@click.command(name="compile")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option("--compiler", type=PATH, metavar="PATH", help="The program edgetpu_compiler.  [default: the one in PATH]")
@click.option("-o", "--output", type=PATH, default=".", metavar="DIR", help="Folder for the results.  [default: here]")
@click.option(
    "--min-runtime", type=click.IntRange(1), metavar="VERSION", help="Oldest Edge TPU runtime it is to run on."
)
@click.option("--segments", type=click.IntRange(2), help="Cut it into so many files, for as many Edge TPUs in a row.")
@click.option("--intermediate-tensors", metavar="NAMES", help="Leave what comes after these tensors to the CPU.")
@click.option("--multiple-subgraphs", is_flag=True, help="Let it use the Edge TPU again after operators on the CPU.")
@click.option("--search-delegate", is_flag=True, help="Where it fails, look for a part that compiles (version 16).")
@click.option("--search-step", type=click.IntRange(1), help="Operators to leave away with each step of that search.")
@click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="Its own limit for a part (version 16).")
@click.option(
    "--time-limit",
    default="1800s",
    show_default=True,
    metavar="DURATION",
    help="When to end it in any case, e.g. 600s.",
)
@common
def compile_command(
    files: tuple[Path, ...],
    compiler: Path | None,
    output: Path,
    min_runtime: int | None,
    segments: int | None,
    intermediate_tensors: str | None,
    multiple_subgraphs: bool,
    search_delegate: bool,
    search_step: int | None,
    timeout: int | None,
    time_limit: str,
    as_json: bool,
) -> None:
    """Compile int8 files for the Edge TPU, several together.

    Calls Google's edgetpu_compiler, which runs on x86-64 Linux only and is not part of edgeeff. FILE... are .tflite
    files; each FILE.tflite becomes FILE_edgetpu.tflite, and a record and what the compiler printed lie beside it. Files
    that are compiled together share the memory of one Edge TPU; the first one has the first choice. Sizes are bytes.
    Latencies in ms are estimated from figures that others published, not measured. What the compiler says of each
    operator is held against what `edgeeff inspect --edge-tpu` said.

    \b
    Examples:
      edgeeff compile lite0_int8.tflite
      edgeeff compile lite0_int8.tflite --compiler ~/bin/edgetpu_compiler
      edgeeff compile faces.tflite flowers.tflite --output compiled
    """
    from edgeeff import api

    record = api.compile(
        *files,
        compiler=compiler,
        output=output,
        min_runtime=min_runtime,
        segments=segments,
        intermediate_tensors=intermediate_tensors,
        multiple_subgraphs=multiple_subgraphs,
        search_delegate=search_delegate,
        search_step=search_step,
        timeout=timeout,
        time_limit=time_limit,
        progress=True,
    )
    if as_json:
        print_json(record)
        return
    from edgeeff.converters.edgetpu import view

    view.render(record, console())
