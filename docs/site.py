"""Hook of MkDocs: adds to docs/ the pages that lie elsewhere, and the API from the docstrings.

Links are those of the repository, so that they work there too; here they become those of the site.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "solo_ood"
PAGES = {"README.md": "index.md"}  # of the repository: of the site
AS_THEY_ARE = ["CONTRIBUTING.md", "CHANGELOG.md", "patches/README.md"]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_config(config: Any) -> Any:
    """Put a page for the package's top level and for each of its folders into the navigation."""
    (entry,) = (entry for entry in config.nav if "API" in entry)
    entry["API"] = [{name: f"api/{name}.md"} for name in api_pages()]
    return config


def on_files(files: Files, config: Any) -> Files:
    for name, text in api_pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    configs = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/*.yaml")]
    for source in [*PAGES, *AS_THEY_ARE, *configs]:
        target = PAGES.get(source, source)
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links from file to file of the repository into links from page to page of the site."""
    here = page.file.src_uri
    source = {site: path for path, site in PAGES.items()}.get(here, f"docs/{here}")
    if here in AS_THEY_ARE:
        source = here

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        target = PAGES.get(path, path.removeprefix("docs/"))
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return markdown if here.startswith("api/") else LINK.sub(link, markdown)


def api_pages() -> dict[str, str]:
    """Return the text of a page for each folder of the package, by the folder's dotted name."""
    folders = [PACKAGE, *sorted(path.parent for path in PACKAGE.rglob("*/__init__.py"))]
    return {".".join(folder.relative_to(ROOT).parts): _api_page(folder) for folder in folders}


def _api_page(folder: Path) -> str:
    name = ".".join(folder.relative_to(ROOT).parts)
    # What an __init__ only passes on is shown where it is defined.
    body = ast.parse((folder / "__init__.py").read_text()).body
    own = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    entries = [f"# `{name}`", f"::: {name}\n    options:\n      members: {own}"]
    entries += [f"::: {name}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    return "\n\n".join(entries) + "\n"
