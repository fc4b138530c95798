"""Where the repository is, for the tests that read or run its files."""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
WIDTH = "++backbone.kwargs.width=16"  # a ResNet-18 of a tenth of the operations
NO_WIDTH = "~backbone.kwargs.width"  # after it, of other networks
