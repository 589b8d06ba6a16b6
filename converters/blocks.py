"""Cut a .tflite classifier where its blocks end, so that it can be measured how long it takes to get there.

The files begin as the network does and end after a block; a block's time is the difference of two of them. Running and
subtracting belong to others.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from edgeeff.converters import inspect
from edgeeff.converters.graph import Graph
from edgeeff.errors import ModelError

FIRST = "input"
"""What comes before the first operator whose tensors are named after a block: reading and scaling pixels."""
SCALING = {"normalization", "rescaling"}


@dataclass(frozen=True)
class Block:
    """A part of the network, and the file that ends with it."""

    name: str
    """That its tensors have, such as "block2a"; of parts that could not be told apart, the first."""
    operators: int
    macs: int
    content: bytes
    """The network from its input to this block's output, as a .tflite file."""


def cut(content: bytes, origin: str = "the model") -> tuple[Block, ...]:
    """Return the blocks of a network in their order; the last one's file is the whole.

    A cut is made only where a single tensor leads on. Raises ModelError when the network has no blocks by name, or
    only one; and what reading raises.
    """
    parsed = inspect.parse(content)
    operators, constants = parsed.operators, {tensor.index for tensor in parsed.tensors if tensor.constant}
    names = _names(operators)
    ends = [
        position
        for position in range(len(operators) - 1)
        if names[position] != names[position + 1] and _leading_on(operators, position, constants) is not None
    ]
    if not ends:
        raise ModelError(
            f"{origin} cannot be cut into blocks: its tensors are not named after any, or it is compiled for the Edge "
            "TPU; convert it from Keras with edgeeff to keep the names"
        )
    files = _files(content, origin, operators, ends, constants)
    blocks = []
    begin = 0
    for end, file in zip([*ends, len(operators) - 1], [*files, content], strict=True):
        own = operators[begin : end + 1]
        blocks.append(Block(names[begin], len(own), sum(operator.macs for operator in own), file))
        begin = end + 1
    return tuple(blocks)


def _names(operators: Sequence[inspect.Operator]) -> list[str]:
    """Return each operator's block; one without a name belongs to the block before it."""
    names: list[str] = []
    for operator in operators:
        name = FIRST if operator.block in SCALING else operator.block
        names.append(name or (names[-1] if names else FIRST))
    return names


def _leading_on(operators: Sequence[inspect.Operator], position: int, constants: Set[int]) -> int | None:
    """Return the only tensor that leads from the operators up to `position` to later ones; None when there are more."""
    done = operators[: position + 1]
    written = {index for operator in done for index in operator.outputs}
    later = operators[position + 1 :]
    made_later = {index for operator in later for index in operator.outputs}
    read_before = {index for operator in done for index in operator.inputs} - written
    read_later = {index for operator in later for index in operator.inputs if index >= 0} - made_later
    # The network's input may be read on both sides, and so may a constant, which every file has for itself.
    crossing = (read_later & (written | read_before)) - constants
    return crossing.pop() if len(crossing) == 1 and crossing <= written else None


def _files(
    content: bytes, origin: str, operators: Sequence[inspect.Operator], ends: Sequence[int], constants: Set[int]
) -> list[bytes]:
    """Return the files that end after each of these operators, in their order."""
    files = []
    for end in ends:
        graph = Graph(content, origin)
        tensor = _leading_on(operators, end, constants)
        assert tensor is not None  # noqa: S101 - an end is where one leads on
        graph.cut(0, end + 1, graph.inputs[0], tensor)
        files.append(graph.content())
    return files
