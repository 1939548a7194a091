"""`make dev`: the Dagster UI on the example location, with the runs of the demo."""

import os
import sys
from pathlib import Path

from dagster_assets.definitions import HOME


def main() -> None:
    """Become `dagster dev`, so that Ctrl-C reaches it."""
    home = HOME / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DAGSTER_HOME", str(home))
    dagster = Path(sys.executable).with_name("dagster")
    workspace = Path(__file__).parent.parent / "workspace.yaml"
    os.execv(dagster, [str(dagster), "dev", "-w", str(workspace), "-h", "127.0.0.1", *sys.argv[1:]])


if __name__ == "__main__":
    main()
