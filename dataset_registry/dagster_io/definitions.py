"""Definitions of assets, prepared for the registry."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dataset_registry.dagster_io import metadata, partitions
from dataset_registry.dagster_io.memoization import memoized
from dataset_registry.dagster_io.resource import DatasetRegistryResource


def describe_assets(assets: Sequence[Any], *, registry: DatasetRegistryResource, prefix: str = "") -> list[Any]:
    """The same assets with the registry's `dagster/uri` and `dagster/table_name` on their definitions, for the sidebar; those
    with the metadata `registry/memoize` are computed only where no earlier version can be reused.

    `prefix` is that of the IO manager, if it has one. Errors of a run are raised when definitions load: assets with the
    same dataset, unknown metadata keys, partition keys that cannot be component names. Raises `InputError`,
    `InvalidName`.
    """

    def describe(spec: dg.AssetSpec) -> dg.AssetSpec:
        metadata.check_keys(spec.metadata, f"The asset {spec.key.to_user_string()!r}")
        metadata.write_mode(spec.metadata, f"The asset {spec.key.to_user_string()!r}")
        if isinstance(spec.partitions_def, dg.StaticPartitionsDefinition):
            partitions.refuse_meeting_keys(
                spec.partitions_def.get_partition_keys(), f"The asset {spec.key.to_user_string()!r}"
            )
        name = prefix + metadata.dataset_name(spec.key, spec.metadata)
        return spec.merge_attributes(metadata=metadata.addresses(name, registry))

    found = list(dg.map_asset_specs(describe, assets))
    found = [memoized(asset) if isinstance(asset, dg.AssetsDefinition) else asset for asset in found]
    specs = [spec for asset in found for spec in (asset.specs if isinstance(asset, dg.AssetsDefinition) else [asset])]
    metadata.check_names({spec.key: spec.metadata for spec in specs}, prefix)
    return found
