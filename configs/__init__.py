"""Hydra configs; installed as ``solo_ood.configs``."""
