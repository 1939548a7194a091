"""Lossless conversion between polars frames and Arrow streams, eager and lazy."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_registry.errors import InputError, UnsupportedType
from dataset_registry.model.extras import require
from dataset_registry.tabular import convert
from dataset_registry.tabular.formats import is_lazy_frame

if TYPE_CHECKING:
    import polars

POLARS_TYPE = b"dataset_registry:polars"
"""The polars types of integers in a column that Arrow has no such type for, as field metadata (see `_wide`)."""


def reader(frame: Any) -> tuple[pa.RecordBatchReader, dict[str, str]]:
    """A polars frame, or a LazyFrame computed in batches, which is never whole in memory; and the polars types of the columns
    that Arrow has none for. Raises `UnsupportedType`."""
    import polars

    if isinstance(frame, polars.Series):
        raise UnsupportedType("A polars Series is not a table. Make it a frame of one column: value.to_frame('value').")
    is_lazy = is_lazy_frame(frame)
    wide: dict[str, Any] = {}
    for name, kind in (frame.collect_schema() if is_lazy else frame.schema).items():
        if _has_objects(kind):
            raise UnsupportedType(
                f"Column {name!r} has Python objects (polars.Object), which have no value outside of this process. Convert it, "
                "to polars.String for example."
            )
        if (account := _wide(kind)) is not None:
            wide[name] = account
    types = {name: json.dumps(account) for name, account in wide.items()}
    if not is_lazy:
        return pa.RecordBatchReader.from_stream(_in_digits(frame, wide)), types
    schema = _in_digits(frame.collect_schema().to_frame(), wide).to_arrow().schema
    parts = (_in_digits(part, wide).to_arrow() for part in frame.collect_batches(maintain_order=True))
    batches = (batch.cast(schema) for part in parts for batch in part.to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches), types


def _has_objects(kind: Any) -> bool:
    import polars

    inner = [field.dtype for field in getattr(kind, "fields", ())]
    inner += [kind.inner] if getattr(kind, "inner", None) is not None else []
    return kind == polars.Object or any(map(_has_objects, inner))


def _wide(kind: Any) -> Any:
    """Where integers of 128 bits are in a type: the name of their type, a list of that of lists, a dict of those of fields; None
    where none are."""
    import polars

    if kind in (polars.Int128, polars.UInt128):
        return str(kind)
    if isinstance(kind, polars.Struct):
        found = {field.name: account for field in kind.fields if (account := _wide(field.dtype)) is not None}
        return found or None
    if isinstance(kind, polars.List | polars.Array) and (inner := _wide(kind.inner)) is not None:
        return [inner]
    return None


def _with_wide(kind: Any, account: Any, wide: Any = None) -> Any:
    """A type with others where integers of 128 bits are in it: these, or all of them `wide`."""
    import polars

    if isinstance(account, str):
        return wide if wide is not None else getattr(polars, account)
    if isinstance(kind, polars.Struct):
        return polars.Struct(
            {
                field.name: _with_wide(field.dtype, account[field.name], wide) if field.name in account else field.dtype
                for field in kind.fields
            }
        )
    inner = _with_wide(kind.inner, account[0], wide)
    return polars.Array(inner, kind.size) if isinstance(kind, polars.Array) else polars.List(inner)


def _in_digits(frame: Any, wide: Mapping[str, Any]) -> Any:
    """The frame with integers of 128 bits, which Arrow has not, as decimals of 38 digits; most fit, the others are refused."""
    import polars

    if not wide:
        return frame
    try:
        schema = frame.collect_schema()
        digits = polars.Decimal(38, 0)
        return frame.cast({name: _with_wide(schema[name], account, digits) for name, account in wide.items()})
    except polars.exceptions.PolarsError as error:
        raise UnsupportedType(f"Integers of more than 38 digits are not stored: {error}") from error


# --- and back ---------------------------------------------------------------------------------------------------------


def to_polars(table: pa.Table) -> "polars.DataFrame":
    """An Arrow table as a polars frame. Time zones that are fixed offsets, which polars does not have, are UTC there."""
    library = _polars()
    frame: polars.DataFrame = library.from_arrow(_for_polars(table))
    if "" in table.column_names:  # which polars gives another name on the way in
        frame.columns = table.column_names
    wide = {
        field.name: _with_wide(frame.schema[field.name], _account(field.metadata[POLARS_TYPE]))
        for field in table.schema
        if field.metadata and POLARS_TYPE in field.metadata
    }
    return frame.cast(wide) if wide else frame


def _account(text: bytes) -> Any:
    return json.loads(text) if text[:1] in b'"[{' else text.decode()  # the name alone, as it was written at first


_EXTENSION = b"ARROW:extension:"
_OFFSET = re.compile(r"[+-][0-9]{2}:?[0-9]{2}")


def _for_polars(table: pa.Table) -> pa.Table:
    """The table with types that polars knows. Raises `InputError` for a column that it has no type for."""
    for position, field in enumerate(table.schema):
        kind = _known_to_polars(field.type, field.name)
        own = _of_polars(field).with_type(kind)
        if not own.equals(field, check_metadata=True):
            table = table.set_column(position, own, convert.column(table.column(position), kind))
    return table.replace_schema_metadata(None)


def _of_polars(field: pa.Field) -> pa.Field:
    """A field with the metadata that polars gave it alone, extension types that it knows among them: those of others may be no
    texts."""
    given = field.metadata or {}
    is_known = _EXTENSION + b"name" in given and _polars().get_extension_type(
        given[_EXTENSION + b"name"].decode(errors="replace")
    )
    kept = (b"_PL_", _EXTENSION) if is_known else (b"_PL_",)
    own = {key: value for key, value in given.items() if key.startswith(kept)}
    return field.with_metadata(own) if own else field.remove_metadata()


def _known_to_polars(kind: pa.DataType, name: str) -> pa.DataType:
    """A type of polars with the same values: without runs, views of lists, extensions, fixed offsets as time zones."""
    if isinstance(kind, pa.BaseExtensionType):
        return _known_to_polars(kind.storage_type, name)
    if pa.types.is_run_end_encoded(kind):
        return _known_to_polars(kind.value_type, name)
    if pa.types.is_timestamp(kind) and kind.tz is not None and _OFFSET.fullmatch(kind.tz):
        return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_decimal(kind):
        raise InputError(
            f"polars has no decimals of {kind.precision} digits: read {name!r} with to_arrow().", column=name
        )
    if pa.types.is_dictionary(kind):
        inner = _known_to_polars(kind.value_type, name)
        is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
        return pa.dictionary(kind.index_type, inner, kind.ordered) if is_text else inner
    if pa.types.is_struct(kind):
        return pa.struct([_of_polars(field).with_type(_known_to_polars(field.type, name)) for field in kind.fields])
    if pa.types.is_map(kind):
        return pa.map_(_known_to_polars(kind.key_type, name), _known_to_polars(kind.item_type, name))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_of_polars(kind.value_field).with_type(_known_to_polars(kind.value_type, name)), kind.list_size)
    if convert.is_list(kind):
        inner = _of_polars(kind.value_field).with_type(_known_to_polars(kind.value_type, name))
        return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)
    return kind


def scan_polars(runs: Sequence[Sequence[Path]], target: pa.Table, *, as_stored: bool) -> "polars.LazyFrame":
    """A LazyFrame over Parquet files in runs of the same columns, in order, with the columns and types of an empty table."""
    library = _polars()
    wanted = to_polars(target).schema
    found = []
    for paths in runs:
        frame = library.scan_parquet(list(paths), glob=False)
        stored = frame.collect_schema()
        for name, kind in wanted.items():
            if "Map(" in str(kind) and stored.get(name) != kind:
                raise InputError(
                    f"polars has no lazy conversion to {kind}: read {name!r} with to_polars().", column=name
                )
        casts = [
            (library.col(name) if name in stored else library.lit(None)).cast(kind).alias(name)
            for name, kind in wanted.items()
            if stored.get(name) != kind
        ]
        if casts:
            frame = frame.with_columns(casts)
        found.append(frame if as_stored else frame.select(list(wanted)))
    lazy: polars.LazyFrame = found[0] if len(found) == 1 else library.concat(found)
    return lazy


def _polars() -> Any:
    require("polars", "polars", "A polars frame")
    import polars

    return polars
