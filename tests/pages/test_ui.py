"""`dataset-registry ui`: the pages of an embedded registry, for its owner at this machine alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from dataset_registry import Registry
from tests.waiting import SAFETY


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that the command prints for a registry with one dataset."""
    folder = tmp_path_factory.mktemp("ui")
    with Registry.open(folder / "registry") as registry:
        registry.create_dataset("raw/flights").commit({"data": b"1,2"})
    command = [
        sys.executable,
        "-c",
        "from dataset_registry.cli import main; main()",
        "ui",
        "-r",
        str(folder / "registry"),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--no-browser", "--port", "0"], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("The pages are at http://127.0.0.1:"), (folder / "log").read_text()
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(SAFETY) == 0
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    parts = urlsplit(address)
    transport = httpx.HTTPTransport(retries=20)  # until it listens
    with httpx.Client(base_url=f"http://{parts.netloc}", timeout=SAFETY, transport=transport) as found:
        yield found


def test_the_address_with_its_key_signs_the_owner_in(address: str, client: httpx.Client) -> None:
    assert client.get("/").status_code == 303
    assert client.get(address.replace("key=", "key=x")).status_code == 200
    assert client.get("/").status_code == 303, "a wrong key does not sign in"
    assert client.get(address).status_code == 303
    page = client.get("/")
    assert "raw/flights" in page.text
    assert client.get("/admin/health").status_code == 200


def test_other_names_of_this_machine_are_refused(address: str, client: httpx.Client) -> None:
    client.get(address)
    host = urlsplit(address).netloc
    for name in ("evil.example", f"evil.example:{host.partition(':')[2]}", "127.0.0.1.evil.example:80", ""):
        assert client.get("/", headers={"Host": name}).status_code in (400, 403), name
    assert client.get("/", headers={"Host": host.replace("127.0.0.1", "localhost")}).status_code == 200
