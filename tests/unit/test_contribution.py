"""The patch that offers ``dino_ood`` to solo-learn holds the same code as this package."""

from __future__ import annotations

import ast
import importlib.util
import re

import pytest
import yaml
from repository import ROOT

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
    path = ROOT / "tools/contribution.py"
    spec = importlib.util.spec_from_file_location("contribution", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.contribution()


def touched(patch: str) -> list[str]:
    return re.findall(r"^diff --git a/(\S+)", patch, re.M)


def test_patch_and_package_have_the_same_code(generated):
    """If not: write the package's into a checkout, see patches/README.md."""
    offered: dict[str, str] = {}
    for patch in SERIES:
        text = patch.read_text()
        files = added_files(text)
        for path in touched(text):
            if path.startswith(TARGET):
                assert path in files, f"{patch.name} changes {path}: put that where it is added"
                offered[path] = files[path]
    assert offered.keys() == generated.keys()
    for path, text in generated.items():
        assert offered[path] == text, f"{path} in the patch is not that of the package"


def test_everything_that_the_method_needs_is_offered(generated):
    """No import leads back into this package, and none to a module that is not there."""
    for path, text in generated.items():
        assert "solo_ood" not in text and not re.search(r"\bthe host's|\bThe host\b", text), path
        for node in ast.walk(ast.parse(text)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                file = name.replace(".", "/")
                known = f"{file}.py" in generated or f"{file}/__init__.py" in generated
                assert known or not name.startswith("solo.utils.ood"), (path, name)


def test_evaluated_annotations_are_valid_in_python_3_8(generated):
    """OmegaConf evaluates the fields of dataclasses; ``X | None`` and ``list[X]`` are newer."""
    for path, text in generated.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.decorator_list:
                for field in (n for n in node.body if isinstance(n, ast.AnnAssign)):
                    kind = ast.unparse(field.annotation)
                    assert not re.search(r"\||\b(list|dict|tuple|set)\[", kind), (path, kind)


def test_configs_of_the_patch_show_the_defaults():
    from solo_ood.settings.schema import OODConfig, parse

    texts = added_files(SERIES[-1].read_text())
    configs = [yaml.safe_load(t) for path, t in texts.items() if path.endswith("dino_ood.yaml")]
    assert len(configs) == 2
    for config in configs:
        assert config["method"] == "dino_ood"
        assert parse(config["method_kwargs"]["ood"], 256) == OODConfig()


def test_series_contains_no_local_paths():
    assert len(SERIES) >= 10
    for path in SERIES:
        text = path.read_text()
        assert "From: solo-ood contributors" in text and "[PATCH " in text
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", text), path.name
