"""What a checkout's ``main_linear.py`` needs: the run's crop size, and any number of classes."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from solo_ood.host import installed, networks

_OWN_SIZE = ("cifar10", "cifar100", "stl10")  # the host evaluates these at their own size


class LinearScript(Callback):
    """Gives the host's data loaders the crops of ``data.augmentations``, to both of them.

    The host has these keys and evaluates at 224 pixels whatever they say; its own advice is to
    rewrite the function that builds the pipelines. It also wants the best 5 of fewer classes. The
    release's program needs none of this.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        given = OmegaConf.select(config, "data.augmentations")
        if installed.generation() != "checkout" or given is None:
            return
        from solo.data import classification_dataloader as loaders
        from solo.methods import linear

        transforms: Any = _unpatched(loaders.prepare_transforms)
        accuracy: Any = _unpatched(linear.accuracy_at_k)
        crop = networks.eval_transform(given.crop_size, (list(given.mean), list(given.std)))

        def prepare_transforms(dataset: str) -> Any:
            return transforms(dataset) if dataset in _OWN_SIZE else (crop, crop)

        def accuracy_at_k(outputs: Any, targets: Any, top_k: Any = (1, 5)) -> Any:
            return accuracy(outputs, targets, tuple(min(k, outputs.shape[1]) for k in top_k))

        # Mark what is replaced already; by setattr, since functions have no such attribute.
        setattr(prepare_transforms, "stock", transforms)  # noqa: B010
        setattr(accuracy_at_k, "stock", accuracy)  # noqa: B010
        loaders.prepare_transforms = prepare_transforms
        linear.accuracy_at_k = accuracy_at_k


def _unpatched(function: Any) -> Any:
    """Return the host's own function where a call before this one has replaced it."""
    return getattr(function, "stock", function)
