"""Build the kit, a folder for a machine with a GPU and without a network: ``make gpu-kit``.

It holds what such a machine lacks beside torch, torchvision, Lightning, timm, torchmetrics,
scikit-learn, matplotlib, einops and pytest: Hydra, the patched solo-learn 1.0.2 and this package as
wheels, the project's tests and programs, and data. There, ``sh run.sh STAGE`` runs its stages.

    python tools/gpu/build.py [--out gpu-kit] [--data IMAGES.tar.gz]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from argparse import ArgumentParser
from importlib.metadata import version
from pathlib import Path

from solo_ood.data.digits import digits_lt

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
HOST = PROJECT / ".host" / "solo-learn-1.0.2"  # unpacked and patched by install_host.py
# Of the project: what the stages run. The package comes as a wheel.
TAKEN = ("configs", "scripts", "tools", "tests", "pyproject.toml")
LACKING = ("hydra-core", "omegaconf", "antlr4-python3-runtime")
MEGABYTES = 60


def wheels(folder: Path) -> None:
    """Write the wheels; those of other projects as they are installed here."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder)]
    subprocess.run([*pip, *(f"{name}=={version(name)}" for name in LACKING)], check=True)
    for source in (HOST, PROJECT):
        # From a copy: building leaves folders behind.
        copy = folder.parent / f"source-{source.name}"
        left = shutil.ignore_patterns(".*", "build", "*.egg-info", folder.parent.name, "demo")
        shutil.copytree(source, copy, ignore=left)
        subprocess.run([*pip, str(copy)], check=True)
        shutil.rmtree(copy)


def project(folder: Path) -> None:
    """Copy the tests and programs that the stages run."""
    folder.mkdir()
    for name in TAKEN:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy2(source, folder / name)


def pack(data: Path | None, archive: Path) -> None:
    """Copy the images, by default the embedded digits in a layout of train and test."""
    if data is not None:
        shutil.copy2(data, archive)
        return
    with tarfile.open(archive, "w:gz") as tar:
        for split, name in (("reference", "train"), ("val", "test")):
            tar.add(digits_lt(split), f"digits/{name}")


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "gpu-kit")
    parser.add_argument("--data", type=Path, help="a tar.gz of an ImageFolder train and test")
    args = parser.parse_args()
    if not HOST.is_dir():
        sys.exit(f"expected: {HOST}\n     got: nothing\n  remedy: make install")
    shutil.rmtree(args.out, ignore_errors=True)
    (args.out / "wheels").mkdir(parents=True)
    wheels(args.out / "wheels")
    project(args.out / "project")
    pack(args.data, args.out / "data.tar.gz")
    shutil.copy2(HERE / "run.sh", args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file()) / 2**20
    if size > MEGABYTES:
        sys.exit(f"expected: at most {MEGABYTES} MB\n     got: {size:.0f}\n  remedy: less data")
    print(f"{args.out}: {size:.1f} MB")


if __name__ == "__main__":
    main()
