"""Build the network that embeds: timm's, official DINO's, or one that solo-learn trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solo_ood.embedding.embedder import Embedder
from solo_ood.embedding.weights import CHOOSE, SAME_RUN, load_file
from solo_ood.errors import UserError, unknown_name
from solo_ood.files.text import user_path
from solo_ood.host.backbones import read_trained

OFFICIAL = {
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dino_resnet50": "resnet50",
    **{
        f"dinov2_vit{size[0]}14{suffix}": f"vit_{size}_patch14{registers}_dinov2.lvd142m"
        for size in ("small", "base", "large", "giant")
        for suffix, registers in (("", ""), ("_reg", "_reg4"))
    },
}

_SAFE_MULTIPLE = 32  # pixels per map pixel at the end of nearly every network


def make_embedder(
    spec: str,
    stage: str = "last",
    patches: bool = False,
    image_size: tuple[int, int] | None = None,
    to_choose: str = CHOOSE,
) -> Embedder:
    """Build the network that ``spec`` names, with its weights.

    ``spec`` is one of

    - ``NAME:PATH``: an architecture of timm and a file of its weights. The tag in
      ``vit_small_patch16_224.dino`` decides how images are normalised.
    - ``NAME:pretrained``: the weights that timm downloads.
    - ``NAME:random``: untrained, a control.
    - ``CKPT``: a checkpoint of solo-learn, its ``args.json`` beside it.

    NAME may be official DINO's: ``dino_vits16``, ``dino_vits8``, ``dino_vitb16``, ``dino_vitb8``,
    ``dino_resnet50``, ``dinov2_vits14`` and so on, with registers ``dinov2_vits14_reg``. A file
    with a teacher and a student gives the teacher, of MoCo and BYOL the student as published;
    ``:student`` or ``:teacher`` after it chooses.

    Args:
        spec: see above.
        stage: ``pooled``: the network's own output. ``last``: the CLS token of the last block, or
            the mean of the last map (of an EfficientNet: before its head's convolution). A number:
            the mean of that map, negative ones count from the end.
        patches: also return the stage's map, pixel by pixel (``pooled``: the last map).
        image_size: height and width (pixels), for networks that are built for one size.
        to_choose: see ``load_file``.

    Raises:
        UserError: for an unknown name, a missing or wrong file, or a stage that is not there.
    """
    body, which = spec, "auto"
    for network in ("teacher", "student"):
        if spec.endswith(f":{network}"):
            body, which = spec.removesuffix(f":{network}"), network
    common: dict[str, Any] = {"stage": stage, "patches": patches}
    if user_path(body).is_file():
        return _from_checkpoint(user_path(body), which, image_size, common, to_choose)
    return _from_timm(body, which, image_size, common, to_choose)


def _from_timm(
    body: str,
    which: str,
    image_size: tuple[int, int] | None,
    common: dict[str, Any],
    to_choose: str,
) -> Embedder:
    """Build ``NAME:SOURCE``, see ``make_embedder``."""
    name, _, source = body.partition(":")
    if not source and ("/" in name or Path(name).suffix in (".ckpt", ".pt", ".pth")):
        raise UserError(
            "embedder",
            expected="a file",
            got=f"no file {name}",
            remedy=f"Check its spelling; relative paths count from {Path.cwd()}.",
        )
    architecture = _architecture(name)
    if not source:
        raise UserError(
            f"embedder {name}",
            expected="where its weights are",
            got="only its name",
            remedy=f"Use {name}:PATH, {name}:pretrained or {name}:random.",
        )
    role = ""
    if source == "pretrained":
        network, sizes = _pretrained(name, architecture, image_size)
        note = f"timm's pretrained weights {network.pretrained_cfg.get('tag') or ''}".strip()
    else:
        network, sizes = _build_timm(architecture, image_size)
        if source == "random":
            note = "random weights"
        else:
            role, note = load_file(network, user_path(source), which, name, to_choose=to_choose)
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(network)
    return Embedder(
        network,
        name=":".join(filter(None, (name, Path(source).stem, role))),
        note=note,
        architecture=architecture,
        normalisation=(data["mean"], data["std"]),
        **sizes,
        **common,
    )


def _architecture(name: str) -> str:
    """Return timm's name for ``name``.

    Raises:
        UserError: if there is none.
    """
    import timm

    architecture = OFFICIAL.get(name, name)
    bare, _, tag = architecture.partition(".")
    # solo-learn registers networks of its own with timm, some under timm's names.
    if not timm.is_model(bare) or not hasattr(timm.models, bare):
        names = [*OFFICIAL, *(n for n in timm.list_models() if hasattr(timm.models, n))]
        near = get_close_matches(bare, names, n=5, cutoff=0.5) or list(OFFICIAL)
        raise unknown_name("architecture", name, near)
    entry = timm.model_entrypoint(bare)
    if not entry.__module__.startswith("timm."):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            timm.models.register_model(getattr(timm.models, bare))
    tags = [n.partition(".")[2] for n in timm.list_models(f"{bare}.*", pretrained=True)]
    if tag and tag not in tags:
        raise unknown_name(f"tag of {bare}", tag, tags or ["no tag"])
    return architecture


def _build_timm(
    architecture: str, image_size: tuple[int, int] | None, pretrained: bool = False
) -> tuple[Any, dict[str, Any]]:
    import timm

    def create(**kwargs: Any) -> nn.Module:
        return timm.create_model(architecture, pretrained=pretrained, num_classes=0, **kwargs)

    cfg: Any = timm.get_pretrained_cfg(architecture)
    return _build(create, cfg.input_size[1:] if cfg.fixed_input_size else None, image_size)


def _pretrained(
    name: str, architecture: str, image_size: tuple[int, int] | None
) -> tuple[Any, dict[str, Any]]:
    import timm

    # timm's own resnet50 is not DINO's, and older versions left a network without weights random.
    cfg: Any = timm.get_pretrained_cfg(architecture)
    if not cfg.has_weights or (name in OFFICIAL and "." not in architecture):
        raise UserError(
            f"embedder {name}:pretrained",
            expected="a network whose weights timm offers",
            got="none",
            remedy=f"Use {name}:PATH with a file of the weights.",
        )
    try:
        return _build_timm(architecture, image_size, pretrained=True)
    except Exception as error:  # no network, no such host, no space: whatever the download raises
        first = (str(error).strip() or "no reason").splitlines()[0]
        raise UserError(
            f"embedder {name}:pretrained",
            expected="a download by timm",
            got=f"{type(error).__name__}: {first}",
            remedy=f"Check the connection, or use {name}:PATH with a local file.",
        ) from error


def _build(
    create: Callable[..., nn.Module],
    built_for: tuple[int, int] | None,
    image_size: tuple[int, int] | None,
    any_size: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Return the network and which sizes it takes.

    Args:
        create: makes the network from keyword arguments.
        built_for: height and width of networks that are built for one size.
        image_size: the size to build such a network for if it cannot take others.
        any_size: whether to try the arguments that make it take others.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if built_for is None:
            return create(), {}
        if any_size:
            for argument, value in (("dynamic_img_size", True), ("strict_img_size", False)):
                try:
                    network: Any = create(**{argument: value})
                except TypeError:  # this family does not know the argument
                    continue
                ratio = getattr(network.patch_embed, "feat_ratio", None)
                return network, {"multiple": ratio() if ratio else _SAFE_MULTIPLE}
        size = tuple(image_size or built_for)
        network = create(img_size=size) if image_size else create()
        return network, {"fixed_size": size}


def _from_checkpoint(
    path: Path,
    which: str,
    image_size: tuple[int, int] | None,
    common: dict[str, Any],
    to_choose: str,
) -> Embedder:
    trained = read_trained(path)
    network, sizes = _build(trained.create, trained.built_for, image_size, trained.any_size)
    role, note = load_file(network, path, which, trained.name, SAME_RUN, to_choose)
    return Embedder(
        network,
        name=":".join(filter(None, (path.stem, role))),
        note=note,
        architecture=trained.architecture,
        normalisation=trained.normalisation,
        **sizes,
        **common,
    )
