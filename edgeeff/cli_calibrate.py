"""The commands `edgeeff calibrate` and `edgeeff diagnose`: are these images good to calibrate with, what went wrong.

Like the other commands they import their code when they run.
"""

from __future__ import annotations

from pathlib import Path

import click

from edgeeff.command import common, console, print_json
from edgeeff.completion import variants
from edgeeff.errors import GateError

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--audit", is_flag=True, help="Look at the images; all that this command does, so it may be left out.")
@click.option(
    "--against", type=PATH, metavar="PATH", help="Images that the model will be judged with: what evaluate takes."
)
@click.option(
    "--model",
    type=PATH,
    metavar="FILE",
    help="The network to calibrate: .keras, .h5, SavedModel, float .tflite, or a conversion's .json.",
)
@click.option(
    "--variant",
    metavar="NAME",
    shell_complete=variants,
    help="The same, by name: b0..b7, v2-b0..v2-l, lite0..lite4, edgetpu-s/m/l.",
)
@click.option("--weights", metavar="imagenet|none|FILE", help="Weights of a variant.  [default: imagenet]")
@click.option("--labels", type=PATH, metavar="FILE", help="Class names, one a line.  [default: the network's own]")
@click.option(
    "--input-range",
    metavar="LOW,HIGH",
    help="What black and white are for a model without preprocessing inside, e.g. 0,1 or -1,1.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Distinct images that go through the network, in the order in which convert draws them.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the images, as for convert.")
@click.option(
    "--fail-on",
    type=click.Choice(["serious", "any"]),
    help="Gate: exit with 1 when something is wrong.  [default: no gate]",
)
@common
def calibrate(
    folder: Path,
    audit: bool,
    against: Path | None,
    model: Path | None,
    variant: str | None,
    weights: str | None,
    labels: Path | None,
    input_range: str | None,
    samples: int,
    seed: int,
    fail_on: str | None,
    as_json: bool,
) -> None:
    """Say whether the images of DIR are good to calibrate with.

    Every file is looked at: what cannot be used, is black, grey or there twice, or is among the evaluation images. With
    --model or --variant the network says which images set its activation ranges alone, how alike both halves of the set
    are, and how many images are enough. Calibrating itself is done by edgeeff convert --calibration DIR.

    \b
    Examples:
      edgeeff calibrate --audit photos/
      edgeeff calibrate --audit photos/ --against val/ --model my.keras
      edgeeff calibrate photos/ --variant lite0 --fail-on serious
    """
    from edgeeff import api

    record = api.audit(
        folder,
        against=against,
        model=model,
        variant=variant,
        weights=weights,
        labels=labels,
        input_range=input_range,
        samples=samples,
        seed=seed,
        progress=True,
    )
    if as_json:
        print_json(record)
    else:
        from edgeeff.auditing import view

        view.render(record, console())
    wrong = [one.cause for one in record.findings if one.serious or fail_on == "any"]
    if fail_on is not None and wrong:
        raise GateError(f"--fail-on {fail_on}: {', '.join(wrong)}")


@click.command()
@click.argument("quantized", type=PATH, metavar="QUANTIZED")
@click.option(
    "--baseline",
    required=True,
    type=PATH,
    metavar="FLOAT",
    help="The float model: .keras, .h5, SavedModel folder or .tflite.",
)
@click.option(
    "--data", type=PATH, metavar="PATH", help="Images: what evaluate takes.  [default: images that edgeeff makes]"
)
@click.option("--labels", type=PATH, metavar="FILE", help="Class names, one a line.  [default: the model's own]")
@click.option(
    "--input-range",
    metavar="LOW,HIGH",
    help="What black and white are for a file that does not say, e.g. 0,1 or -1,1.",
)
@click.option(
    "--samples", type=click.IntRange(2), default=128, show_default=True, help="How many images both models see."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the images.")
@common
def diagnose(
    quantized: Path,
    baseline: Path,
    data: Path | None,
    labels: Path | None,
    input_range: str | None,
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say why QUANTIZED is not what its float model is.

    Looks for preprocessing that does not fit, classes that are one off, an output that is constant or clipped,
    activation ranges that do not fit, and the tensors that lose most, in this order; names one cause with its evidence
    and the command that mends it. The exit code is 1 when something is wrong. QUANTIZED may be of another maker.

    \b
    Examples:
      edgeeff diagnose b0_int8.tflite --baseline b0.keras --data photos/
      edgeeff diagnose b0_int8.tflite --baseline b0_float32.tflite
    """
    from edgeeff import api
    from edgeeff.diagnosis import view

    record = api.diagnose(
        quantized,
        baseline=baseline,
        data=data,
        labels=labels,
        input_range=input_range,
        samples=samples,
        seed=seed,
        progress=True,
    )
    if as_json:
        print_json(record)
    else:
        view.render(record, console())
    if record.cause is not None:
        raise GateError(f"{quantized}: {record.cause.cause}")
