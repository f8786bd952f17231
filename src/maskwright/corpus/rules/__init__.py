"""Rules that keep, change or drop single documents: published filters, cleaning, masking, presets.

One rule, one file, each with its settings (a small config with its limits) and a function that makes
the step. `RulesConfig` holds them all; `rule_steps` puts the chosen ones in order.
"""

from __future__ import annotations

from .config import RulesConfig
from .presets import PRESET_LANGUAGES, PRESETS, RULE_ORDER, PresetName, RuleName
from .steps import rule_steps

__all__ = [
    "PRESETS",
    "PRESET_LANGUAGES",
    "RULE_ORDER",
    "PresetName",
    "RuleName",
    "RulesConfig",
    "rule_steps",
]
