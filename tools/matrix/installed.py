"""What is installed in the running environment: versions, this package, the patched release."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import install_host

from matrix.hosts import Host
from matrix.program import ROOT
from matrix.trees import state as tree_state
from solo_ood.errors import UserError

SHOWN = ("python", "torch", "lightning", "torchmetrics", "timm")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in SHOWN[1:]}}


def state(host: Host) -> list[str]:
    """Return what the results of a host depend on: they hold as long as it is the same.

    Raises:
        UserError: if the environment does not hold this folder's package or the patched release.
    """
    found = [f"{name} {version}" for name, version in versions().items()]
    if host.package:
        found.append(f"solo_ood {_digest(_check_package().values())}")
    if host.tree:
        return [*found, tree_state(host.tree)]
    scripts = sorted(ROOT.glob("scripts/main_*.py"))
    return [*found, f"solo-learn {_check_release()}", _digest(scripts)]


def _check_package() -> dict[str, Path]:
    """Return the files of the package, by their names where it is installed."""
    folder = _folder_of("solo_ood")
    files = {}
    for pattern, where in (("solo_ood/**/*", ""), ("configs/**/*", "solo_ood/"),
                           ("hydra_plugins/solo_ood*.py", "")):  # fmt: skip
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{where}{path.relative_to(ROOT)}"] = path
    for name, path in files.items():
        installed = folder / name
        same = installed.is_file() and installed.read_bytes() == path.read_bytes()
        _expect(same, f"solo_ood in {folder}", f"that of this project, with its {name}")
    return files


def _check_release() -> str:
    """Return the fingerprint of the installed solo-learn."""
    spec = install_host.DEFAULT_SPEC
    wanted = install_host.fingerprint(spec, install_host.patches_of(spec))
    folder = _folder_of("solo")
    marker = folder / install_host.MARKER_NAME
    found = json.loads(marker.read_text())["fingerprint"] if marker.is_file() else None
    _expect(found == wanted, f"solo-learn in {folder}", f"{spec} with the patches")
    return wanted


def _folder_of(package: str) -> Path:
    """Return the folder that an installed package is in."""
    spec = importlib.util.find_spec(package)
    return Path(str(spec.origin)).parent.parent if spec else Path("nowhere")


def _expect(fulfilled: bool, what: str, expected: str) -> None:
    if not fulfilled:
        raise UserError(
            what,
            expected=expected,
            got="another or none",
            remedy="`make compatibility` installs it.",
        )


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
