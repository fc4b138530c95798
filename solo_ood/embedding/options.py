"""Where and how images become embeddings: options of every command that embeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solo_ood.files.cache import cache_folder
from solo_ood.options.field import option

SIDE = 224  # pixels, of most data


@dataclass(frozen=True)
class ExtractConfig:
    """Where and how embeddings are computed.

    Attributes:
        as_host: scale and cut as solo-learn's evaluation does, see ``centre_cropped``; chosen by
            the command.
        cached_only: what is not in the cache is an error, and not computed.
    """

    cache: Path | None = option(
        None, "folder of the embeddings; default: below $SOLO_OOD_CACHE", metavar="DIR"
    )
    image_size: int | None = option(
        None,
        "pixels of the shorter side; default: a run's crop size, 512 for BDD100K's layout, else "
        f"{SIDE}",
        at_least=1,
    )
    batch_size: int = option(32, "images at a time", at_least=1)
    num_workers: int = option(2, "processes that read images; 0 = none beside this one", at_least=0)
    accelerator: str = option("auto", "as Lightning's", metavar="NAME")
    devices: int | str = option(1, "as Lightning's", at_least=1, words={"auto": "auto"})
    num_nodes: int = option(1, "as Lightning's", at_least=1)
    max_unreadable: float = option(
        0.01, "share of the images that may be left out", at_least=0, below=1
    )
    as_host: bool = False
    cached_only: bool = False

    @property
    def folder(self) -> Path:
        """Where embeddings are kept."""
        return self.cache or cache_folder() / "embeddings"
