"""Run an unmodified solo-learn script with ``dino_ood``: ``python -m solo_ood SCRIPT ARGS...``."""

from __future__ import annotations

import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

from solo_ood.console import user_errors
from solo_ood.errors import UserError


def main() -> None:
    """Register the method, make the host run on this machine, run the script."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        got = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        raise UserError(
            "python -m solo_ood",
            expected="a script of a solo-learn checkout, such as main_knn.py",
            got=got,
            remedy="Usage: python -m solo_ood SCRIPT ARGS...",
        )
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(script).resolve().parent))  # as `python SCRIPT` does

    from solo_ood.host.quiet import ignore_foreign_warnings

    ignore_foreign_warnings()  # before the host is imported, which warns of itself
    import torch

    from solo_ood.host.compat import OnCPU, fix_knn_metric
    from solo_ood.training.plugin import register

    register()
    fix_knn_metric()
    with nullcontext() if torch.cuda.is_available() else OnCPU():
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    with user_errors():
        main()
