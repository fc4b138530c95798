"""Pre-train on solo-learn 1.0.2: ``python scripts/main_pretrain.py --config-name dino_ood``."""

import hydra
from omegaconf import DictConfig

from solo_ood.console import user_errors

with user_errors():
    from solo_ood.host import installed

    installed.require_release()
    from solo_ood.training.release_programs import (
        pretrain,  # imports the host, so that Hydra finds our configs
    )


@hydra.main(version_base="1.2")
def main(cfg: DictConfig) -> None:
    with user_errors():
        print(f"run: {pretrain(cfg)}")


if __name__ == "__main__":
    main()
