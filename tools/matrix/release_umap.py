"""Train with the release's callback ``AutoUMAP``: 1.0.2 has no script that draws a UMAP."""

from argparse import Namespace

import hydra
from omegaconf import DictConfig
from solo.utils.auto_umap import AutoUMAP

from solo_ood.host import release
from solo_ood.training.release_programs import pretrain


@hydra.main(version_base="1.2")
def main(cfg: DictConfig) -> None:
    # In the place of the one callback that `pretrain` takes: nothing is to be saved here.
    release.checkpointer = lambda cfg: AutoUMAP(Namespace(name=cfg.name), "auto_umap")
    pretrain(cfg)


if __name__ == "__main__":
    main()
