"""What the main branch's k-NN and UMAP scripts need on today's torchmetrics and without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class OnCPU(TorchFunctionMode):
    """Inside this context, moving a tensor or module to CUDA leaves it on the CPU.

    ``main_knn.py`` calls ``.cuda()`` and ``main_umap.py`` ``.to("cuda:0")`` unconditionally.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.to:
            args = tuple(_cpu(a) for a in args)
            kwargs = {key: _cpu(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _cpu(value: Any) -> Any:
    if isinstance(value, (str, torch.device)) and str(value).startswith("cuda"):
        return torch.device("cpu")
    return value


def fix_knn_metric() -> None:
    """Let the host's k-NN metric pass ``compute_on_step``, which torchmetrics 1.0 removed."""
    from solo.utils import knn
    from torchmetrics import Metric

    class LegacyMetric(Metric):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("compute_on_step", None)
            super().__init__(*args, **kwargs)

    if knn.WeightedKNNClassifier.__bases__ == (Metric,):
        knn.WeightedKNNClassifier.__bases__ = (LegacyMetric,)
