"""What Lightning, Hydra and solo-learn see of ``dino_ood``: the method and its runs."""
