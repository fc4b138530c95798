"""``solo-ood data longtail``: a long-tailed training set and a balanced reference, by links."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solo_ood.console import counting_bar
from solo_ood.data.image_folder import image_folder
from solo_ood.data.options import ORDERS, LongtailOptions
from solo_ood.data.tail import exponential_counts
from solo_ood.data.training_folder import check_training_folder
from solo_ood.errors import UserError, unknown_name
from solo_ood.files import atomic
from solo_ood.files.output import check_writable
from solo_ood.options.field import check

MANIFEST = "longtail.json"


def longtail(
    source: Path, out: Path, imbalance: float, seed: int, reference: int = 0, largest: int = 0
) -> list[str]:
    """Make a long-tailed subset whose order is drawn by ``seed``, see ``make_longtail``.

    Returns:
        the classes, the most frequent first.
    """
    given = LongtailOptions(source, out, imbalance, seed, reference=reference, largest=largest)
    return list(make_longtail(given, lambda text: None)["order"])


def make_longtail(options: LongtailOptions, show: Callable[[str], None] = print) -> dict[str, Any]:
    """Link images of an ImageFolder into ``out/train`` (long-tailed) and ``out/reference``.

    The profile is that of CIFAR-LT (Cui et al., 2019, arXiv:1901.05555). Which images are taken is
    drawn by the seed, with ``order=("random",)`` also which class is rare: pairs of runs of
    different seeds then differ in both, so that no class decides. The two parts share no image.

    Returns:
        what ``out/longtail.json`` holds: the options, ``order``, the most frequent first, and
        ``counts``, images of ``train`` by class.

    Raises:
        UserError: if ``out`` has something in it, for too few classes or images, an order that does
            not name all classes, folders that are no classes, images that are gone, or a file
            system without links.
    """
    check(options)
    source, out = options.source, options.out
    _check_empty(out)
    check_writable(out.absolute().parent, "OUT")
    images: dict[str, list[Path]] = {}
    check_training_folder(source, "SRC")
    folder = image_folder(source)
    for path, label in folder.samples:
        images.setdefault(folder.classes[label], []).append(Path(path))
    rng = np.random.default_rng(options.seed)
    order = _order(options.order, images, rng)
    counts = _counts(options, [len(images[name]) for name in order])
    chosen: dict[str, list[Path]] = {}
    for name, count in zip(order, counts):
        drawn = [images[name][i] for i in rng.permutation(len(images[name]))]
        for split, some in (("train", drawn[:count]), ("reference", drawn[count:])):
            chosen[f"{split}/{name}"] = some if split == "train" else some[: options.reference]
    manifest = {
        "source": str(source.resolve()),
        "imbalance": options.imbalance,
        "seed": options.seed,
        "order_by": list(options.order),
        "reference": options.reference,
        "order": order,
        "counts": dict(zip(order, counts)),
    }
    _check_there(chosen)
    _write(options, chosen, manifest)
    show(_table(images, manifest))
    show(f"written: {out}")
    return manifest


def _check_empty(out: Path) -> None:
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(
            f"long-tailed subset {out}",
            expected="a folder that does not exist yet, or is empty",
            got="one that holds files" if out.is_dir() else "a file or a broken link",
            remedy="Remove it or name another.",
        )


def _check_there(chosen: Mapping[str, Sequence[Path]]) -> None:
    gone = [path for paths in chosen.values() for path in paths if not os.path.isfile(path)]
    if gone:
        raise UserError(
            "images of SRC",
            expected="files",
            got=f"{len(gone)} folders, or links to what is not there, the first {gone[0]}",
            remedy="Remove or repair them.",
        )


def _order(
    wanted: Sequence[str], images: Mapping[str, Sequence[Path]], rng: np.random.Generator
) -> list[str]:
    """Return all classes, the most frequent first."""
    names = sorted(images)
    # Drawn whatever the order, so that the same seed draws the same images.
    drawn = [names[i] for i in rng.permutation(len(names))]
    if list(wanted) == ["random"]:
        return drawn
    if list(wanted) == ["name"]:
        return names
    if list(wanted) == ["size"]:
        return sorted(names, key=lambda name: -len(images[name]))
    for name in wanted:
        if name not in images:
            raise unknown_name("class in --order", name, [*names, *ORDERS])
    if sorted(wanted) != names:
        missing = [name for name in names if name not in wanted]
        raise UserError(
            "--order",
            expected=f"one of {', '.join(ORDERS)}, or each class of SRC once",
            got=f"a list without {', '.join(missing[:5])}" if missing else "a class twice",
            remedy="Name all classes, the most frequent first.",
        )
    return list(wanted)


def _counts(options: LongtailOptions, available: Sequence[int]) -> list[int]:
    """Return images of ``train`` by class; ``available`` are those of the source."""
    left = np.array(available) - options.reference
    # How many of the largest class each class could go with.
    shares = exponential_counts(10**9, len(left), options.imbalance)
    possible = int(min(left / (np.array(shares) / shares[0])))
    largest = options.largest or possible
    if left.min() < 1 or largest > possible:
        raise UserError(
            f"images of the classes of {options.source}",
            expected=f"enough for --largest {largest} and --reference {options.reference}",
            got=f"{min(available)} to {max(available)} a class, enough for a largest class of "
            f"{max(0, possible)}",
            remedy="Ask for a smaller largest class or reference.",
        )
    return exponential_counts(largest, len(left), options.imbalance)


def _write(
    options: LongtailOptions, chosen: Mapping[str, Sequence[Path]], manifest: Mapping[str, Any]
) -> None:
    """Write everything aside and rename it: an interrupted call leaves nothing that looks whole."""
    out = options.out
    text = json.dumps(manifest, indent=1) + "\n"
    what, unit = ("copying" if options.copy else "linking"), "img"
    with (
        atomic.staged_folder(out) as aside,
        counting_bar(sum(map(len, chosen.values())), what, unit) as bar,
    ):
        for folder, paths in chosen.items():
            if paths:
                (aside / folder).mkdir(parents=True)
            for path in paths:
                _place(path, aside / folder / _name(path, options.source, folder), options)
                bar.update()
        (aside / MANIFEST).write_text(text, encoding="utf-8")
    if not (out / MANIFEST).is_file() or (out / MANIFEST).read_text(encoding="utf-8") != text:
        _check_empty(out)  # another process was faster


def _name(path: Path, source: Path, folder: str) -> str:
    """Return the image's path below its class, in one word: images of subfolders keep apart."""
    return "_".join(path.relative_to(source / folder.partition("/")[2]).parts)


def _place(path: Path, target: Path, options: LongtailOptions) -> None:
    if options.copy:
        shutil.copy2(path, target)
        return
    real = path.resolve()
    try:
        if options.links == "relative":
            # The folder gets another name, but not another depth.
            target.symlink_to(os.path.relpath(real, target.parent.resolve()))
        else:
            target.symlink_to(real)
    except (OSError, NotImplementedError) as error:  # the latter on systems without links
        raise UserError(
            f"link in {options.out}",
            expected="a file system on which links can be made",
            got=str(error),
            remedy="Copy the images: --copy.",
        ) from error


def _table(images: Mapping[str, Sequence[Path]], manifest: Mapping[str, Any]) -> str:
    """Return the images by class, a line each, and their sums."""
    counts, reference = manifest["counts"], manifest["reference"]
    width = max(len("class"), *map(len, counts)) + 2
    lines = [f"{'class':<{width}}{'source':>8}{'train':>8}{'reference':>11}"]
    rows = [(len(images[name]), count, reference) for name, count in counts.items()]
    sums = tuple(map(sum, zip(*rows)))
    lines += [
        f"{name:<{width}}{a:>8,}{b:>8,}{c:>11,}"
        for name, (a, b, c) in zip([*counts, "all"], [*rows, sums])
    ]
    real = max(counts.values()) / min(counts.values())
    return "\n".join([*lines, f"imbalance {real:.4g} of {manifest['imbalance']:g}"])
