"""The real daemon of Dagster: changes outside of Dagster are each reported once, also when it is killed in between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.errors import NotFound

MOVES = 100

DEFINITIONS = f"""
    import dagster as dg
    import pyarrow as pa

    from dataset_registry.dagster_io import (
        DatasetRegistryIOManager, DatasetRegistryResource, build_branch_sensor, inputs_changed,
    )

    registry = DatasetRegistryResource(path="registry")

    def source(number):
        @dg.asset(name=f"source_{{number}}")
        def asset():
            return pa.table({{"n": [number]}})

        return asset

    @dg.asset(automation_condition=inputs_changed(registry))
    def sink(source_0):
        return source_0

    sensor = build_branch_sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
    conditions = dg.AutomationConditionSensorDefinition(
        "conditions", target="*", use_user_code_server=True, minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    defs = dg.Definitions(
        assets=[*(source(number) for number in range({MOVES})), sink],
        sensors=[sensor, conditions],
        resources={{"registry": registry, "io_manager": DatasetRegistryIOManager(registry=registry)}},
    )
"""


@contextmanager
def daemon(home: Path) -> Iterator[None]:
    """A daemon that is killed at the end, as by a machine that dies."""
    command = [Path(sys.executable).parent / "dagster-daemon", "run", "-f", home / "definitions.py", "-d", home]
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, "DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition: Callable[[], bool], log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-5000:]
        time.sleep(0.2)


@pytest.mark.long
def test_100_moves_in_10_seconds_are_each_reported_once_by_a_daemon_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text(dedent(DEFINITIONS))
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    names = [f"source_{number}" for number in range(MOVES)]
    with Registry.open(tmp_path / "registry") as registry, dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        datasets = [registry.create_dataset(name) for name in names]
        for dataset in datasets:
            dataset.commit({"data": pa.table({"n": [-1]})})

        def reported() -> Counter[tuple[str, int]]:
            found: Counter[tuple[str, int]] = Counter()
            for name in names:
                for record in instance.fetch_materializations(dg.AssetKey(name), limit=100).records:
                    made = record.asset_materialization
                    assert made is not None
                    found[name, int(made.metadata["registry/version_number"].value)] += 1  # type: ignore[call-overload]
            return found

        def sinks() -> int:
            runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
            assert len(runs) <= 2, "one for the first content, one for the change"
            return len(runs)

        def move(numbers: range, start: float) -> None:
            """Change as many datasets in as many tenths of a second."""
            for count, number in enumerate(numbers, start=1):
                datasets[number].commit({"data": pa.table({"n": [number]})})
                time.sleep(max(0.0, start + count * 10 / MOVES - time.monotonic()))

        log = tmp_path / "daemon.log"
        with daemon(tmp_path):
            wait_for(lambda: len(reported()) == MOVES and sinks() == 1, log)
            move(range(MOVES // 2, MOVES), time.monotonic())
        with daemon(tmp_path):
            move(range(MOVES // 2), time.monotonic())  # among them source_0, which sink follows
            wait_for(lambda: {(name, 2) for name in names} <= set(reported()) and sinks() == 2, log)
            # A change that is reported last tells that the ones before are not reported again.
            datasets[-1].commit({"data": pa.table({"n": [-2]})})
            wait_for(lambda: (names[-1], 3) in reported(), log)
        assert reported() == Counter({**{(name, number): 1 for name in names for number in (1, 2)}, (names[-1], 3): 1})
        assert sinks() == 2


PUBLISHING = """
    import os

    import dagster as dg
    import pyarrow as pa

    from dataset_registry.dagster_io import (
        DatasetRegistryIOManager, DatasetRegistryResource, build_publish_job, build_publish_sensor,
    )

    registry = DatasetRegistryResource(path="registry")

    @dg.asset
    def a():
        return pa.table({"n": [int(os.environ["VALUE"])]})

    def after(name, source):
        @dg.asset(name=name, ins={"source": dg.AssetIn(source)})
        def asset(source: pa.Table):
            return source

        return asset

    @dg.asset_check(asset="e", blocking=True)
    def positive(e: pa.Table):
        return dg.AssetCheckResult(passed=e["n"][0].as_py() > 0)

    publish = build_publish_job()
    defs = dg.Definitions(
        assets=[a, *(after(*pair) for pair in ("ba", "cb", "dc", "ed"))],
        asset_checks=[positive],
        jobs=[publish],
        sensors=[
            build_publish_sensor(
                job=publish, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
            )
        ],
        resources={"registry": registry, "io_manager": DatasetRegistryIOManager(registry=registry)},
    )
"""


@pytest.mark.long
def test_a_daemon_publishes_five_assets_of_as_many_processes_and_nothing_of_a_red_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "definitions.py").write_text(dedent(PUBLISHING))
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    log = tmp_path / "daemon.log"

    def run(value: int, assets: str = "*") -> None:
        """Materialize assets, each in a process of its own, on the branch of the run, which the launchpad would configure."""
        config = json.dumps({"resources": {"io_manager": {"config": {"branch": "run/{run_id}"}}}})
        command = [
            "asset",
            "materialize",
            "-f",
            "definitions.py",
            "-d",
            ".",
            "--select",
            assets,
            "--config-json",
            config,
        ]
        subprocess.run(
            [Path(sys.executable).parent / "dagster", *command],
            cwd=tmp_path,
            env={**os.environ, "DAGSTER_HOME": str(tmp_path), "VALUE": str(value)},
            capture_output=True,
            check=False,
        )

    with Registry.open(tmp_path / "registry") as registry:

        def main() -> dict[str, int]:
            found: dict[str, int] = {}
            for name in "abcde":
                with suppress(NotFound):
                    found[name] = registry.version(name).to_arrow()["n"][0].as_py()
            return found

        monkeypatch.setenv("VALUE", "0")
        with daemon(tmp_path):
            wait_for(lambda: "Checking for new runs for sensor: registry_publish_sensor" in log.read_text(), log)
            run(1)
            wait_for(lambda: main() == dict.fromkeys("abcde", 1), log)
            run(-1)  # the check of e is red
            run(2, "a")  # what is published after it tells that the sensor has seen it
            wait_for(lambda: main()["a"] == 2, log)
        assert main() == {"a": 2, **dict.fromkeys("bcde", 1)}
        (red,) = [b.name for b in registry.dataset("e").branches() if registry.version(f"e@{b.name}").taints]
        assert red.startswith("run/")
