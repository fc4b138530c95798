"""Write what `dino_ood` shares with this package into a solo-learn checkout, in its own form.

The parts of the method live in ``solo_ood/``. The last patch of ``patches/solo-learn-main`` offers
the same code to solo-learn as ``solo/utils/ood/``: other imports, its licence header, its oldest
Python. Those files are generated here, and a test compares them with the patch.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "solo/utils/ood"
# They import only each other, and the layers of tests/unit/test_imports.py hold that.
FOLDERS = ("settings", "selection", "replay")
FILES = ("errors.py",)
INIT = '"""Find the rare samples of a stream of embeddings, queue them and replay them."""\n'


def contribution() -> dict[str, str]:
    """Return the generated files: path in solo-learn to text."""
    package = ROOT / "solo_ood"
    paths = [package / name for name in FILES]
    paths += [path for folder in FOLDERS for path in sorted((package / folder).rglob("*.py"))]
    files = {f"{TARGET}/__init__.py": licence() + INIT}
    for path in paths:
        files[f"{TARGET}/{path.relative_to(package)}"] = licence() + convert(path.read_text())
    return files


def licence() -> str:
    """Return this project's licence, the same MIT, as the comment that opens solo-learn's files."""
    text = (ROOT / "LICENSE").read_text().strip().split("\n", 4)[4]
    return textwrap.indent(f"Copyright 2023 solo-learn development team.\n\n{text}\n", "# ") + "\n"


def convert(text: str) -> str:
    """Return one module with solo-learn's imports, for Python 3.8."""
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
    shutil.rmtree(checkout / TARGET, ignore_errors=True)  # what is there no more
    for path, text in contribution().items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text)
        print(path)


if __name__ == "__main__":
    main()
