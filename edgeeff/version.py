"""Which edgeeff this is, and the versions beside it that matter to who reports what happened.

Modules of edgeeff take its version from here; the package's own face, `edgeeff/__init__.py`, is for users.
"""

from __future__ import annotations

import platform

__version__ = "0.1.0"

RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def line() -> str:
    """Return edgeeff, Python, the installed runtimes and TensorFlow with their versions; none of them is imported."""
    from importlib import metadata

    said = [f"edgeeff {__version__}", f"Python {platform.python_version()}"]
    runtimes = []
    for package in RUNTIMES:
        try:
            runtimes.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    said += runtimes or ["no runtime"]
    try:
        said.append(f"TensorFlow {metadata.version('tensorflow')}")
    except metadata.PackageNotFoundError:
        said.append("no TensorFlow")
    return ", ".join(said)
