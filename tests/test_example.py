"""The example location, as its users meet it: validated, materialized, demonstrated, served."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from dagster_assets.deliveries import Deliveries
from dataset_registry import Registry
from tests.servers import free_port
from tests.waiting import SAFETY, until

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
DELIVERIES = ROOT / ".cache" / "deliveries"
"""Kept between runs of the tests: writing 31 MB of CSV anew tells nothing."""

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group("example")]


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment in which the example's files are in `home`."""
    DELIVERIES.mkdir(parents=True, exist_ok=True)
    if not (home / "deliveries").exists():
        (home / "deliveries").symlink_to(DELIVERIES)
    (home / "dagster_home").mkdir(exist_ok=True)
    (home / "dagster_home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "DATASET_REGISTRY"))}
    return (
        kept | {"DATASET_REGISTRY_DEMO": str(home), "DAGSTER_HOME": str(home / "dagster_home"), "COLUMNS": "118"} | more
    )


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a run of the demo left, and what it printed."""
    home = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "dagster_assets.demo"],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return home, done.stdout


def test_the_demo_tells_its_story(demo: tuple[Path, str]) -> None:
    _, printed = demo
    for line in (
        r"12 assets materialized on main: 12 new versions, .* 2 of 2 checks passed",
        r"raw/flights +v1 .* 336,776 +19 +31\.0 MB",
        r"analytics/daily_departures +v1 +\w{8} +12 +1,095 +5",
        r"12 assets materialized on main: 0 new versions, 0 bytes new",
        r"2 assets materialized on late-after-30: 2 new versions",
        r"tick: 7 datasets have the tag nightly-\d{4}-\d\d-\d\d\n",
        r"the same tick again: 7 datasets have the tag nightly-\d{4}-\d\d-\d\d\n",
        r"v2 \w{8} \(late-after-30\)",
        r"\+ cancelled: bool",
        r"5 runs submitted 83\.2 MB; 84 files are stored in 41\.6 MB: 50% saved",
        r"stored once, count 2",
        r"analytics/flights_enriched@v1 read on late-after-30, from main",
        r"late after -5 minutes: the check is red\n  not published: The run \w{8} did not succeed",
        r"late after 20 minutes: the check is green\n  published: analytics/carrier_delays@v4, reports/punctuality@v3",
        r"make dev",
        r"10\. A review of the branch late-after-30\nanalytics/carrier_delays: v4 → v2, and main moved since",
        r"make ui PAGE=/reviews/1",
    ):
        assert re.search(line, printed), f"{line}\n{printed}"


def test_the_readme_shows_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    shown = (ROOT / "README.md").read_text().rpartition("```text\n")[2].split("```")[0]
    printed = re.sub(r" run \w{8}", "", demo[1])
    for line in filter(str.strip, shown.splitlines()):
        assert line in printed, line


def test_the_demo_left_five_sources_and_seven_derived_datasets(demo: tuple[Path, str]) -> None:
    with Registry.open(demo[0] / "registry") as registry:
        names = [dataset.name for dataset in registry.datasets()]
        assert sum(name.startswith("raw/") for name in names) == 5
        assert len(names) == 12
        assert all(len(dataset.tree()) <= 4 for dataset in registry.datasets())
        with registry.version("reports/punctuality").open("chart") as chart:
            assert chart.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "command",
    [["dagster", "definitions", "validate", "-w", "workspace.yaml"], ["dg", "check", "defs"]],
    ids=lambda command: command[0],
)
def test_the_location_is_valid(tmp_path: Path, command: list[str]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        env=environment(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("passed validation|loaded successfully", done.stdout + done.stderr)


def _answers(server: "subprocess.Popen[bytes]", address: str) -> bool:
    assert server.poll() is None
    try:
        urllib.request.urlopen(f"{address}/server_info").close()
    except OSError:
        return False
    return True


@pytest.fixture
def webserver(demo: tuple[Path, str]) -> Iterator[str]:
    """`dagster-webserver` on the demo's runs and workspace.yaml; its address."""
    port = free_port()
    server = subprocess.Popen(
        [BIN / "dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
        env=environment(demo[0]),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(server, address), what="the web server answered")
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(SAFETY)


QUERY = """
{
  assetNodeOrError(assetKey: {path: ["clean", "flights"]}) {
    ... on AssetNode {
      assetKey { path }
      metadataEntries { label ... on TextMetadataEntry { text } }
      assetMaterializations(limit: 1) {
        tags { key value }
        metadataEntries {
          label
          ... on TextMetadataEntry { text }
          ... on MarkdownMetadataEntry { mdStr }
          ... on IntMetadataEntry { intRepr }
          ... on FloatMetadataEntry { floatValue }
          ... on BoolMetadataEntry { boolValue }
          ... on TableMetadataEntry { table { records } }
          ... on TableSchemaMetadataEntry { schema { columns { name type description } } }
        }
      }
    }
  }
}
"""


def ask(address: str, query: str) -> Any:
    request = urllib.request.Request(
        f"{address}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["data"]


def test_the_ui_shows_version_branch_schema_rows_and_inputs(webserver: str) -> None:
    node = ask(webserver, QUERY)["assetNodeOrError"]
    definition = {entry["label"]: entry.get("text") for entry in node["metadataEntries"]}
    assert definition["dagster/table_name"] == "clean/flights"
    (made,) = node["assetMaterializations"]
    tags = {tag["key"]: tag["value"] for tag in made["tags"]}
    entries = {entry.pop("label"): entry for entry in made["metadataEntries"]}
    assert re.fullmatch("[0-9a-f]{64}", tags["dagster/data_version"])
    assert entries["registry/version"]["mdStr"].startswith(f"**v1** · `{tags['dagster/data_version'][:8]}` on `main`")
    assert entries["registry/branch"]["text"] == "main"
    assert entries["dagster/row_count"]["intRepr"] == "336776"
    columns = {c["name"]: c["type"] for c in entries["dagster/column_schema"]["schema"]["columns"]}
    assert columns["scheduled_departure"] == "timestamp[us]"
    assert len(columns) == 11
    assert "dagster/column_lineage" in entries
    (read,) = (json.loads(record) for record in entries["registry/inputs"]["table"]["records"])
    assert (read["input"], read["ref"]) == ("raw/flights@v1", "main")


@pytest.mark.parametrize("catalog_url", ["postgresql"], indirect=True)
def test_dagster_and_the_registry_share_one_postgresql_database(catalog_url: str, tmp_path: Path) -> None:
    home, place = tmp_path, urlsplit(catalog_url)
    more = {
        "DAGSTER_POSTGRES_HOST": str(place.hostname),
        "DAGSTER_POSTGRES_PORT": str(place.port),
        "DAGSTER_POSTGRES_DB": place.path.strip("/"),
        "DAGSTER_POSTGRES_USER": str(place.username),
        "DAGSTER_POSTGRES_PASSWORD": str(place.password),
        "DATASET_REGISTRY_CATALOG": catalog_url,
        "DATASET_REGISTRY_STORE": str(home / "store"),
    }
    env = environment(home, **more)
    (home / "dagster_home" / "dagster.yaml").write_text((ROOT / "deploy" / "postgresql" / "dagster.yaml").read_text())
    done = subprocess.run(
        [BIN / "dagster", "asset", "materialize", "-m", "dagster_assets.definitions", "--select", "key:raw/planes"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with Registry.open(catalog=catalog_url, store=str(home / "store")) as registry:
        assert registry.version("raw/planes").provenance.asset_key == "raw/planes"
    engine = create_engine(catalog_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM public.event_logs")).scalar()
    engine.dispose()


def test_steps_that_start_together_get_the_same_delivery(tmp_path: Path) -> None:
    deliveries = Deliveries(folder=str(tmp_path))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: deliveries.path("partners.xlsx").read_bytes(), range(6)))
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["partners.xlsx"]
