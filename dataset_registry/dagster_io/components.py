"""A component for `dg`: the registry, its IO manager, schedules and sensors from YAML.

`dg scaffold defs dataset_registry.dagster_io.components.DatasetRegistryComponent registry` writes a file to fill in.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from dataset_registry.dagster_io.io_manager import DatasetRegistryIOManager
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dagster_io.schedules import build_branch_schedule, build_retention_schedule, build_tag_schedule
from dataset_registry.dagster_io.sensors import build_branch_sensor, build_publish_job, build_publish_sensor
from dataset_registry.model.retention import Policy, Rule


class TagSchedule(dg.Model, dg.Resolvable):
    """Tags the heads of datasets on a schedule."""

    name: str = "registry_tags"
    cron: str = "0 6 * * *"
    datasets: list[str] = Field(default_factory=lambda: ["*"], description="Patterns of names.")
    branch: str = "main"
    template: str = Field(default="nightly-{date}", description="May use {date}, {time} and {branch}.")


class RetentionRule(dg.Model, dg.Resolvable):
    """What is kept of the history of some branches of some datasets; the first rule that applies decides."""

    datasets: str = "*"
    branches: str = "*"
    last: int = 0
    days: float | None = Field(default=None, description="Keeps versions that are younger than this.")
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    heads: bool = Field(default=False, description="Whether heads of branches expire, too.")

    @property
    def rule(self) -> Rule:
        """The rule of a policy."""
        facts = self.model_dump(exclude={"days"})
        return Rule(**facts, younger_than=None if self.days is None else timedelta(days=self.days))


class Retention(dg.Model, dg.Resolvable):
    """Expires what no rule keeps, and removes what is not referenced."""

    cron: str = "0 3 * * *"
    rules: list[RetentionRule] = Field(default_factory=list)
    verify_share: int | None = Field(default=None, description="Also reads one N-th of the content each day.")


class Publishing(dg.Model, dg.Resolvable):
    """Publishes runs that succeeded with green blocking checks, and deletes their branches later."""

    branches: list[str] = Field(default_factory=lambda: ["run/*"], description="Patterns of branches.")
    delete_after_hours: float | None = Field(default=1, description="Of a branch that is published.")
    delete_failed_after_days: float | None = 7


class DatasetRegistryComponent(dg.Component, dg.Model, dg.Resolvable):
    """A registry for the assets of a project: the resource `registry` and the default IO manager, with schedules and sensors.

    The fields are those of `DatasetRegistryResource` and `DatasetRegistryIOManager`. Secrets belong into environment variables:
    `"{{ env.REGISTRY_CATALOG }}"`.
    """

    path: str | None = Field(default=None, description="The folder of an embedded registry, or a server: https://…")
    catalog: str | None = Field(default=None, description="The URL of the catalog, such as postgresql+psycopg://…")
    store: str | None = Field(default=None, description="The store, with catalog: a folder, or s3://bucket/prefix")
    token: str | None = Field(default=None, description="The API token for a server.")
    actor: str | None = Field(default=None, description="The user that runs act as.")
    branch: str | None = Field(
        default=None, description="The branch, such as main, pr-{env:PR_NUMBER} or run/{run_id}."
    )
    fallback_branch: str = "main"
    prefix: str = Field(default="", description="A prefix of all dataset names.")
    default_load_type: str = "pyarrow"
    resource_key: str = "registry"
    io_manager_key: str = "io_manager"
    tags: list[TagSchedule] = Field(default_factory=list)
    retention: Retention | None = None
    publish: Publishing | None = None
    follow: list[str] | None = Field(
        default=None, description="Patterns of datasets whose changes outside of Dagster are reported."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the registry."""
        fields = ("path", "catalog", "store", "token", "actor", "branch", "fallback_branch")
        registry = DatasetRegistryResource(**{name: getattr(self, name) for name in fields})
        manager = DatasetRegistryIOManager(
            registry=registry, prefix=self.prefix, default_load_type=self.default_load_type
        )
        jobs, sensors = self._publishing()
        return dg.Definitions(
            resources={self.resource_key: registry, self.io_manager_key: manager},
            schedules=self._schedules(),
            sensors=sensors,
            jobs=jobs,
        )

    def _schedules(self) -> Sequence[dg.ScheduleDefinition]:
        found = [
            build_tag_schedule(
                name=tag.name,
                cron_schedule=tag.cron,
                datasets=tag.datasets,
                branch=tag.branch,
                template=tag.template,
                resource_key=self.resource_key,
            )
            for tag in self.tags
        ]
        if self.retention is not None:
            rules = tuple(rule.rule for rule in self.retention.rules)
            found.append(
                build_retention_schedule(
                    policy=Policy(rules) if rules else None,
                    cron_schedule=self.retention.cron,
                    verify_share=self.retention.verify_share,
                    resource_key=self.resource_key,
                )
            )
        if self.publish is not None:
            hours, days = self.publish.delete_after_hours, self.publish.delete_failed_after_days
            found.append(
                build_branch_schedule(
                    branches=self.publish.branches,
                    published=None if hours is None else timedelta(hours=hours),
                    failed=None if days is None else timedelta(days=days),
                    resource_key=self.resource_key,
                )
            )
        return found

    def _publishing(self) -> tuple[list[Any], list[dg.SensorDefinition]]:
        jobs, sensors = [], []
        if self.publish is not None:
            job = build_publish_job(resource_key=self.resource_key)
            jobs.append(job)
            sensors.append(
                build_publish_sensor(job=job, branches=self.publish.branches, resource_key=self.resource_key)
            )
        if self.follow is not None:
            sensors.append(
                build_branch_sensor(datasets=self.follow, prefix=self.prefix, resource_key=self.resource_key)
            )
        return jobs, sensors
