"""Maskwright: from raw text to a trained, measured and served RoBERTa-class encoder.

The verbs of the command line are functions here, imported when first used:

    import maskwright as mw
    mw.prepare("demo", output="data/demo")
    mw.load("runs/demo/finetune-pretrained").predict(["a text"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "MaskwrightError",
    "UserError",
    "__version__",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "import_",
    "inspect",
    "load",
    "monitor",
    "prepare",
    "pretrain",
]

if TYPE_CHECKING:
    from .api import (
        demo,
        doctor,
        evaluate,
        export,
        finetune,
        import_,
        inspect,
        load,
        monitor,
        prepare,
        pretrain,
    )
    from .core.errors import MaskwrightError, UserError

_ERRORS = ("MaskwrightError", "UserError")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = ".core.errors" if name in _ERRORS else ".api"
    return getattr(import_module(home, __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
