"""Lets ``python main_pretrain.py --config-name dino_ood`` work in an unmodified solo-learn."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class SoloOODSearchPath(SearchPathPlugin):
    """Registers method, configs and checks in a program that has solo-learn's methods loaded."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if "solo.methods" not in sys.modules:
            return  # another Hydra application: it must not pay for us
        from solo_ood.training.plugin import check_before_running, register

        register()
        check_before_running()
        search_path.append("solo_ood", "pkg://solo_ood.configs")
