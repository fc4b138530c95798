"""k-NN evaluation on solo-learn 1.0.2, with the arguments of the host's own ``main_knn.py``."""

from argparse import ArgumentParser
from pathlib import Path

from solo_ood.cli import user_errors
from solo_ood.data.digits import digits_lt
from solo_ood.evaluation.groups import format_groups

with user_errors():
    from solo_ood import host

    host.require_release()
    from solo_ood.host.runs import knn
    from solo_ood.plugin import register


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained_checkpoint_dir", type=Path, required=True)
    parser.add_argument("--weights", choices=["student", "teacher"], default="student")
    parser.add_argument("--train_data_path", help="ImageFolder; default: the embedded digits")
    parser.add_argument("--val_data_path", help="ImageFolder")
    parser.add_argument("--tail_data_path", help="ImageFolder whose counts define Many/Medium/Few")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--k", type=int, nargs="+", default=[20])
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.07])
    parser.add_argument("--distance_function", nargs="+", default=["cosine"])
    args = parser.parse_args()
    with user_errors():
        register()
        if (args.train_data_path is None) != (args.val_data_path is None):
            raise ValueError("give --train_data_path and --val_data_path, or neither")
        checkpoints = list(args.pretrained_checkpoint_dir.glob("*.ckpt"))
        if not checkpoints:
            raise ValueError(f"no .ckpt file in {args.pretrained_checkpoint_dir}")
        embedded = args.train_data_path is None
        for k in args.k:
            for distance in args.distance_function:
                for temperature in args.temperature if distance == "cosine" else [0.07]:
                    result = knn(
                        max(checkpoints, key=lambda path: path.stat().st_mtime),
                        digits_lt("reference") if embedded else args.train_data_path,
                        digits_lt("val") if embedded else args.val_data_path,
                        args.weights,
                        k,
                        temperature,
                        distance,
                        digits_lt("train") if embedded else args.tail_data_path,
                        args.batch_size,
                        args.num_workers,
                    )
                    print(f"k-NN accuracy, % (k={k}, {distance}): {format_groups(result)}")


if __name__ == "__main__":
    main()
