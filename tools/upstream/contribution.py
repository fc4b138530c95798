"""Write what `dino_ood` shares with this package into a solo-learn checkout, in its own form.

The parts of the method live in ``solo_ood/``. The last patch of ``patches/solo-learn-main`` offers
the same code to solo-learn as ``solo/utils/ood/``: other imports, its licence header, its oldest
Python. Those files are generated here, and a test compares them with the patch.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = "solo/utils/ood"
MODULES = (
    "config",
    "config_checks",
    "crop_store",
    "data/tail",
    "errors",
    "exemplars",
    "following",
    "fresh_rows",
    "hashing",
    "mixing",
    "positions",
    "rare_queue",
    "rare_replay",
    "reading",
    "replay",
    "resume",
    "ring",
    "rng",
    "scorers/__init__",
    "scorers/base",
    "scorers/controls",
    "scorers/exemplar",
    "scorers/knn",
    "scorers/mahalanobis",
    "scorers/moments",
    "selection",
    "teacher",
    "threshold",
)
INIT = '"""Find the rare samples of a stream of embeddings, queue them and replay them."""\n'


def contribution() -> dict[str, str]:
    """Return the generated files: path in solo-learn to text."""
    files = {f"{TARGET}/__init__.py": licence() + INIT}
    for module in MODULES:
        text = (ROOT / "solo_ood" / f"{module}.py").read_text()
        files[f"{TARGET}/{module.removeprefix('data/')}.py"] = licence() + convert(text)
    return files


def licence() -> str:
    """Return this project's licence, the same MIT, as the comment that opens solo-learn's files."""
    text = (ROOT / "LICENSE").read_text().strip().split("\n", 4)[4]
    return textwrap.indent(f"Copyright 2023 solo-learn development team.\n\n{text}\n", "# ") + "\n"


def convert(text: str) -> str:
    """Return one module with solo-learn's imports, for Python 3.8."""
    text = text.replace("from solo_ood.data.tail import", "from solo_ood.tail import")
    text = re.sub(r"(^from solo_ood\S* import .*\n)+", _sorted_lines, text, flags=re.M)
    text = re.sub(r"\bsolo_ood\.", TARGET.replace("/", ".") + ".", text)
    return _old_annotations(text) if "@dataclass" in text else text


def _sorted_lines(match: re.Match[str]) -> str:
    return "".join(sorted(match.group().splitlines(keepends=True)))


def _old_annotations(text: str) -> str:
    """OmegaConf evaluates the annotations of dataclasses, which Python 3.8 has to understand."""

    def field(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        kind = re.sub(r"\blist\[", "List[", kind)
        kind = re.sub(r"^(.+) \| None$", r"Optional[\1]", kind)
        return f"    {name}: {kind} = {rest}"

    text = re.sub(r"^    (\w+): ([\w\[\]]+(?: \| None)?) = (.*)", field, text, flags=re.M)
    return text.replace("from typing import Any", "from typing import Any, List, Optional")


def main() -> None:
    """Write the files into the checkout that the command line names."""
    checkout = Path(sys.argv[1])
    if not (checkout / "solo/methods/dino.py").is_file():
        raise SystemExit(f"expected: a checkout of solo-learn's main branch\n     got: {checkout}")
    for path, text in contribution().items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text)
        print(path)


if __name__ == "__main__":
    main()
