"""`python docs/site.py`: build the documentation site and its reference in .cache/site, without warnings.

The pages are those of this folder, and the README as the first one. Links to files that are not pages become text.
"""

import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree, rmtree

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / ".cache" / "site-source"
EXTRA = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
REFERENCE = {
    "The registry": ["dataset_registry.registry.Registry"],
    "Datasets and drafts": ["dataset_registry.dataset.Dataset", "dataset_registry.dataset.Draft"],
    "Versions": ["dataset_registry.version.Version"],
    "Records": ["dataset_registry.model.records"],
    "Schemas": ["dataset_registry.model.schema"],
    "Differences": ["dataset_registry.model.diff"],
    "Retention": ["dataset_registry.model.retention"],
    "Maintenance": ["dataset_registry.model.maintenance", "dataset_registry.model.verification"],
    "Errors": ["dataset_registry.errors"],
    "Dagster": [
        "dataset_registry.dagster_io.resource.DatasetRegistryResource",
        "dataset_registry.dagster_io.io_manager.DatasetRegistryIOManager",
        "dataset_registry.dagster_io.schedules",
    ],
}
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def page(text: str, origin: Path) -> str:
    """A page as the site has it: links as seen from the folder of all pages."""

    def link(found: re.Match[str]) -> str:
        label, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        name, _, anchor = target.partition("#")
        path = (origin.parent / name).resolve()
        docs = ROOT / "docs"
        if path.suffix != ".md":
            return found[0] if docs in path.parents else f"{label} (`{path.relative_to(ROOT)}`)"
        here = origin.parent.relative_to(docs) if docs in origin.parents else Path()
        place = (
            path.relative_to(docs)
            if docs in path.parents
            else Path("index.md" if path.name == "README.md" else path.name)
        )
        up = "../" * len(here.parts)
        return f"[{label}]({up}{place}{'#' + anchor if anchor else ''})"

    return LINK.sub(link, text)


def write() -> None:
    """Write the pages of the site."""
    rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    copytree(ROOT / "docs" / "charts", SOURCE / "charts")
    for origin in [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in EXTRA), ROOT / "README.md"]:
        docs = ROOT / "docs"
        place = origin.relative_to(docs) if docs in origin.parents else Path(origin.name)
        target = SOURCE / ("index.md" if origin.name == "README.md" and origin.parent == ROOT else place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(origin.read_text(), origin))
    sections = (f"## {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) for title, names in REFERENCE.items())
    (SOURCE / "reference.md").write_text("# Reference\n\n" + "\n\n".join(sections) + "\n")


if __name__ == "__main__":
    write()
    sys.exit(
        subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=ROOT, check=False
        ).returncode
    )
