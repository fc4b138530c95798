"""The Python environments that the rows run in, and exactly what is installed there."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import install_host

from compat.hosts import ROOT, Host
from compat.program import Failed, run
from solo_ood.errors import UserError

SHOWN = ("python", "torch", "lightning", "torchmetrics", "timm")
# Lightning 2.1.2 imports pkg_resources, which setuptools no longer has.
BESIDE_PINS = "setuptools<81"
INSTALLING = 3600.0  # seconds; torch with CUDA is 5 GB
PROBE = f"""
import json, pathlib, platform, sysconfig
from importlib import metadata, util

def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

found = {{"python": platform.python_version()}}
found |= {{name: version(name) for name in {SHOWN[1:]!r}}}
found |= {{name: util.find_spec(name) is not None for name in ("umap", "seaborn", "pandas")}}
spec = util.find_spec("solo_ood")
found["solo_ood"] = spec.origin if spec else None
marker = pathlib.Path(sysconfig.get_path("purelib")) / {install_host.MARKER_NAME!r}
found["release"] = json.loads(marker.read_text())["fingerprint"] if marker.is_file() else None
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Environment:
    """An interpreter, its versions, and everything installed there that a host's results are of."""

    python: Path
    versions: dict[str, str]
    state: list[str]


def make_environment(host: Host, tree: Path, work: Path) -> Environment:
    """Return the host's environment, made first if it is not the running interpreter's.

    Raises:
        RuntimeError: if it cannot be made or does not hold what the host needs.
    """
    python = Path(sys.executable)
    if host.environment == "pins":  # the tree's own
        python = _make_venv(work / "venvs/pins", tree / "requirements.txt", work)
    found = json.loads(run([python, "-I", "-c", PROBE], work, work / "logs/probe.log", 600))
    state = [f"{name} {found[name]}" for name in SHOWN]
    package, release = found["solo_ood"], found["release"]
    installed = digest_of(Path(package).parent.parent, "solo_ood/configs") if package else None
    _expect(python, "solo_ood", "that of this folder", installed == sources())
    extra = all(found[name] for name in ("umap", "seaborn", "pandas"))
    _expect(python, "the extra `umap`", "it to be installed", extra)
    if not host.in_tree:
        state.append(f"solo_ood {installed}")
    if host.release:
        spec = install_host.DEFAULT_SPEC
        wanted = install_host.fingerprint(spec, install_host.patches_of(spec))
        _expect(python, "solo-learn", f"{spec} with the patches", release == wanted)
        state.append(f"solo-learn {wanted}")
        state += [_digest([path.read_bytes()]) for path in sorted(ROOT.glob("scripts/main_*.py"))]
    return Environment(python, {name: found[name] for name in SHOWN}, state)


def _expect(python: Path, what: str, expected: str, right: bool) -> None:
    if not right:
        raise UserError(
            f"{what} in {python}",
            expected=expected,
            got="another or none",
            remedy="`make compatibility` installs it.",
        )


def sources() -> str:
    """Return the digest that an installed copy of this folder has."""
    return digest_of(ROOT, "configs")


def digest_of(folder: Path, configs: str) -> str:
    """Return a digest of the modules and configs of ``solo_ood`` and its Hydra plugin."""
    files = {path: path.relative_to(folder / configs) for path in folder.glob(f"{configs}/**/*")}
    for path in [*folder.glob("solo_ood/**/*.py"), *folder.glob("hydra_plugins/solo_ood*.py")]:
        files.setdefault(path, path.relative_to(folder))
    return _digest(
        f"{name}\0".encode() + path.read_bytes()
        for path, name in sorted(files.items(), key=lambda item: str(item[1]))
        if path.suffix in (".py", ".yaml")
    )


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _make_venv(folder: Path, pins: Path, work: Path) -> Path:
    """Make the environment of ``pins``, or update the ``solo_ood`` in it; return its python."""
    python, stamp, log = folder / "bin/python", folder / "made-of.json", work / "logs/venv.log"
    wanted = {"pins": pins.read_text(), "beside": BESIDE_PINS, "solo_ood": sources()}
    old = json.loads(stamp.read_text()) if stamp.is_file() else {}
    if old == wanted:
        return python
    source = _copy_sources(work / "source")
    print(
        f"{folder.name}: installing {pins.name} and solo_ood (minutes the first time)", flush=True
    )
    try:
        if any(old.get(key) != wanted[key] for key in ("pins", "beside")):
            run([sys.executable, "-m", "venv", "--clear", folder], work, log, INSTALLING)
        stamp.unlink(missing_ok=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
        run([*pip, "-r", pins, BESIDE_PINS, f"{source}[umap]"], work, log, INSTALLING)
    except Failed as failure:
        raise UserError(
            f"environment {folder.name}",
            expected=f"pip to install {pins}",
            got=str(failure),
            remedy=f"Read {log}.",
        ) from failure
    stamp.write_text(json.dumps(wanted))
    return python


def _copy_sources(folder: Path) -> Path:
    """Copy what the package is built from: beside it, a `build` of older modules may lie."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("solo_ood", "configs", "hydra_plugins"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder
