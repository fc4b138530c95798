"""The frozen network that turns images into features, at a chosen stage."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from solo_ood.errors import UserError

IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)

# The maps of networks that cannot list them: torchvision's ResNet, WideResNet, PoolFormer.
_MAPS = (
    ("layer1", "layer2", "layer3", "layer4"),
    ("block1", "block2", "relu"),
    ("network.0", "network.2", "network.4", "norm"),
)
_EXAMPLE = 96  # pixels, enough for every network that takes any size


class Embedder(nn.Module):
    """A frozen network that turns images into features.

    Attributes:
        dim: D of the pooled features.
        mean: per channel, to normalise the images with.
        std: the same.
        name: short, for tables and pictures.
        note: where the weights are from, and how many fitted.
        fingerprint: sha256 of weights, architecture, stage and normalisation, as hex.
        multiple: height and width of the images must be multiples of it (pixels).
        fixed_size: the only height and width it takes (pixels), or ``None``.
    """

    def __init__(
        self,
        network: nn.Module,
        stage: str = "last",
        patches: bool = False,
        *,
        name: str,
        note: str,
        architecture: str,
        normalisation: tuple[Any, Any] = IMAGENET,
        multiple: int = 1,
        fixed_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.stage, self.patches = stage, patches
        self.name = name if stage == "last" else f"{name} [{stage}]"
        self.note = note
        self.mean, self.std = (tuple(float(x) for x in values) for values in normalisation)
        self.multiple, self.fixed_size = multiple, fixed_size
        side = -(-_EXAMPLE // multiple) * multiple
        example = torch.zeros(1, 3, *(fixed_size or (side, side)))
        self._norm = True
        try:
            self._index = self._find_map(self._count_maps(example))
            self.dim = self(example)["pooled"].shape[1]
        except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
            raise UserError(
                f"network {self.name}",
                expected=f"features (B, D) of {tuple(example.shape[-2:])} pixels",
                got=f"{type(error).__name__}: {error}",
                remedy="Name another network: this one gives no features by timm's interface.",
            ) from error
        parts = [architecture, stage, str(patches), str(self.mean), str(self.std)]
        self.fingerprint = _fingerprint(parts, network)

    def train(self, mode: bool = True) -> Embedder:
        """Stay in eval mode: in train mode a feature depends on its batch mates."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``pooled`` (B, D) and, if built with them, ``patches`` (B, h, w, D'), float32.

        Args:
            images: (B, 3, H, W), normalised with ``mean`` and ``std``.

        Raises:
            UserError: for an image size that the network cannot take.
        """
        self._check_size(images)
        pooled, maps = self._features(images)
        feats = {"pooled": pooled.float()}
        if self.patches:
            feats["patches"] = maps.permute(0, 2, 3, 1).float()
        return feats

    def _features(self, images: Tensor) -> tuple[Tensor, Any]:
        """Return the stage's pooled features (B, D) and its map (B, D', h, w), if there is one."""
        net: Any = self.network
        if not hasattr(net, "forward_intermediates"):
            output, maps = self._features_by_hook(images)
            return output if self.stage == "pooled" else maps.mean(dim=(2, 3)), maps
        wanted = {"indices": [self._index], "norm": self._norm}
        if self.stage not in ("pooled", "last"):
            wanted.update(intermediates_only=True, stop_early=True)
            (maps,) = net.forward_intermediates(images, **wanted)
            return maps.mean(dim=(2, 3)), maps
        final, (maps,) = net.forward_intermediates(images, **wanted)
        if self.stage == "pooled":
            return net.forward_head(final, pre_logits=True), maps
        if final.ndim == 3 and getattr(net, "cls_token", None) is not None:
            return final[:, 0], maps
        return maps.mean(dim=(2, 3)), maps

    def _features_by_hook(self, images: Tensor) -> tuple[Tensor, Any]:
        """Return the output of a network that cannot list its maps, and the stage's map."""
        names = _map_names(self.network)
        if not names:
            return self.network(images), None
        seen: list[Tensor] = []
        module = self.network.get_submodule(names[self._index])
        handle = module.register_forward_hook(lambda *call: seen.append(call[2]))
        try:
            return self.network(images), seen[-1]
        finally:
            handle.remove()

    def _find_map(self, count: int) -> int:
        """Return which of the network's ``count`` maps ``stage`` is.

        Raises:
            UserError: for a stage that the network does not have.
        """
        if self.stage == "pooled" and (count or not self.patches):
            return count - 1
        if self.stage == "last" and count:
            return count - 1
        number = int(self.stage) if re.fullmatch("-?[0-9]+", self.stage) else None
        if number is not None and -count <= number < count:
            return number % count
        expected = f"pooled, last, or a map's number from {-count} to {count - 1}"
        raise UserError(
            f"stage of {self.name}",
            expected=expected if count else "pooled without patches, all that it can offer",
            got=f"{self.stage}{' with patches' if self.patches else ''}",
            remedy="Give --stage one of these."
            if count
            else "Use --stage pooled, or another network.",
        )

    @torch.no_grad()
    def _count_maps(self, example: Tensor) -> int:
        net: Any = self.network
        if not hasattr(net, "forward_intermediates"):
            return len(_map_names(net))
        try:
            return len(net.forward_intermediates(example, norm=True, intermediates_only=True))
        except AssertionError:  # Hiera's maps come without the norm only
            self._norm = False
            return len(net.forward_intermediates(example, intermediates_only=True))

    def _check_size(self, images: Tensor) -> None:
        size = tuple(images.shape[-2:])
        if self.fixed_size not in (None, size) or any(side % self.multiple for side in size):
            fixed = self.fixed_size and f"{self.fixed_size[0]} x {self.fixed_size[1]} pixels"
            raise UserError(
                f"image size for {self.name}",
                expected=fixed or f"height and width in multiples of {self.multiple} pixels",
                got=f"{size[0]} x {size[1]}",
                remedy="Scale the images to that (--image-size), or name another network.",
            )


def _map_names(network: nn.Module) -> tuple[str, ...]:
    modules = {name for name, _ in network.named_modules()}
    return next((names for names in _MAPS if modules.issuperset(names)), ())


def _fingerprint(parts: list[str], network: nn.Module) -> str:
    digest = hashlib.sha256("\n".join(parts).encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
