"""The images of a study: a long-tailed training set for each class order, and held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solo_ood.data.digits import digits_lt
from solo_ood.data.image_folder import image_folder
from solo_ood.data.longtail import longtail
from solo_ood.data.mnist import mnist
from solo_ood.errors import UserError
from solo_ood.selection.classes import class_groups
from solo_ood.study.plan import DataPlan


@dataclass(frozen=True)
class PairData:
    """The folders of a class order: ImageFolders that share no image.

    Attributes:
        train: long-tailed, what is trained on.
        reference: balanced, labelled, held out: what the probes are fitted on.
        test: what they classify.
    """

    train: Path
    reference: Path
    test: Path

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return list(image_folder(self.train).classes)

    @property
    def targets(self) -> np.ndarray:
        """The class ids (N,) of the training images, by dataset index."""
        return np.array(image_folder(self.train).targets)


def sources(plan: DataPlan, given: Path | None) -> tuple[Path, Path]:
    """Return the balanced images to draw from and the test images.

    Raises:
        UserError: if the study needs a folder that was not given, or is not complete.
    """
    if plan.source == "digits":
        return Path(digits_lt("reference")), Path(digits_lt("val"))
    if plan.source == "mnist":
        root = mnist()
        return root / "train", root / "test"
    needed = ("train", "reference", "test") if plan.longtailed else ("train", "test")
    missing = [name for name in needed if given is None or not (given / name).is_dir()]
    if given is None or missing:
        raise UserError(
            "--data",
            expected=f"a folder with the class folders in {', '.join(needed)} below it",
            got="nothing" if given is None else f"{given} without {', '.join(missing)}",
            remedy="Give it: --data DIR.",
        )
    return given.resolve() / "train", given.resolve() / "test"


def build(plan: DataPlan, given: Path | None, order: int, folder: Path) -> PairData:
    """Return the data of a class order below ``folder``; linked there on the first call.

    Raises:
        UserError: for too few images, or data of other settings that are there.
    """
    train, test = sources(plan, given)
    if plan.longtailed:
        return PairData(train, train.with_name("reference"), test)
    root = folder / f"order{order}"
    if not root.exists():
        longtail(train, root, plan.imbalance, order, plan.reference, plan.largest)
    return PairData(root / "train", root / "reference", test)


def exemplars(data: PairData, n: int, seed: int) -> list[int]:
    """Return the dataset indexes of ``n`` images of the Few classes, as many of each, drawn.

    Raises:
        UserError: if these have fewer.
    """
    targets = data.targets
    few = class_groups(targets)["Few"]
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(targets == label)).tolist() for label in few]
    # In turns, so that the rarest class, which may have fewer than its share, gives what it has.
    turns = [members[turn] for turn in range(n) for members in drawn if turn < len(members)]
    if len(turns) < n:
        raise UserError(
            "exemplars",
            expected=f"at most {len(turns)}, as the Few classes have images",
            got=n,
            remedy="Ask for fewer, or for a smaller imbalance.",
        )
    return sorted(turns[:n])
