"""Linear evaluation on solo-learn 1.0.2.

``python scripts/main_linear.py --config-name dino_ood_linear pretrained_feature_extractor=CKPT``
"""

import hydra
from omegaconf import DictConfig

from solo_ood.console import user_errors
from solo_ood.evaluation.groups import format_groups

with user_errors():
    from solo_ood.host import installed

    installed.require_release()
    from solo_ood.training.release_programs import linear


@hydra.main(version_base="1.2")
def main(cfg: DictConfig) -> None:
    with user_errors():
        print(f"linear accuracy, %: {format_groups(linear(cfg))}")


if __name__ == "__main__":
    main()
