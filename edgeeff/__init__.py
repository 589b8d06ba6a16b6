"""edgeeff puts EfficientNets on Raspberry Pi and Coral: convert, verify, profile, evaluate, pick.

`__all__` is what a program may rely on, together with what `errors` and `results` list; everything else may change
with any version. Nothing is imported before it is used.
"""

from typing import TYPE_CHECKING

from edgeeff.version import __version__

if TYPE_CHECKING:
    from edgeeff import errors, results
    from edgeeff.api import (
        audit,
        compare,
        compile,  # noqa: A004 - the command's name
        convert,
        diagnose,
        evaluate,
        inspect,
        pick,
        predict,
        profile,
        read_record,
        report,
    )
else:

    def __getattr__(name: str) -> object:
        """Return a public name, from the module that is imported for it now."""
        if name not in __all__:
            raise AttributeError(f"module 'edgeeff' has no public name '{name}'")
        from importlib import import_module

        if name in {"errors", "results"}:
            return import_module(f"edgeeff.{name}")
        return getattr(import_module("edgeeff.api"), name)

    def __dir__() -> list[str]:
        """Return the public names."""
        return list(__all__)


__all__ = [
    "__version__",
    "audit",
    "compare",
    "compile",
    "convert",
    "diagnose",
    "errors",
    "evaluate",
    "inspect",
    "pick",
    "predict",
    "profile",
    "read_record",
    "report",
    "results",
]
