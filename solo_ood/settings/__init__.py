"""The settings of ``method_kwargs.ood``: fields with their ranges, and their checks."""
