"""k-NN evaluation on solo-learn 1.0.2, with the arguments of the host's own ``main_knn.py``.

Without paths, the run's own training and validation folders are taken, and its crop size.
"""

from argparse import ArgumentParser

from solo_ood.cli import user_errors
from solo_ood.evaluation.groups import format_groups
from solo_ood.evaluation.options import count, natural, positive
from solo_ood.run_files import find_run
from solo_ood.text import user_path

DISTANCES = ("cosine", "euclidean")  # of the host's classifier

with user_errors():
    from solo_ood import host

    host.require_release()
    from solo_ood.host.knn_run import knn
    from solo_ood.plugin import register


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained_checkpoint_dir", type=user_path, required=True)
    parser.add_argument("--weights", choices=["student", "teacher"], default="student")
    parser.add_argument("--train_data_path", type=user_path, help="ImageFolder; default: the run's")
    parser.add_argument("--val_data_path", type=user_path, help="ImageFolder; default: the run's")
    parser.add_argument(
        "--tail_data_path", type=user_path, help="ImageFolder whose counts define Many/Medium/Few"
    )
    parser.add_argument("--batch_size", type=count, default=64)
    parser.add_argument("--num_workers", type=natural, default=1)
    parser.add_argument("--k", type=count, nargs="+", default=[20])
    parser.add_argument("--temperature", type=positive, nargs="+", default=[0.07])
    parser.add_argument("--distance_function", nargs="+", choices=DISTANCES, default=["cosine"])
    args = parser.parse_args()
    with user_errors():
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
