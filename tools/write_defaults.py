"""Write ``configs/ood/default.yaml``, the defaults as Hydra sees them, from ``settings/schema.py``.

``python tools/write_defaults.py`` after every change of the schema; a test compares the two.
"""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from solo_ood.settings.field import help_of
from solo_ood.settings.schema import OODConfig

TARGET = Path(__file__).resolve().parent.parent / "configs" / "ood" / "default.yaml"
HEADER = """\
# @package method_kwargs.ood
# Made from solo_ood/settings/schema.py by tools/write_defaults.py: every key of the method, so that
# each can be overridden without a `+`. In the defaults list of a config of your own it is
# `- ood: default`, before `_self_`; on the command line `+ood=default`.
"""


def text() -> str:
    """Return the YAML; the comments are what the schema says of each field."""
    return HEADER + "\n".join(_block(OODConfig, "")) + "\n"


def _block(schema: Any, indent: str) -> list[str]:
    lines = []
    for f in fields(schema):
        if is_dataclass(f.default_factory):
            summary = inspect.getdoc(f.default_factory).splitlines()[0].replace("``", "`")
            lines += ["", f"{indent}{f.name}: # {summary}"]
            lines += _block(f.default_factory, indent + "  ")
            continue
        default = f.default if f.default_factory is MISSING else f.default_factory()
        value = yaml.safe_dump(default, default_flow_style=True).splitlines()[0]
        line, comment = f"{indent}{f.name}: {value}", help_of(f)
        if comment and len(f"{line} # {comment}") > 100:
            width = 98 - len(indent)
            lines += textwrap.indent("\n".join(textwrap.wrap(comment, width)), f"{indent}# ").split(
                "\n"
            )
            comment = ""
        lines.append(f"{line} # {comment}" if comment else line)
    return lines


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
