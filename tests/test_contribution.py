"""The patch that offers ``dino_ood`` to solo-learn holds the same code as this package."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERIES = sorted((ROOT / "patches/solo-learn-main").glob("*.patch"))
TARGET = "solo/utils/ood"


def added_files(patch: str) -> dict[str, str]:
    """The files that a patch creates: path to text."""
    parts = re.split(r"^diff --git .*\n", patch, flags=re.M)[1:]
    files = {}
    for part in parts:
        if part.startswith("new file"):
            (path,) = re.findall(r"^\+\+\+ b/(.*)$", part, re.M)
            body = part.split("\n@@", 1)[1].split("\n", 1)[1]
            files[path] = "".join(
                line[1:] + "\n" for line in body.splitlines() if line.startswith("+")
            )
    return files


@pytest.fixture(scope="module")
def generated():
    path = ROOT / "scripts/upstream/contribution.py"
    spec = importlib.util.spec_from_file_location("contribution", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.contribution()


def test_patch_and_package_have_the_same_code(generated):
    """If not: write the package's into a checkout, see patches/README.md."""
    offered = {k: v for k, v in added_files(SERIES[-1].read_text()).items() if k.startswith(TARGET)}
    assert offered.keys() == generated.keys()
    for path, text in generated.items():
        assert offered[path] == text, f"{path} in the patch is not that of the package"


def test_everything_that_the_method_needs_is_offered(generated):
    """No import leads back into this package, and none to a module that is not there."""
    for path, text in generated.items():
        assert "solo_ood" not in text, path
        for module in re.findall(r"^from (solo\.utils\.ood\S*) import", text, re.M):
            file = module.replace(".", "/")
            assert f"{file}.py" in generated or f"{file}/__init__.py" in generated, (path, module)


def test_series_names_nobody_s_folders():
    assert len(SERIES) >= 10
    for path in SERIES:
        text = path.read_text()
        assert "From: solo-ood contributors" in text and "[PATCH " in text
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", text), path.name
