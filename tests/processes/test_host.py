"""Registration, the messages without a usable host, and what other programs pay: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solo_ood.errors import UserError


def python(code: str, *, site: Path | None = None, path: Path | None = None, cwd: Path) -> str:
    """Run ``code`` in a new interpreter; return what it printed to both streams."""
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    args = [sys.executable]
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(path), env.get("PYTHONPATH", "")])
    if site is not None:
        env["PYTHONPATH"] = str(site)
        args.append("-S")
    done = subprocess.run(
        [*args, "-c", code], capture_output=True, text=True, env=env, cwd=cwd, timeout=300
    )
    return done.stdout + done.stderr


def test_registration_is_explicit_and_idempotent(tmp_path):
    code = """
from solo.methods import METHODS
import solo_ood, solo_ood.settings.schema
assert "dino_ood" not in METHODS
solo_ood.register(); solo_ood.register()
from solo.methods.dino import DINO
print(METHODS["dino_ood"].__name__, issubclass(METHODS["dino_ood"], DINO))
"""
    assert python(code, cwd=tmp_path).strip().endswith("DINOOOD True")


def test_foreign_class_of_the_same_name_is_an_error(registered, monkeypatch):
    from solo.methods import METHODS

    from solo_ood.training.plugin import register

    monkeypatch.setitem(METHODS, "dino_ood", METHODS["dino"])
    with pytest.raises(UserError, match="no other class of this name, got solo.methods.dino"):
        register()


def test_import_is_light(tmp_path):
    code = "import sys, solo_ood; print(sorted({'torch', 'solo', 'hydra'} & set(sys.modules)))"
    assert python(code, cwd=tmp_path).strip() == "[]"


def test_another_hydra_application_never_imports_torch(tmp_path):
    app = """
import sys, hydra
sys.argv = ["app", "hydra.run.dir=.", "hydra.output_subdir=null"]
@hydra.main(version_base=None)
def main(cfg):
    import hydra_plugins.solo_ood_searchpath
    print("plugin present, torch", "torch" in sys.modules, "solo", "solo" in sys.modules)
main()
"""
    (tmp_path / "app.py").write_text(app)
    out = python("import runpy; runpy.run_path('app.py', run_name='__main__')", cwd=tmp_path)
    assert "plugin present, torch False solo False" in out


def without_host(folder: Path) -> Path:
    """Link every installed package but solo-learn into ``folder``."""
    folder.mkdir()
    for entry in sys.path:
        if not Path(entry).is_dir() or "site-packages" not in entry:
            continue
        for item in Path(entry).iterdir():
            link = folder / item.name
            if not item.name.startswith(("solo", "__editable__")) and not link.exists():
                link.symlink_to(item)
    import solo_ood

    (folder / "solo_ood").symlink_to(Path(solo_ood.__file__).parent)
    return folder


def test_no_host_is_an_error_with_a_remedy(tmp_path):
    site = without_host(tmp_path / "site")
    assert python("import solo_ood", site=site, cwd=tmp_path) == ""
    out = python("import solo_ood; solo_ood.register()", site=site, cwd=tmp_path)
    assert "solo-learn: expected an installed host, got no package `solo`" in out
    assert "tools/install_host.py" in out


def test_host_of_unknown_interface_is_an_error(tmp_path):
    package = tmp_path / "solo" / "methods"
    package.mkdir(parents=True)
    (tmp_path / "solo" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "dino.py").write_text("class DINO:\n    def __init__(self, settings): ...\n")
    out = python("import solo_ood; solo_ood.register()", path=tmp_path, cwd=tmp_path)
    assert "expected DINO(cfg) of the main branch or DINO(**kwargs) of 1.0.2" in out
    assert "got DINO(settings)" in out


def test_host_that_does_not_import_is_an_error(tmp_path):
    package = tmp_path / "solo" / "methods"
    package.mkdir(parents=True)
    (tmp_path / "solo" / "__init__.py").touch()
    (package / "__init__.py").write_text("import pl_bolts_that_is_gone\n")
    out = python("import solo_ood; solo_ood.register()", path=tmp_path, cwd=tmp_path)
    assert "expected a host that imports with the installed torch and lightning" in out
    assert "pl_bolts_that_is_gone" in out
