"""The command line: options in, tables or one JSON document out.

A command's code is imported when it runs: `edgeeff --help` costs what click costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeeff.cli_calibrate import calibrate, diagnose
from edgeeff.cli_compile import compile_command
from edgeeff.cli_devices import devices
from edgeeff.cli_doctor import doctor
from edgeeff.cli_evaluate import compare, evaluate
from edgeeff.cli_pick import pick, predict
from edgeeff.cli_profile import profile
from edgeeff.cli_report import report
from edgeeff.command import common, console, print_json
from edgeeff.completion import schemes as scheme_names
from edgeeff.completion import targets
from edgeeff.completion import variants as variant_names
from edgeeff.errors import GateError, MissingExtraError

PATH = click.Path(path_type=Path)
CONTEXT: dict[str, Any] = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        from edgeeff import version

        click.echo(version.line())
        context.exit()


@click.group(context_settings=CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Say which edgeeff, Python, runtime and TensorFlow are installed.",
)
def main() -> None:
    """Put EfficientNets on Raspberry Pi and Coral: size, convert, verify, measure.

    Exit codes: 0 done, 1 a gate said no, 2 bad input, 3 a device failed, 4 something optional is missing.
    """


@main.command(context_settings={"ignore_unknown_options": True})  # so that -1 is a number, not an option
@click.argument("phi", type=float)
@click.option("--alpha", type=float, default=1.2, show_default=True, help="Growth of depth per step of phi.")
@click.option("--beta", type=float, default=1.1, show_default=True, help="Growth of width per step of phi.")
@click.option("--gamma", type=float, default=1.15, show_default=True, help="Growth of resolution per step of phi.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="How far alpha * beta^2 * gamma^2 may be from 2.",
)
@common
def scale(phi: float, alpha: float, beta: float, gamma: float, tolerance: float, as_json: bool) -> None:
    """Scale B0 by the compound coefficient PHI, -3 to 7.

    Depth is alpha^phi, width beta^phi, resolution gamma^phi. MACs are multiply-accumulates; papers call them FLOPs.

    \b
    Examples:
      edgeeff scale 2
      edgeeff scale -1
      edgeeff scale 1.5 --json
    """
    from edgeeff import render, scaling

    factors = scaling.compound(phi, alpha, beta, gamma, tolerance)
    network = scaling.phi_network(phi, alpha=alpha, beta=beta, gamma=gamma, tolerance=tolerance)
    parameters, macs = scaling.parameters(network), scaling.macs(network)
    if as_json:
        print_json({"scaling": factors, "resolution_px": network.resolution, "parameters": parameters, "macs": macs})
        return
    table = render.table("", "factor", "becomes")
    table.add_row("depth", f"{factors.depth:.10g}", f"{len(network.blocks)} blocks")
    table.add_row("width", f"{factors.width:.10g}", f"{network.head_channels} channels in the head")
    table.add_row("resolution", f"{factors.resolution:.10g}", f"{network.resolution} px")
    table.add_row("parameters", "", f"{parameters / 1e6:.2f} M")
    table.add_row("MACs (FLOPs in the paper)", "", f"{macs / 1e9:.3f} G")
    out = console()
    out.print(table)
    out.print(f"Each step of phi multiplies the MACs by alpha * beta^2 * gamma^2 = {factors.flops_growth:.3g}.")
    if (alpha, beta, gamma) == (scaling.ALPHA, scaling.BETA, scaling.GAMMA):
        out.print(f"Next: edgeeff convert --phi {phi:g}")


@main.command()
@click.option("--family", type=click.Choice(["b", "v2", "lite", "edgetpu"]), help="Only this family.")
@common
def variants(family: str | None, as_json: bool) -> None:
    """List the named variants: scaling, size, MACs, top-1.

    MACs are multiply-accumulates for one image (papers call them FLOPs); top-1 is on ImageNet, in percent.

    \b
    Examples:
      edgeeff variants
      edgeeff variants --family lite --json
    """
    from edgeeff import render, scaling

    rows = [row for row in scaling.rows() if family is None or scaling.VARIANTS[row.variant].family == family]
    if as_json:
        print_json({"variants": rows})
        return
    table = render.table("variant", "phi", "depth", "width", "px", "params M", "MACs G", "top-1 %", "int8 %")
    for row in rows:
        table.add_row(
            row.variant,
            _number(row.phi),
            f"{row.depth:g}",
            f"{row.width:g}",
            str(row.resolution),
            f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e9:.3f}",
            _number(row.top1),
            _number(row.int8_top1),
        )
    out = console()
    out.print(table)
    for source in sorted({row.source for row in rows if row.source}):
        out.print(f"Published top-1: {source}", soft_wrap=True)
    out.print("Next: edgeeff convert --variant NAME")


@main.command()
@click.option(
    "--variant",
    metavar="NAME",
    shell_complete=variant_names,
    help="A named variant, e.g. b2, v2-s, lite0, edgetpu-m (`edgeeff variants`).",
)
@click.option("--phi", type=float, help="Any compound coefficient from -3 to 7.")
@click.option("--model", type=PATH, help="Your own .keras, .h5, SavedModel folder, or float .tflite.")
@click.option(
    "--weights",
    help="imagenet, none, or a file (.keras .h5 .weights.h5 .npz .whl .pth .tar.gz).  "
    "[default: imagenet for a variant, none for a phi]",
)
@click.option("--classes", type=int, help="Number of classes.  [default: 1000]")
@click.option(
    "--resolution", type=click.IntRange(1), metavar="PIXELS", help="Input height and width.  [default: the variant's]"
)
@click.option(
    "--scheme",
    shell_complete=scheme_names,
    help="float32, float16, dynamic, weight-only, int8, int16x8 or mixed (`edgeeff schemes`).  "
    "[default: int8, with a goal mixed]",
)
@click.option(
    "--min-agreement",
    metavar="PERCENT",
    help="Goal for mixed: images that keep float's best class at least, e.g. 98, at the least latency.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Goal for mixed: top-1 at most so far below float's, kept by agreement, e.g. 1.0.",
)
@click.option(
    "--max-latency",
    metavar="RATIO|TIME",
    help="Goal for mixed: at most so much of the float file's latency, e.g. 0.55, or so long, e.g. 12ms.",
)
@click.option(
    "--target",
    metavar="NAME",
    shell_complete=targets,
    help="Where the latencies for a goal are measured (`edgeeff devices list`).  [default: local]",
)
@click.option(
    "--edge-tpu",
    is_flag=True,
    help="Make it for a Coral Edge TPU: full int8, 8 bits in and out, and say what its compiler would make of it.",
)
@click.option(
    "--finetune",
    type=PATH,
    metavar="DIR",
    help="Train for int8 on these images, at least 16, in class folders or flat; the float network is the teacher.  "
    "[takes the place of --calibration]",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Most steps of --finetune; it ends early where they do not help.  [default: 400]",
)
@click.option("--learn-labels", is_flag=True, help="Learn the class folders of --finetune, too.")
@click.option(
    "--prune",
    type=click.FloatRange(0, 0.95),
    metavar="SHARE",
    help="Make this share of the pointwise convolutions' weights zero before fine-tuning, e.g. 0.5: it zips smaller.",
)
@click.option(
    "--cluster",
    type=click.IntRange(4, 128),
    metavar="NUMBER",
    help="Leave each pointwise convolution so many different weights, e.g. 16: it zips smaller.",
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="DIR",
    help="Images that set the activation ranges, in class folders or flat.  [default: images that edgeeff makes]",
)
@click.option(
    "--samples", type=click.IntRange(1), default=128, show_default=True, help="How many calibration images to use."
)
@click.option(
    "--calibrator",
    metavar="NAME",
    help="How int8 ranges are chosen: auto tries several; min-max, l2, l1.5, l1, percentile-99.9 or -99.99 do not.  "
    "[default: auto, min-max for random weights]",
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
    help="What auto may do beyond choosing ranges: nothing, minutes of tuning weights, or as long as it helps.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Draws the sample, synthetic images and random weights.",
)
@click.option(
    "--input-type",
    type=click.Choice(["uint8", "int8", "float32"]),
    help="What the file takes; always pixels 0..255 (int8: minus 128).  [default: uint8 for int8, else float32]",
)
@click.option(
    "--output-type", type=click.Choice(["float32", "uint8", "int8"]), help="What the file gives.  [default: float32]"
)
@click.option(
    "--logits/--softmax", "logits", default=None, help="Give logits or probabilities.  [default: as the model does]"
)
@click.option(
    "--labels", type=PATH, metavar="FILE", help="Class names, one a line.  [default: ImageNet's for a variant]"
)
@click.option(
    "--input-range",
    metavar="LOW,HIGH",
    help="What black and white are for a model without preprocessing inside, e.g. 0,1 or -1,1.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads for calibration, and of the latencies for a goal.  [default: 2, with a goal 1]",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="The .tflite file; its record is written beside it as .json.  [default: NAME_SCHEME.tflite]",
)
@common
def convert(
    variant: str | None,
    phi: float | None,
    model: Path | None,
    weights: str | None,
    classes: int | None,
    resolution: int | None,
    scheme: str | None,
    min_agreement: str | None,
    max_drop: float | None,
    max_latency: str | None,
    target: str | None,
    edge_tpu: bool,
    finetune: Path | None,
    steps: int | None,
    learn_labels: bool,
    prune: float | None,
    cluster: int | None,
    calibration: Path | None,
    samples: int,
    calibrator: str | None,
    effort: Any,
    seed: int,
    input_type: Any,
    output_type: Any,
    logits: bool | None,
    labels: Path | None,
    input_range: str | None,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Convert a variant, a phi or a model to a verified .tflite.

    With a goal, precisions are mixed block by block, and a goal that is not met is exit code 1: what comes closest is
    written all the same. PERCENT is of images, POINTS are percentage points of top-1, a RATIO is to the float file's
    latency, and a TIME is a number with us, ms or s. Fine-tuning that is interrupted goes on with the same command.

    \b
    Examples:
      edgeeff convert --variant lite0
      edgeeff convert --variant b2 --weights none --scheme float16
      edgeeff convert --phi 0.5 --classes 10
      edgeeff convert --model my.keras --calibration photos/ --labels names.txt
      edgeeff convert --variant lite0 --edge-tpu
      edgeeff convert --model my.keras --calibration photos/ --min-agreement 98
      edgeeff convert --model my.keras --finetune photos/
      edgeeff convert --model my.keras --calibration photos/ --min-agreement 94 --max-latency 30ms --target pi4
    """
    from edgeeff import api

    record = api.convert(
        variant=variant,
        phi=phi,
        model=model,
        weights=weights,
        classes=classes,
        resolution=resolution,
        scheme=scheme,
        min_agreement=min_agreement,
        max_drop=max_drop,
        max_latency=max_latency,
        target=target,
        edge_tpu=edge_tpu,
        finetune=finetune,
        steps=steps,
        learn_labels=learn_labels,
        prune=prune,
        cluster=cluster,
        calibration=calibration,
        samples=samples,
        calibrator=calibrator,
        effort=effort,
        seed=seed,
        input_type=input_type,
        output_type=output_type,
        logits=logits,
        labels=labels,
        input_range=input_range,
        threads=threads,
        output=output,
        progress=True,
    )
    if as_json:
        print_json(record)
    else:
        from edgeeff import render

        render.conversion(record, console())
    if record.mixed is not None and record.mixed.shortfall is not None:
        raise GateError(record.mixed.shortfall)


@main.command()
@click.argument("file", type=PATH)
@click.option("--edge-tpu", is_flag=True, help="Say what the Edge TPU compiler would make of it, before compiling.")
@click.option(
    "--model-explorer",
    "overlay",
    type=PATH,
    metavar="OUT.json",
    help="Write overlays for Google's Model Explorer: MACs in millions, bytes of weights, types of values by operator.",
)
@click.option(
    "--profile",
    "measured",
    type=PATH,
    metavar="RECORD.json",
    help="Another overlay: latency in ms by operator, from a record of `edgeeff profile FILE --blocks`.",
)
@click.option(
    "--baseline",
    type=PATH,
    metavar="FLOAT",
    help="Another overlay: quantization error in percent by tensor, against this .keras, .h5, SavedModel or .tflite.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="PATH",
    help="Images for --baseline: what evaluate takes.  [default: images that edgeeff makes]",
)
@click.option(
    "--input-range",
    metavar="LOW,HIGH",
    help="What black and white are for a file of --baseline that does not say, e.g. 0,1 or -1,1.",
)
@common
def inspect(
    file: Path,
    edge_tpu: bool,
    overlay: Path | None,
    measured: Path | None,
    baseline: Path | None,
    data: Path | None,
    input_range: str | None,
    as_json: bool,
) -> None:
    """Show what is in FILE.tflite and what XNNPACK takes of it.

    Operators, shapes, types, quantization, sizes in bytes, MACs, the input contract and the metadata; of a file for the
    Edge TPU, the runtime that it needs and where its parameters are kept. Latencies there, in ms, are estimated from
    published figures, never measured. Model Explorer shows one overlay from a file: OUT.json has the first, and the
    others are beside it, as OUT.macs.json and so on.

    \b
    Examples:
      edgeeff inspect lite0_int8.tflite
      edgeeff inspect lite0_int8.tflite --edge-tpu
      edgeeff inspect lite0_int8.tflite --model-explorer lite0.json
      edgeeff inspect my_int8.tflite --model-explorer my.json --baseline my.keras --data photos/
      edgeeff inspect b0_int8.tflite --model-explorer b0.json --profile b0_int8.pi4.t1.profile.json
    """
    from edgeeff import arguments
    from edgeeff.converters import inspect as inspection
    from edgeeff.converters import preflight

    plan = arguments.overlay_plan(file, overlay, measured, baseline, data, input_range)
    result = inspection.inspect(file)
    judged = preflight.check(result) if edge_tpu else None
    written = {} if plan is None else arguments.write_overlays(plan, progress=True)
    if as_json:
        print_json(judged or result)
        return
    from edgeeff.converters import inspect_view

    inspect_view.render(result, console())
    if judged is not None:
        inspect_view.render_preflight(judged, console())
    if plan is not None:
        from edgeeff import overlays

        overlays.render(plan.model, written, console())


@main.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default="edgeeff-demo",
    show_default=True,
    metavar="DIR",
    help="Folder for the files that are made.",
)
@common
def demo(output: Path, as_json: bool) -> None:
    """Convert, verify, measure and compare Lite0 on this machine.

    Lite0 with its real weights becomes int8, and both are run on sample photographs. The folder gets the files, their
    records, the record of it all, demo.json, and, with the extra report, a page about it. Takes a few minutes at most;
    needs the extras host and lite-weights.

    \b
    Example:
      edgeeff demo
    """
    from edgeeff import demo as demonstration
    from edgeeff.files import write_atomic
    from edgeeff.progress import Bars
    from edgeeff.results import to_json

    with Bars() as bars:
        record = demonstration.run(output, progress=bars)
    told = output / "demo.json"
    write_atomic(told, to_json(record).encode())
    page = _demo_page(told)
    if as_json:
        print_json(record)
        return
    from edgeeff import render

    render.demo(record, console())
    click.echo(f"\nAll of it as a page for people: {page}" if isinstance(page, Path) else f"\nNo page: {page}")


def _demo_page(record: Path) -> Path | MissingExtraError:
    """Write a report beside a demo's record and return its path, or what is missing for that."""
    from edgeeff.files import write_atomic
    from edgeeff.reporting import html, records

    try:
        html.check()
    except MissingExtraError as error:
        return error
    page = record.with_name("report.html")
    write_atomic(page, html.render(records.build(records.read([record]))))
    return page


@main.command()
@common
def schemes(as_json: bool) -> None:
    """List the quantization schemes and what each costs where.

    \b
    Example:
      edgeeff schemes
    """
    from edgeeff import render
    from edgeeff.converters.schemes import SCHEMES

    if as_json:
        print_json({"schemes": list(SCHEMES.values())})
        return
    table = render.table("scheme", "input", "what it costs")
    table.columns[2].justify = "left"
    table.columns[2].no_wrap = False
    for scheme in SCHEMES.values():
        table.add_row(scheme.name, scheme.input_type, scheme.summary)
    console().print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


main.add_command(calibrate)
main.add_command(compare)
main.add_command(compile_command)
main.add_command(devices)
main.add_command(diagnose)
main.add_command(doctor)
main.add_command(evaluate)
main.add_command(pick)
main.add_command(predict)
main.add_command(profile)
main.add_command(report)
