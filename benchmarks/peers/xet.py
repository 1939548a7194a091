"""Hugging Face's Xet with a local folder as its server: chunks of about 64 KB, in blocks of 64 MB."""

import os
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

os.environ |= {"HF_HOME": os.environ["BENCHMARK_HOME"], "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0"}

from hf_xet import XetSession  # its settings are read on import

FACTS = {"versions": {"hf-xet": version("hf-xet")}}
_kept = {}


@cache
def _session():
    return XetSession()


def _upload(folder, paths):
    """What git-xet and the hub's client do, without the hub."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    session = _session()
    yield
    with session.new_upload_commit(endpoint=f"local://{folder}") as upload:
        handles = [(path, upload.start_upload_file(str(path))) for path in paths]
    _kept.setdefault(folder, [(path, handle.result().xet_info) for path, handle in handles])
    yield


def store(folder, file):
    """A file."""
    return _upload(folder, [file])


again = untouched = store


def many(folder, files):
    """A folder of files."""
    return _upload(folder, sorted(Path(files).iterdir()))


many_again = many


def checkout(folder, files, target):
    """All files."""
    Path(target).mkdir()
    yield
    with _session().new_file_download_group(endpoint=f"local://{folder}") as download:
        for path, info in _kept[folder]:
            download.start_download_file(info, str(Path(target) / path.name))
    yield


def write(folder, table):
    """The Parquet file of a table."""
    return _upload(folder, [table])


def read(folder, **options):
    """Downloaded, then read."""
    target = Path(f"{folder}.parquet")
    target.unlink(missing_ok=True)
    ((_, info),) = _kept[folder]
    yield
    with _session().new_file_download_group(endpoint=f"local://{folder}") as download:
        download.start_download_file(info, str(target))
    found = pq.read_table(target, **options)
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Downloaded, then two columns read."""
    return read(folder, columns=columns, filters=ds.field(column) > above)


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _upload(folder, [whole])
