"""Hide this package from Python, although it is installed."""

from __future__ import annotations

from pathlib import Path


def hide(folder: Path) -> Path:
    """Make a folder that, first in PYTHONPATH, hides the package, its plugin and entry points."""
    # Of all distributions of one name, the first on the path is the one whose entry points count.
    info = folder / "solo_ood-0.dist-info"
    plugins = folder / "hydra_plugins"  # a package hides the namespace that our plugin is in
    for path in (info, plugins):
        path.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: solo-ood\nVersion: 0\n")
    (plugins / "__init__.py").touch()
    (folder / "solo_ood.py").write_text("raise ImportError('hidden')\n")
    return folder
