"""A registry that has something of everything that pages show, with hostile texts in it."""

import struct
import zlib
from pathlib import Path

import pyarrow as pa

from dataset_registry import InputVersion, Provenance, Registry
from dataset_registry.version import Version

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}\u202e"
"""A text that would run, break out of an attribute, or be a template, if it were not escaped."""
ATTACK = "<script>document.title='owned'</script>"


def png(color: int) -> bytes:
    """An image of 8 × 8 pixels of one grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([color]) * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def prices(*values: float | None) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(len(values)), pa.int64()),
            "price": pa.array(values, pa.float64()),
            "name": [f"n{i}" for i in range(len(values))],
        }
    )


def fill(registry: Registry, folder: Path) -> None:
    """Fill an empty registry: `raw/prices` with a history, `clean/prices` made from it, `files/all` with files of all kinds,
    `wide/table`, `secret/plans`, and a review of the branch `pr-7` with a conflict in `raw/prices`."""
    raw = registry.create_dataset("raw/prices", description=f"Prices. {HOSTILE}")
    raw.commit({"data": prices(1, 2, 3)}, key="id", message="The first prices")
    raw.create_tag("release-1")
    raw.create_branch("pr-7")
    raw.commit({"data": prices(1, 5, 3, 4)}, key="id", branch="pr-7", message="Corrected on the branch")
    main = raw.commit({"data": prices(1, 6, 3)}, key="id", message=f"Corrected on main {HOSTILE}")
    raw.create_branch("other", "v1")
    raw.commit({"data": prices(1, 2, 3, None)}, key="id", branch="other", message="One more")
    raw.merge("other", message="Merge other")
    head = raw.version("main")
    head.record_check("no_gaps", False, description=HOSTILE, metadata={"expected": 0, "got": 1, "why": HOSTILE})
    head.record_check("row_count", True)
    _produce(registry, "clean/prices", "run-1", [main])
    _produce(registry, "report/prices", "run-2", [registry.version("clean/prices")])
    tainted = raw.commit({"data": prices(9)}, key="id", branch="broken", fallback="main", message="Broken")
    tainted.record_check("no_gaps", False, blocking=True)
    _files(registry, folder)
    wide = {f"column_{i}": pa.array([i, None]) for i in range(5000)}
    registry.create_dataset("wide/table").commit({"data": pa.table(wide)}, message="Wide")
    registry.create_dataset("secret/plans", description="Not for everybody").commit({"data": b"the secret plan"})
    registry.create_review("pr-7", title=f"Prices of July {ATTACK}", description=HOSTILE)
    registry.comment_review(1, f"Looks right. {HOSTILE}")


def _produce(registry: Registry, name: str, run: str, reads: list[Version]) -> None:
    inputs = tuple(InputVersion(v.dataset, v.number, v.digest, "main", uuid=v.record.uuid) for v in reads)
    provenance = Provenance(run_id=run, step="make", asset_key=name, code_version="1", inputs=inputs)
    with registry.draft(name, provenance=provenance) as draft:
        draft.add("data", prices(1, 2), key="id")


def _files(registry: Registry, folder: Path) -> None:
    delivered = {
        "a.html": ATTACK.encode(),
        "b.svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "c.csv": f'name,formula\n"{ATTACK}",=1+1\n'.encode(),
        "d.json": b'[{"a": 1, "b": "x"}, {"a": 2, "b": null}]',
        "e.md": b"# Title\n\n[link](javascript:alert(1))",
        "f.png": png(200),
        "g.bin": bytes(range(256)) * 4,
        "h.txt": "\u202eevil \x1b[31m".encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    dataset = registry.create_dataset("files/all")
    paths = {}
    for name, content in delivered.items():
        (folder / name).write_bytes(content)
        paths[name] = folder / name
    dataset.commit(paths, message="Files of all kinds")
    (folder / "f.png").write_bytes(png(90))
    dataset.commit({"f.png": folder / "f.png", "big": pa.table({"text": ["x" * 3_000_000]})}, message="Another image")
