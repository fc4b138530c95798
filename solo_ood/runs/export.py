"""Turn a ``dino_ood`` checkpoint into one of plain DINO, teacher or student."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from solo_ood.errors import UserError
from solo_ood.files.checkpoint import load, state_dict_of
from solo_ood.files.output import check_writable
from solo_ood.host.run_args import NAME, read_args, require_file, settings_folder

_KEPT = ("epoch", "global_step", "pytorch-lightning_version", "state_dict")


def export(checkpoint: Path, out: Path, weights: str = "teacher") -> Path:
    """Write ``out/NAME.ckpt`` and ``out/args.json``; return the checkpoint's path.

    The stock evaluation scripts load the *student's* keys: with ``weights="teacher"`` these get the
    teacher's values, BatchNorm statistics included. Optimizer and detector state are left out.

    Args:
        checkpoint: a .ckpt of either host, its ``args.json`` beside it; or the run's folder, of
            which the newest is taken.
        out: a folder; made if need be.
        weights: ``teacher`` or ``student``.

    Raises:
        UserError: for a missing file, other ``weights``, a checkpoint without a teacher, or an
            ``out`` that cannot be written or holds the settings of a run.
    """
    if checkpoint.is_dir():
        from solo_ood.host.run_folder import find_run

        checkpoint = find_run(checkpoint).checkpoint
    target = out / f"{checkpoint.stem}-{weights}.ckpt"
    check_writable(out, "OUT", target.name, "args.json")
    args = _plain_dino(read_args(settings_folder(checkpoint)))
    _check_nothing_is_replaced(out, checkpoint, args)
    loaded = load(require_file(checkpoint))
    kept = {key: loaded[key] for key in _KEPT if key in loaded}
    kept["state_dict"] = state_dict_of(checkpoint, loaded)
    kept["state_dict"] = uncompiled(kept["state_dict"])
    if weights == "teacher":
        kept["state_dict"] = teacher_as_student(kept["state_dict"])
    elif weights != "student":
        raise UserError(
            "weights", expected="teacher or student", got=weights, remedy="Use one of the two."
        )
    check_whole(checkpoint, loaded, weights)
    check_whole(checkpoint, kept, "student")
    out.mkdir(parents=True, exist_ok=True)
    torch.save(kept, target)
    (out / NAME).write_text(json.dumps(args, indent=2) + "\n")
    return target


def _check_nothing_is_replaced(out: Path, checkpoint: Path, args: dict[str, Any]) -> None:
    """Raise ``UserError`` if ``out`` has an ``args.json`` that is not that of this run's exports.

    Without its own a run cannot be resumed, evaluated or reported on.
    """
    own = {checkpoint.resolve().parent, settings_folder(checkpoint).resolve()}
    path = out / NAME
    if out.resolve() in own:
        got = f"{out}, the folder of the checkpoint"
    elif path.exists() and read_args(out) != json.loads(json.dumps(args)):
        got = f"{out}, which holds the args.json of another run"
    else:
        return
    raise UserError("OUT", expected="a folder of its own", got=got, remedy="Name another folder.")


def check_whole(checkpoint: Path, content: Mapping[str, Any], weights: str) -> None:
    """Raise ``UserError`` unless ``content`` holds every tensor of the checkpoint's network.

    Solo-learn's evaluation leaves the network random where it does not find its weights.

    Args:
        checkpoint: the ``args.json`` beside it describes the network.
        content: of this checkpoint, or what is made of it.
        weights: ``teacher`` or ``student``.
    """
    from solo_ood.embedding.weights import SAME_RUN, load_into
    from solo_ood.host import backbones

    described = backbones.read_trained(checkpoint)
    name = f"the {weights} {described.name} in {checkpoint.name}"
    load_into(described.create(), content, weights, checkpoint.name, name, SAME_RUN, "--weights {}")


def uncompiled(state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` without the ``_orig_mod.`` in the keys of a ``torch.compile``d module.

    With it no network finds its weights, and solo-learn's evaluation ignores what is missing.
    """
    return {key.replace("_orig_mod.", ""): value for key, value in state.items()}


def teacher_as_student(state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` with every student tensor replaced by the teacher's of the same name."""
    teacher = {k.removeprefix("momentum_"): v for k, v in state.items() if _is_teacher(k)}
    if not teacher:
        raise UserError(
            "state_dict",
            expected="keys of a teacher, momentum_*",
            got=f"{len(state)} keys, none of a teacher",
            remedy="Use --weights student.",
        )
    return {key: teacher.get(key, value) for key, value in state.items()}


def _is_teacher(key: str) -> bool:
    return key.split(".")[0] in ("momentum_backbone", "momentum_encoder", "momentum_head")


def _plain_dino(args: dict[str, Any]) -> dict[str, Any]:
    """Return ``args.json`` of plain DINO, without our block and with embedded paths resolved."""
    from omegaconf import OmegaConf

    from solo_ood.data.digits import register_resolver

    register_resolver()
    plain: Any = OmegaConf.to_container(OmegaConf.create(args), resolve=True)
    plain["method"] = "dino"
    plain.pop("ood", None)
    plain.get("method_kwargs", {}).pop("ood", None)
    return plain
