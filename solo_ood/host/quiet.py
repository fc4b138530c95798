"""Warnings from the code of the host and other libraries, which a user cannot act on."""

from __future__ import annotations

import warnings

# (start of the message, category) and why it is not the user's.
SILENT: tuple[tuple[str, type[Warning]], ...] = (
    # solo-learn imports from places that timm has since renamed.
    (r"Importing from timm\.[\w.]+ is deprecated", FutureWarning),
    # solo-learn registers its ConvNeXt and PoolFormer with timm under timm's own names.
    (r"Overwriting \w+ in registry with solo\.", UserWarning),
    # solo-learn's whitening, for a method that is only imported.
    (r"`torch\.cuda\.amp\.custom_(fwd|bwd)\(args\.\.\.\)` is deprecated", FutureWarning),
    # The last layer of solo-learn's DINO head; its parametrised form has other keys in checkpoints.
    (r"`torch\.nn\.utils\.weight_norm` is deprecated", FutureWarning),
    # Lightning asks torch in a way that torch has since replaced.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", Warning),
    # solo-learn's loaders always ask for pinned memory; without a GPU there is nothing to pin for.
    (r"'pin_memory' argument is set as true but no accelerator is found", UserWarning),
    # Lightning's history of a dependency; its CSV logger takes over.
    (r"Starting from v1\.9\.0, `tensorboardX` has been removed", UserWarning),
)


def ignore_foreign_warnings() -> None:
    """Ignore these, and nothing else."""
    for message, category in SILENT:
        warnings.filterwarnings("ignore", message, category)
