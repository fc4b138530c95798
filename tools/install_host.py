#!/usr/bin/env python3
"""Install the host, solo-learn, into the environment of the running interpreter."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SPEC = "solo-learn==1.0.2"
DIST_NAME = "solo-learn"
PTH_NAME = "solo_ood_host.pth"
MARKER_NAME = "solo_ood_host.json"
# Neither an identity nor a signature of the user's belongs into throw-away trees.
GIT = ["git", "-c", "user.name=solo-ood", "-c", "user.email=solo-ood@localhost", "-c",
       "commit.gpgsign=false", "-c", "core.autocrlf=false"]  # fmt: skip
# Written into every tree that this script unpacked: nothing without it is ever deleted.
TREE_MARKER = ".unpacked-by-install-host"
# setuptools builds wheels without the package `wheel` from this version on.
SETUPTOOLS_ALONE = (70, 1)
BUILD_REMEDY = "see pip's message above (without a network: install setuptools>=70.1 here first)"

# Runs in a fresh interpreter, because this one does not see what pip changed meanwhile.
PROBE = f"""
import hashlib, importlib.metadata as m, importlib.util as u, json
spec = u.find_spec("solo")
try:
    record = m.distribution({DIST_NAME!r}).read_text("RECORD") or ""
except m.PackageNotFoundError:
    record = ""
try:
    setuptools = m.version("setuptools")
except m.PackageNotFoundError:
    setuptools = ""
print(json.dumps({{
    "origin": spec.origin if spec else None,
    "record": hashlib.sha256(record.encode()).hexdigest() if record else None,
    "setuptools": setuptools,
}}))
"""


class HostError(Exception):
    """What was expected, what was found instead, and what to do about it."""

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        self.got = got
        super().__init__(f"expected: {expected}\n     got: {got}\n  remedy: {remedy}")


def say(text: str) -> None:
    print(f"[install_host] {text}", flush=True)


def run(
    command: list[str], cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False)


def tail(process: subprocess.CompletedProcess[str]) -> str:
    """The lines of a failed command that say why it failed."""
    lines = [line.strip() for line in (process.stderr + process.stdout).splitlines()]
    # pip wraps the reason in lines that only say that there is one.
    noise = re.compile(r"subprocess|finished with status|^$", re.IGNORECASE)
    reason = re.compile(r"error|not found|denied|no module", re.IGNORECASE)
    useful = [line for line in lines if not noise.search(line)]
    errors = [line for line in useful if reason.search(line)] or useful
    return "\n          ".join(errors[-4:] or [f"exit status {process.returncode}"])


def pip(work: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
    return run(command, work)


def probe(work: Path) -> dict[str, str | None]:
    """Where `solo` would be imported from, and a digest of what pip recorded of it."""
    process = run([sys.executable, "-c", PROBE], work)
    if process.returncode:
        raise HostError("a working Python interpreter", tail(process), f"check {sys.executable}")
    found: dict[str, str | None] = json.loads(process.stdout)
    return found


def build_options(work: Path) -> list[str]:
    """Build with the setuptools at hand if it suffices: faster, and needs no network."""
    version = re.findall(r"\d+", str(probe(work)["setuptools"]))
    numbers = tuple(int(number) for number in version[:2])
    return ["--no-build-isolation"] if numbers >= SETUPTOOLS_ALONE else []


def patches_of(spec: str) -> list[Path]:
    """The patches for a pinned release `name==version`; none for any other SPEC."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*==\s*([A-Za-z0-9.]+)", spec.strip())
    if match is None:
        return []
    name = re.sub(r"[-_.]+", "-", match[1]).lower()
    return sorted((ROOT / "patches" / f"{name}-{match[2]}").glob("*.patch"))


def fingerprint(spec: str, patches: list[Path]) -> str:
    digest = hashlib.sha256(spec.encode())
    for patch in patches:
        digest.update(patch.name.encode() + b"\0" + patch.read_bytes())
    return digest.hexdigest()


def site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))


def installed_already(work: Path, spec: str, wanted: str) -> bool:
    """Whether the last install was of the same thing and nothing has replaced it since."""
    if patches_of(spec) and not tree_of(spec, work).exists():
        return False  # its tests are to be at hand
    try:
        marker = json.loads((site_packages() / MARKER_NAME).read_text())
    except (OSError, ValueError):
        return False
    return bool(marker.get("fingerprint") == wanted and marker.get("state") == state(work))


def state(work: Path) -> str:
    found = probe(work)
    return f"{found['origin']} {found['record']}"


def write_marker(work: Path, spec: str, wanted: str) -> None:
    marker = {"spec": spec, "fingerprint": wanted, "state": state(work)}
    (site_packages() / MARKER_NAME).write_text(json.dumps(marker, indent=2) + "\n")


def make_work_dir(work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    ignore = work / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return work


def tree_of(spec: str, work: Path) -> Path:
    return work / re.sub(r"\s*==\s*", "-", spec.strip())


def find_sdist(folder: Path, stem: str) -> Path | None:
    # Newer build tools write the name with an underscore.
    names = (p for p in folder.glob("*.tar.gz") if p.name.replace("_", "-") == f"{stem}.tar.gz")
    return next(names, None)


def download_sdist(spec: str, work: Path) -> Path:
    folder, stem = work / "download", tree_of(spec, work).name
    if find_sdist(folder, stem) is None:
        say(f"downloading the source of {spec} through pip")
        # Only the host itself from source: `:all:` would also compile what its build needs.
        options = ["--no-deps", "--no-binary", DIST_NAME, "--dest", str(folder)]
        process = pip(work, "download", *options, *build_options(work), spec)
        if process.returncode:
            raise HostError(
                f"the source archive of {spec} from the configured package index",
                tail(process),
                f"check the network and pip's index settings, or put {stem}.tar.gz into {folder}",
            )
    archive = find_sdist(folder, stem)
    if archive is None:
        names = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise HostError(f"{stem}.tar.gz in {folder}", names, f"empty {folder} and try again")
    return archive


def unpack(archive: Path, tree: Path) -> Path:
    if tree.exists():
        if not (tree / TREE_MARKER).exists():
            raise HostError(
                f"{tree} to be absent or unpacked by this script",
                "a folder of another origin, which may hold work of yours",
                "move it away, or choose another --dir",
            )
        shutil.rmtree(tree)
    say(f"unpacking to {short_path(tree)}")
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(tree.parent, filter="data")
            else:
                tar.extractall(tree.parent)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise HostError(
            f"a readable archive {archive}", str(error), "delete it and try again"
        ) from error
    (tree / TREE_MARKER).touch()
    return tree


def git(tree: Path, *args: str) -> None:
    """Run git on the tree alone, without the caller's settings for a repository."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    process = run([*GIT, *args], tree, env)
    if process.returncode:
        raise HostError(
            f"`git {' '.join(args[:1])}` to work in {tree.name}",
            tail(process),
            f"delete {tree.parent / 'download'} if its archive was changed, else repair the patch",
        )


def apply_patches(patches: list[Path], tree: Path) -> None:
    """Make the tree a repository of its own, and apply each patch as a commit."""
    if shutil.which("git") is None:
        raise HostError(
            "the command git, which applies the patches", "no git on PATH", "install git"
        )
    git(tree, "init", "-q")
    git(tree, "add", "--all", "--force")
    git(tree, "commit", "-q", "--message", tree.name)
    git(tree, "am", "-q", *map(str, patches))
    say(f"applied {len(patches)} patches")


def pip_install(work: Path, shown_as: str, *args: str) -> None:
    say(f"installing {shown_as} with pip, without its dependencies")
    (site_packages() / PTH_NAME).unlink(missing_ok=True)
    process = pip(work, "install", "--no-deps", "--force-reinstall", *build_options(work), *args)
    if process.returncode:
        raise HostError(f"pip to install {shown_as}", tail(process), BUILD_REMEDY)


def install_release(spec: str, patches: list[Path], work: Path) -> None:
    tree = unpack(download_sdist(spec, work), tree_of(spec, work))
    apply_patches(patches, tree)
    pip_install(work, f"the patched {spec}", str(tree))


def install_checkout(path: Path, work: Path) -> None:
    if not (path / "solo" / "__init__.py").is_file():
        raise HostError(
            "a solo-learn checkout, with solo/__init__.py",
            str(path),
            "pass the folder that holds solo/",
        )
    try:
        pip_install(work, f"the checkout {path}", "--editable", str(path))
    except HostError as error:
        say(f"pip cannot build this checkout with today's setuptools: {error.got}")
        add_pth(path, work)


def add_pth(path: Path, work: Path) -> None:
    """The fallback: put the checkout itself on the path of this environment."""
    # An installed release would come first on the path and hide the checkout.
    pip(work, "uninstall", "--yes", DIST_NAME)
    (site_packages() / PTH_NAME).write_text(f"{path}\n")
    say(f"instead, {PTH_NAME} in site-packages now points at the checkout (pip does not list it)")


def install(spec: str, work: Path) -> None:
    patches = patches_of(spec)
    path = Path(spec).expanduser()
    (site_packages() / MARKER_NAME).unlink(missing_ok=True)
    if spec == DEFAULT_SPEC and not patches:
        raise HostError(
            f"patches for {spec} in {ROOT / 'patches'}", "none", "run this from a complete checkout"
        )
    if patches:
        install_release(spec, patches, work)
    elif path.is_dir():
        install_checkout(path.resolve(), work)
    elif os.sep in spec and "://" not in spec and not path.exists():
        raise HostError(
            "a folder or a pip requirement", f"{spec}, which does not exist", "check --spec"
        )
    else:
        pip_install(work, spec, spec)


def check_import(work: Path) -> None:
    say("importing solo once, to be sure (this takes some seconds)")
    code = "import solo.methods; print(solo.methods.DINO.__name__)"
    process = run([sys.executable, "-W", "ignore", "-c", code], work)
    if process.returncode == 0:
        return
    missing = re.search(r"No module named '([\w.]+)'", process.stderr)
    remedy = (
        f"install {missing[1].split('.')[0]}, or the default --spec"
        if missing
        else "read the traceback's end above"
    )
    raise HostError("`import solo.methods` to work", tail(process), remedy)


def short_path(path: Path) -> str:
    """A path as short as possible, relative to the project where it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def identity(spec: str) -> str:
    """The SPEC, a folder by its absolute path: the same relative path may mean another folder."""
    path = Path(spec).expanduser()
    return str(path.resolve()) if not patches_of(spec) and path.is_dir() else spec


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--spec",
        default=DEFAULT_SPEC,
        help="a release that has patches here, the folder of a checkout, or any pip requirement "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dir", type=Path, default=ROOT / ".host", help="where to unpack (default: .host here)"
    )
    args = parser.parse_args(argv)
    try:
        work = make_work_dir(args.dir.expanduser().resolve())
        wanted = fingerprint(identity(args.spec), patches_of(args.spec))
        if installed_already(work, args.spec, wanted):
            say(f"{args.spec} is installed already and unchanged: nothing to do")
            return 0
        install(args.spec, work)
        check_import(work)
        write_marker(work, args.spec, wanted)
    except HostError as error:
        print(f"[install_host] failed\n{error}", file=sys.stderr)
        return 1
    say(f"done: solo comes from {probe(work)['origin']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
