"""Repairing findings of a verification: damaged files are quarantined, leftovers removed, unknown content rescued."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dataset_registry.access import Access
from dataset_registry.catalog import checks, file_checks, files
from dataset_registry.content.source import opened
from dataset_registry.errors import RegistryError
from dataset_registry.model.maintenance import CollectPlan
from dataset_registry.model.records import FileRecord
from dataset_registry.model.verification import Finding
from dataset_registry.operations import collect, lost_found
from dataset_registry.store.checked import content_digest

_log = logging.getLogger(__name__)


def repair(access: Access, found: Sequence[Finding]) -> list[Finding]:
    """Apply the safe repairs. Damaged files are quarantined first, so that unknown objects can repair them."""
    damaged = [finding for finding in found if finding.file is not None]
    others = [finding for finding in found if finding.file is None]
    damaged = [_repair_one(access, finding) for finding in damaged]
    lost_found.heal(access, [o for finding in others for o in finding.objects])
    healed = [
        f if f.repaired or f.file is None or f.kind == "unreadable" else replace(f, repaired=_is_sound(access, f.file))
        for f in damaged
    ]
    return [*healed, *(_repair_one(access, finding) for finding in others)]


def _is_sound(access: Access, file: FileRecord) -> bool:
    """Whether a file is not in quarantine, or was deleted."""
    now = stored_now(access, file)
    return now is None or now.damage is None


def stored_now(access: Access, file: FileRecord) -> FileRecord | None:
    """The file as the catalog has it now."""
    with access.catalog.read() as tx:
        return files.get_many(tx, [file.id]).get(file.id)


def _repair_one(access: Access, finding: Finding) -> Finding:
    """Apply the safe repair of a finding."""
    _log.info("Repairing %s: %s", finding.kind, finding.what)
    catalog = access.catalog
    match finding.kind:
        case "unnamed-page" | "unnamed-index-page" | "counter":
            catalog.write(partial(checks.repair, kind=finding.kind, rows=finding.rows))
        case "expired-hold" | "trash":
            collect.apply(access, CollectPlan((), 0, 0))
        case "unknown-objects":
            return replace(finding, repaired=lost_found.rescue(access, finding.objects))
        case "missing" | "size" | "content" if finding.file is not None:
            _quarantine(access, finding.file, finding.kind)
            return finding  # safe now, and not repaired
        case "quarantined" if finding.file is not None:
            return replace(finding, repaired=_release(access, finding.file))
        case _:
            return finding
    return replace(finding, repaired=True)


_DAMAGE = {
    "missing": "its object is missing",
    "size": "its object has another size",
    "content": "its bytes have changed",
}


def _quarantine(access: Access, file: FileRecord, kind: str) -> None:
    damage = _DAMAGE[kind]
    access.catalog.write(partial(file_checks.set_damage, file_id=file.id, key=file.object_key, damage=damage))


def _release(access: Access, file: FileRecord) -> bool:
    """Take a file out of quarantine if its bytes have been restored."""
    sound = replace(file, damage=None)
    try:
        digest, _ = content_digest(opened(access, sound))
    except (RegistryError, OSError):
        return False
    key = file.object_key
    if digest != file.content_hash or (key is not None and access.store.size(key) != file.stored_size):
        return False
    return access.catalog.write(partial(file_checks.set_damage, file_id=file.id, key=key, damage=None))
