"""What the files of a run say: its checkpoint, its settings, and where its data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo_ood.data.digits import digits_lt, register_resolver, split_of
from solo_ood.errors import UserError, short_repr
from solo_ood.files.checkpoint import load
from solo_ood.host.run_args import NAME, has_args, read_args, settings_folder

_IMAGE_FOLDERS = ("custom", "imagenet", "imagenet100")  # the host's data sets that are folders


@dataclass(frozen=True)
class RunFiles:
    """A run of either host, finished or not.

    Attributes:
        folder: where its ``args.json`` is.
        checkpoint: its newest .ckpt, or the one that was asked for.
        args: what ``args.json`` says.
    """

    folder: Path
    checkpoint: Path
    args: dict[str, Any]

    @cached_property
    def config(self) -> DictConfig:
        """The run's config; the release's ``args.json`` holds it under a key of its own."""
        register_resolver()
        return OmegaConf.create(self.args.get("config", self.args))

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a value of the config, ``default`` where there is none.

        Raises:
            UserError: if it refers to something that is not there any more.
        """
        try:
            value = OmegaConf.select(self.config, key)
        except OmegaConfBaseException as error:
            raise UserError(
                f"{self.folder / NAME}, {key}",
                expected="a value",
                got=str(error).splitlines()[0],
                remedy="Name the data on the command line, or repair the file.",
            ) from error
        return default if value is None else value

    @property
    def started_in(self) -> Path | None:
        """The folder that the run was started in, if its checkpoints went to a relative one."""
        below = Path(self._text("checkpoint.dir") or "", str(self.setting("method", "")))
        here = self.folder.resolve().parent
        if below.is_absolute() or not below.parts or here.parts[-len(below.parts) :] != below.parts:
            return None
        return here.parents[len(below.parts) - 1]

    def image_folder(self, key: str) -> Path | None:
        """Return the ImageFolder ``data.KEY`` (``train_path``, ``val_path``), which may be gone.

        ``None`` if the run has none, or its data are no image folders (CIFAR, HDF5).
        """
        given = self._text(f"data.{key}")
        is_folder = self.setting("data.dataset", "custom") in _IMAGE_FOLDERS
        if given is None or not is_folder or self.setting("data.format") == "h5":
            return None
        split = split_of(given)
        if split is not None:  # the cache may have moved since
            return Path(digits_lt(split)).resolve()
        if self.started_in is not None and (self.started_in / given).is_dir():
            return (self.started_in / given).resolve()
        return Path(given).resolve()

    @property
    def reference_folder(self) -> Path | None:
        """The labelled images to compare with: the training folder; of the digits, the balanced."""
        train = None if self.setting("data.no_labels") else self.image_folder("train_path")
        is_digits = train is not None and split_of(train) == "train"
        return Path(digits_lt("reference")).resolve() if is_digits else train

    @property
    def crop_size(self) -> int:
        """Height and width (pixels) of the global crops that the network was trained on."""
        pipelines = self.setting("augmentations")
        try:
            if pipelines:
                return int(pipelines[0]["crop_size"])
            given = self.args.get("crop_size")  # of the release, without a config
            return int(given[0] if isinstance(given, list) else given or 224)
        except (LookupError, TypeError, ValueError, OmegaConfBaseException) as error:
            raise self._damaged(
                "augmentations", "a list whose first entry has a crop_size", pipelines
            ) from error

    @property
    def metrics(self) -> Path | None:
        """Lightning's newest ``metrics.csv`` of this run; ``None`` if there is none.

        The release writes it beside the checkpoint; a checkout leaves it to Lightning, below the
        folder that the run was started in, under the number that is the run folder's name.
        """
        beside = self.folder / "metrics.csv"
        if beside.is_file():
            return beside
        root = self._text("default_root_dir")
        logs = [Path(root)] if root else [self.started_in] if self.started_in else []
        logs = [
            folder / "lightning_logs" / f"version_{self.folder.resolve().name}" for folder in logs
        ]
        found = [folder / "metrics.csv" for folder in logs] + list(self.folder.rglob("metrics.csv"))
        there = [path for path in found if path.is_file()]
        return max(there, key=lambda file: file.stat().st_mtime, default=None)

    def checkpoint_facts(self) -> dict[str, Any]:
        """Return which checkpoint it is: its name, the epochs (from 1) and steps behind it."""
        loaded = load(self.checkpoint, mmap=True)
        epoch, steps = (_count(self.checkpoint, loaded, key) for key in ("epoch", "global_step"))
        return {
            "checkpoint": self.checkpoint.name,
            "epoch": None if epoch is None else epoch + 1,
            "steps": steps,
        }

    def _text(self, key: str) -> str | None:
        value = self.setting(key)
        if value is None or isinstance(value, str):
            return value
        raise self._damaged(key, "a path", value)

    def _damaged(self, key: str, expected: str, got: Any) -> UserError:
        return UserError(
            f"{self.folder / NAME}, {key}",
            expected=expected,
            got=short_repr(got),
            remedy="Copy the file again from where the run was trained, or repair it.",
        )


def _count(checkpoint: Path, content: Mapping[str, Any], key: str) -> int | None:
    """Return how many epochs or steps a checkpoint says; ``None`` if nothing."""
    value = content.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UserError(
        f"checkpoint {checkpoint.name}, {key}",
        expected="a whole number",
        got=short_repr(value),
        remedy="Give a checkpoint that main_pretrain.py wrote.",
    )


def same_folder(one: str | Path, other: str | Path) -> bool:
    """Whether both are the same data, also where the cache of the digits has moved."""
    splits = split_of(one), split_of(other)
    if any(splits):
        return splits[0] == splits[1]
    return Path(one).resolve() == Path(other).resolve()


def find_run(path: Path) -> RunFiles:
    """Return the run at ``path``: its folder, or one of its checkpoints.

    Raises:
        UserError: if there is no checkpoint, or no ``args.json`` that belongs to it.
    """
    if path.is_file():
        folder = settings_folder(path)
        return RunFiles(folder, path, read_args(folder))
    found: list[Path] = []
    if has_args(path):
        args = read_args(path)
        # The host puts the name before the file's: with a `/` in it, that is a folder below.
        folders = {path, (path / str(args.get("name", ""))).parent}
        found = [file for folder in folders for file in folder.glob("*.ckpt")]
    if not found:
        below = sorted(file.parent.name for file in path.glob(f"*/{NAME}"))
        where = f"the runs in it are {', '.join(below[:5])}" if below else "nor runs below it"
        raise UserError(
            "run folder",
            expected="a .ckpt and args.json",
            got=f"{path} without them; {where}",
            remedy="Give the folder below trained_models that main_pretrain.py wrote, or a .ckpt.",
        )
    return RunFiles(path, max(found, key=lambda file: file.stat().st_mtime), args)
