"""Clusters of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def local_ray() -> Iterator[Any]:
    """Ray, with two workers."""
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def local_spark() -> Iterator[Any]:
    """A session of Sail, which is a server of Spark's protocol without Java."""
    sail = pytest.importorskip("pysail.spark")
    from pyspark.sql import SparkSession

    server = sail.SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    session = SparkSession.builder.remote(f"sc://127.0.0.1:{server.listening_address[1]}").getOrCreate()
    try:
        yield session
    finally:
        session.stop()
        server.stop()
