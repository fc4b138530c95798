"""The matrices of ``solo-ood study`` that come with the package."""
