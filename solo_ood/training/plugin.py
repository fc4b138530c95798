"""Register ``dino_ood`` with solo-learn: explicit, idempotent, never a side effect of an import."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from solo_ood.errors import UserError

NAME = "dino_ood"


def register() -> None:
    """Put ``dino_ood`` into solo-learn's ``METHODS`` and the resolvers of our configs in place.

    Warnings about the host's own code are silent from here on: ``solo_ood.host.quiet``.

    A host that has the method itself keeps its own: settings and checkpoints are the same, the
    checks before a run fewer.

    Raises:
        UserError: if no usable solo-learn is installed, or another class has the name.
    """
    from solo_ood.host import installed
    from solo_ood.host.quiet import ignore_foreign_warnings

    ignore_foreign_warnings()
    installed.check()
    from solo.methods import METHODS

    from solo_ood.data.digits import register_resolver
    from solo_ood.host.narrow import add_widths
    from solo_ood.training.linear_config import batch_size, run_setting
    from solo_ood.training.method import DINOOOD

    owner = METHODS.setdefault(NAME, DINOOOD)
    if owner is not DINOOOD and owner.__module__ != f"solo.methods.{NAME}":
        raise UserError(
            f"solo-learn method {NAME!r}",
            expected="no other class of this name",
            got=f"{owner.__module__}.{owner.__qualname__}",
            remedy="Uninstall the package of that class, or give its method another name.",
        )
    register_resolver()
    add_widths()
    # ${solo_ood.run:CKPT,val_path} becomes what the run of this checkpoint was validated on.
    OmegaConf.register_new_resolver("solo_ood.run", run_setting, replace=True)
    OmegaConf.register_new_resolver("solo_ood.batch_size", batch_size, replace=True)


def check_before_running() -> None:
    """Let Hydra check every run of ``dino_ood`` before its task function, whose config it may be.

    Our own configs name the same callback, so that it runs once.
    """
    store = ConfigStore.instance()
    hydra = store.load("hydra/config.yaml")
    hydra.node.callbacks["solo_ood"] = {"_target_": "solo_ood.training.preflight.Preflight"}
    store.store("config", hydra.node, hydra.group, hydra.package, hydra.provider)
