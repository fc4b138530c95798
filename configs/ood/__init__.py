"""Hydra config group ``ood``: the blocks of ``method_kwargs.ood``."""
