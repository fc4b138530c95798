"""The options of ``solo-ood explore``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solo_ood.options.field import option

PORT = 8642
EPILOG = """\
The page is for this machine alone. For one that runs elsewhere:
  ssh -L 8642:127.0.0.1:8642 HOST    and there: solo-ood explore OUT
Answers are kept in OUT at once; Ctrl-C ends it.
"""


@dataclass(frozen=True)
class ExploreOptions:
    """What ``solo-ood explore`` is asked to do."""

    out: Path = option(help="folder that solo-ood rank wrote", metavar="OUT", positional=True)
    port: int = option(PORT, "of 127.0.0.1; a free one, if it is taken", at_least=1, at_most=65535)
    follow_links: bool = option(
        False, "also show pictures of a folder that are links to files outside of it"
    )
