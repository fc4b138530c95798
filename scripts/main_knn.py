"""k-NN evaluation on solo-learn 1.0.2, with the arguments of the host's own ``main_knn.py``.

Without paths, the run's own training and validation folders are taken, and its crop size.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from solo_ood.console import user_errors
from solo_ood.evaluation.groups import format_groups
from solo_ood.host.run_folder import find_run
from solo_ood.options import command_line
from solo_ood.options.field import option

DISTANCES = ("cosine", "euclidean")  # of the host's classifier

with user_errors():
    from solo_ood.host import installed

    installed.require_release()
    from solo_ood.training.plugin import register
    from solo_ood.training.release_knn import knn


@dataclass(frozen=True)
class Options:
    """The arguments of the host's program, and which network is taken."""

    pretrained_checkpoint_dir: Path = option(help="the run's folder, or a .ckpt", metavar="DIR")
    weights: str = option("student", "which network", choices=("student", "teacher"))
    train_data_path: Path | None = option(None, "ImageFolder; default: the run's", metavar="DIR")
    val_data_path: Path | None = option(None, "ImageFolder; default: the run's", metavar="DIR")
    tail_data_path: Path | None = option(
        None, "ImageFolder whose counts define Many/Medium/Few", metavar="DIR"
    )
    batch_size: int = option(64, "images at a time", at_least=1)
    num_workers: int = option(1, "processes that read images", at_least=0)
    k: tuple[int, ...] = option((20,), "neighbours", at_least=1)
    temperature: tuple[float, ...] = option((0.07,), "of the weights", above=0, metavar="T")
    distance_function: tuple[str, ...] = option(("cosine",), "between features", choices=DISTANCES)


def main() -> None:
    with user_errors():
        args = command_line.parse(Options, sys.argv[1:], "main_knn.py", __doc__, joint="_")
        register()
        checkpoint = find_run(args.pretrained_checkpoint_dir).checkpoint
        for k in args.k:
            for distance in args.distance_function:
                for temperature in args.temperature if distance == "cosine" else [0.07]:
                    result = knn(
                        checkpoint,
                        args.train_data_path,
                        args.val_data_path,
                        args.weights,
                        k,
                        temperature,
                        distance,
                        args.tail_data_path,
                        args.batch_size,
                        args.num_workers,
                    )
                    print(f"k-NN accuracy, % (k={k}, {distance}): {format_groups(result)}")


if __name__ == "__main__":
    main()
