"""Lossless conversion between pandas frames and Arrow tables with pandas metadata."""

import json
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import UnsupportedType
from dataset_registry.model.extras import require
from dataset_registry.tabular import convert
from dataset_registry.tabular.arrow import usual_schema, usual_type

if TYPE_CHECKING:
    import pandas

_log = logging.getLogger(__name__)

FRAME = b"dataset_registry:frame"
"""The schema metadata key for properties of a frame that Arrow's pandas metadata do not contain."""


def to_table(frame: Any) -> pa.Table:
    """A pandas frame with its row labels, where they are data, and what pandas says of it. Raises `UnsupportedType`.

    An unnamed integer index is not data: a frame that was filtered or sorted has one by accident. It is dropped.
    """
    if type(frame).__name__ != "DataFrame":
        raise UnsupportedType(
            f"A pandas {type(frame).__name__} is not a table. Make it a frame of one column: value.to_frame('value')."
        )
    if _keeps_index(frame) is False and len(frame):
        _log.info(
            "The unnamed integer index of a frame is not stored. Name it (frame.index.name = …) to keep it as a column."
        )
    _refuse_attrs(frame.attrs)
    labels = frame.columns
    facts: dict[str, Any] = {}
    if type(labels).__name__ == "CategoricalIndex":
        facts["columns"] = {"categories": labels.categories.tolist(), "ordered": bool(labels.ordered)}
        frame = frame.set_axis(labels.astype(labels.categories.dtype), axis="columns")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels that are no texts: they are looked after below
        table = pa.Table.from_pandas(frame, preserve_index=_keeps_index(frame))
    if not table.num_columns and len(frame):
        raise UnsupportedType("A frame without columns has rows but no values, and is not stored. Give it a column.")
    if not frame.flags.allows_duplicate_labels:
        facts["unique_labels"] = True
    facts |= _objects(frame, table)
    facts |= _beyond_arrow(frame, labels, table, facts)
    return _with_facts(table, facts) if facts else table


def _refuse_attrs(attrs: Mapping[Any, Any]) -> None:
    """Raise `UnsupportedType` for `attrs` that do not come back from JSON, as which they are stored."""
    try:
        if json.loads(json.dumps(attrs)) == attrs:
            return
    except (TypeError, ValueError):
        pass
    raise UnsupportedType(
        f"The attrs of this frame ({str(attrs)[:60]}) have keys or values that JSON does not have. Make them texts, "
        "numbers, lists and dicts, or leave them out: frame.attrs = {}"
    )


def _with_facts(table: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({**(table.schema.metadata or {}), FRAME: json.dumps(facts).encode()})


def _beyond_arrow(frame: Any, labels: Any, table: pa.Table, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What comes back otherwise from Arrow's own account of a frame: dtypes, the freq and the names of labels.

    Raises `UnsupportedType` for column labels, dtypes and names of labels that cannot be kept.
    """
    import pandas

    found: dict[str, Any] = {}
    try:
        back = to_pandas(_with_facts(_empty(table), facts))
    except (TypeError, ValueError, KeyError, NotImplementedError, pa.ArrowException) as error:
        raise UnsupportedType(
            f"The labels or dtypes of this frame cannot be stored ({error}). Make its column labels texts, "
            "frame.columns.astype(str), and its columns of dtypes that Arrow has."
        ) from error
    if labels.nlevels == 1 and str(back.columns.dtype) != str(labels.dtype):
        back.columns = back.columns.astype(labels.dtype)
        found["columns_dtype"] = str(labels.dtype)
    if getattr(labels, "freq", None) is not None and type(labels).__name__ != "PeriodIndex":
        found["columns_freq"] = labels.freqstr
    if type(labels).__name__ == "RangeIndex" and labels.equals(back.columns):
        found["columns_range"] = [labels.start, labels.stop, labels.step]
        back.columns = labels
    if not (type(back.columns) is type(labels) and back.columns.equals(labels) and back.columns.names == labels.names):
        raise UnsupportedType(
            f"The column labels of this frame, a {type(labels).__name__} of {labels.dtype}, cannot be stored. Make them texts "
            "first: frame.columns = frame.columns.astype(str)"
        )
    dtypes = {}
    arrow = []
    for name, mine, theirs in zip(labels, frame.dtypes, back.dtypes, strict=True):
        if mine == theirs and _name_of(mine) == _name_of(theirs):
            continue
        if isinstance(mine, pandas.ArrowDtype):
            arrow.append(str(name))
            if _is_named(mine) and usual_type(mine.pyarrow_dtype) != mine.pyarrow_dtype:
                dtypes[str(name)] = _name_of(mine)
            continue
        if isinstance(mine, pandas.SparseDtype) or not _is_named(mine):
            raise UnsupportedType(
                f"Column {name!r} is of the dtype {mine}, which comes back as {theirs}. Convert it first."
            )
        dtypes[str(name)] = _name_of(mine)
    if dtypes:
        found["dtypes"] = dtypes
    if arrow:
        found["arrow"] = arrow
    if _keeps_index(frame):
        found |= _of_index(frame.index, back.index)
    return found


def _empty(table: pa.Table) -> pa.Table:
    """The table without rows as it will be read: without what is only how texts and lists lie in memory."""
    empty = table.slice(0, 0)
    for position, field in enumerate(usual_schema(table.schema)):
        if not pa.types.is_dictionary(field.type):
            empty = empty.set_column(position, field, convert.column(empty.column(position), field.type))
    return empty


def _of_index(index: Any, back: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if index.nlevels == 1 and str(index.dtype) != str(back.dtype):
        found["index_dtype"] = str(index.dtype)
    if index.nlevels == 1 and getattr(index, "freq", None) is not None and type(index).__name__ != "PeriodIndex":
        found["index_freq"] = index.freqstr
    if index.nlevels == 1 and getattr(index.dtype, "kind", "O") in "iu" and index.hasnans:
        raise UnsupportedType(
            "Row labels that are integers with nulls are not stored. Make them a column: frame.reset_index()."
        )
    names = list(index.names)
    if any(not isinstance(name, str | None) for name in names):
        if any(not isinstance(name, str | int | float | None) for name in names):
            raise UnsupportedType(f"The row labels of this frame are called {names!r}. Give them names that are texts.")
        found["index_names"] = names
    return found


def _is_named(dtype: Any) -> bool:
    """Whether the name of a dtype is all that is to be known of it."""
    import pandas

    try:
        found = pandas.api.types.pandas_dtype(_name_of(dtype))
    except (TypeError, NotImplementedError):
        return False
    return bool(found == dtype)


def _name_of(dtype: Any) -> str:
    storage = getattr(dtype, "storage", None)
    return f"string[{storage}]" if storage and str(dtype) == "string" else str(dtype)


def _objects(frame: Any, table: pa.Table) -> dict[str, Any]:
    """What is to be known of columns of Python objects: which of them hold lists. Raises `UnsupportedType` for objects that
    Arrow gives back as others: dicts with different keys, sets, moments of several zones, objects of other libraries."""
    lists = []
    for position, (name, kind) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        if str(kind) != "object":
            continue
        stored = table.column(position)
        is_own = pa.types.is_boolean(stored.type) or pa.types.is_integer(stored.type) or pa.types.is_null(stored.type)
        if is_own or pa.types.is_string(stored.type) or pa.types.is_large_string(stored.type):
            continue
        given = frame.iloc[:, position].tolist()
        if _are_arrays(given, stored.type):
            continue
        for row, (mine, theirs) in enumerate(zip(given, stored.to_pylist(), strict=True)):
            if not _is_same(mine, theirs):
                raise UnsupportedType(
                    f"Column {name!r}: the {type(mine).__name__} in row {row} is not what Arrow makes of it. Store it as text "
                    "(json.dumps), or as columns of its own."
                )
        if any(isinstance(value, list) for value in given):
            lists.append(str(name))
    return {"lists": lists} if lists else {}


def _are_arrays(given: Sequence[Any], kind: pa.DataType) -> bool:
    """Whether all values are numeric arrays of the dtype that Arrow has made of them: embeddings, mostly, and many."""
    if not (pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type)):
        return False
    dtype = kind.value_type.to_pandas_dtype()
    return all(getattr(v, "ndim", 0) == 1 and v.dtype == dtype and v.dtype.kind in "biuf" for v in given)


def _is_same(mine: Any, theirs: Any) -> bool:
    """Whether a Python object is what Arrow gives back for it."""
    if isinstance(mine, Decimal) and (mine.is_nan() or (mine.is_zero() and mine.is_signed())):
        return False
    if hasattr(mine, "tolist") and not hasattr(mine, "tzinfo"):
        mine = mine.tolist()
    is_null = mine is None or type(mine).__name__ == "NAType"
    if is_null or theirs is None or mine != mine:  # noqa: PLR0124 - NaN and NaT are nulls here
        return theirs is None or (mine is not None and theirs != theirs)  # noqa: PLR0124
    if isinstance(mine, dict):
        pairs = dict(theirs) if isinstance(theirs, list) else theirs
        return (
            isinstance(pairs, dict) and mine.keys() == pairs.keys() and all(_is_same(mine[k], pairs[k]) for k in mine)
        )
    if isinstance(mine, list):
        return isinstance(theirs, list) and len(mine) == len(theirs) and all(map(_is_same, mine, theirs))
    if hasattr(mine, "tzinfo") and mine.tzinfo is not None:
        return bool(mine == theirs) and mine.utcoffset() == theirs.utcoffset()
    return type(mine) is not set and bool(mine == theirs)


def _keeps_index(frame: Any) -> bool | None:
    """Whether the row labels of a pandas frame are data; None for the plain 0, 1, 2 …, of which nothing need be kept."""
    index = frame.index
    if index.nlevels > 1 or index.name is not None:
        return True
    if type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1):
        return None
    return bool(index.dtype.kind not in "iu" and len(index))


# --- and back ---------------------------------------------------------------------------------------------------------


def to_pandas(table: pa.Table) -> "pandas.DataFrame":
    """An Arrow table as a pandas frame, with the index, the dtypes and the column labels of the frame that it was.

    Where pandas' own type would change a value (integers with nulls beyond 2^53, times with nanoseconds, zoned moments in
    lists), the column is of a nullable dtype, or of `pandas.ArrowDtype`.
    """
    require("pandas", "pandas", "A pandas frame")
    import pandas

    table = _for_pandas(_without_foreign_extensions(table))
    facts = json.loads((table.schema.metadata or {}).get(FRAME, b"{}"))
    arrow, floats = _columns_of_dtype(table, r".*\[pyarrow\]"), _columns_of_dtype(table, "Float(32|64)")
    arrow |= {i for i, name in enumerate(table.column_names) if name in facts.get("arrow", ())}
    odd = {
        i: values
        for i, values in enumerate(table.columns)
        if i in arrow or (i in floats and pc.any(pc.is_nan(values)).as_py()) or _is_odd(values)
    }
    rest = _without_columns(table, [table.column_names[i] for i in odd]) if odd else table
    frame: pandas.DataFrame = rest.to_pandas()
    if odd and not rest.num_columns:
        frame = pandas.DataFrame(index=pandas.RangeIndex(table.num_rows))
    for i, values in odd.items():
        series = _arrow_series(values) if i in arrow else _odd_series(values)
        frame.insert(min(i, frame.shape[1]), table.column_names[i], series.set_axis(frame.index))
    return _as_it_was(frame, facts)


def _as_it_was(frame: "pandas.DataFrame", facts: Mapping[str, Any]) -> "pandas.DataFrame":
    """The frame with what Arrow's account of it lacks."""
    import pandas

    if "columns" in facts:
        frame.columns = pandas.CategoricalIndex(frame.columns, name=frame.columns.name, **facts["columns"])
    if facts.get("unique_labels"):
        frame.flags.allows_duplicate_labels = False
    if "columns_range" in facts and frame.columns.equals(labels := pandas.RangeIndex(*facts["columns_range"])):
        frame.columns = labels.rename(frame.columns.name)
    if "columns_dtype" in facts:
        frame.columns = frame.columns.astype(facts["columns_dtype"])
    lists, dtypes = facts.get("lists", ()), facts.get("dtypes", {})
    for position, name in enumerate(map(str, frame.columns)):
        if name in lists:
            values = [_as_list(value) for value in frame.iloc[:, position]]
            frame.isetitem(position, pandas.Series(values, index=frame.index, dtype=object))
        if name in dtypes:
            series = frame.iloc[:, position].astype(dtypes[name])
            frame.isetitem(position, series.where(series.notna(), None) if dtypes[name] == "object" else series)
    if "index_dtype" in facts and frame.index.nlevels == 1:
        frame.index = frame.index.astype(facts["index_dtype"])
    if "index_names" in facts and frame.index.nlevels == len(facts["index_names"]):
        frame.index.names = facts["index_names"]
    for axis, freq in ((frame.index, facts.get("index_freq")), (frame.columns, facts.get("columns_freq"))):
        if freq and len(axis):
            with suppress(ValueError):  # rows of several versions, or some of them, need not be equally spaced
                axis.freq = freq
    return frame


def _without_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table without columns, of which its pandas metadata say nothing any more."""
    table = table.drop_columns(list(names))
    metadata = table.schema.metadata or {}
    if b"pandas" not in metadata:
        return table
    facts = json.loads(metadata[b"pandas"])
    facts["columns"] = [column for column in facts.get("columns", []) if column.get("field_name") not in names]
    return table.replace_schema_metadata({**metadata, b"pandas": json.dumps(facts).encode()})


def _without_foreign_extensions(table: pa.Table) -> pa.Table:
    """The table with the storage of extension types that pandas has no dtype for."""
    for i, field in enumerate(table.schema):
        kind = field.type
        if isinstance(kind, pa.BaseExtensionType) and not _has_dtype(kind) and not isinstance(kind, pa.UuidType):
            table = table.set_column(
                i, field.with_type(kind.storage_type), convert.column(table.column(i), kind.storage_type)
            )
    return table


def _has_dtype(kind: pa.DataType) -> bool:
    """Whether pandas has a dtype of its own for an extension type."""
    try:
        return hasattr(kind.to_pandas_dtype(), "__from_arrow__")
    except NotImplementedError:
        return False


def _account(schema: pa.Schema) -> dict[str, Any]:
    """What pandas says of a frame, as Arrow keeps it in the metadata of its schema."""
    found: dict[str, Any] = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    return found


def _columns_of_dtype(table: pa.Table, pattern: str) -> set[int]:
    """The columns of a frame whose dtype had a name of this pattern, row labels apart."""
    facts = _account(table.schema)
    labels = facts.get("index_columns", ())
    names = {
        column.get("field_name")
        for column in facts.get("columns", [])
        if re.fullmatch(pattern, str(column.get("numpy_type", ""))) and column.get("field_name") not in labels
    }
    return {i for i, name in enumerate(table.column_names) if name in names}


def _masked(values: pa.ChunkedArray) -> "pandas.Series":
    """Floats of pandas' nullable dtype, in which NaN is a number and null is none."""
    import pandas

    mask = values.is_null().to_numpy()
    numbers = values.fill_null(0).to_numpy()
    return pandas.Series(pandas.arrays.FloatingArray(numbers.copy(), mask))


def _arrow_series(values: pa.ChunkedArray) -> "pandas.Series":
    import pandas

    return pandas.Series(pandas.arrays.ArrowExtensionArray(values))


def _as_list(value: Any) -> Any:
    """A list where Arrow gives an array, in lists too."""
    if not getattr(value, "ndim", 0):
        return value
    return value.tolist() if value.dtype.kind in "biuf" else [_as_list(inner) for inner in value]


_EXACT = 1 << 53
_YEARS = (-719_162, 2_932_896)
"""Days since 1970 of the years 1 to 9999, all that Python's dates know."""


def _for_pandas(table: pa.Table) -> pa.Table:
    """The table with pandas metadata that keep integers integers."""
    facts = _account(table.schema)
    known = {column.get("field_name"): column for column in facts.get("columns", [])}
    wide = []
    for field, values in zip(table.schema, table.columns, strict=True):
        if not pa.types.is_integer(field.type) or not values.null_count:
            continue
        dtype = str(known.get(field.name, {}).get("numpy_type", ""))
        if dtype[:1].isupper() or dtype.endswith("]"):
            continue
        if _is_beyond(values, -_EXACT, _EXACT):
            wide.append(field)
    if not wide:
        return table
    for field in wide:
        dtype = ("UI" if pa.types.is_unsigned_integer(field.type) else "I") + f"nt{field.type.bit_width}"
        known[field.name] = {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": str(field.type),
            "numpy_type": dtype,
            "metadata": None,
        }
    facts = {
        "index_columns": [],
        "column_indexes": [],
        "pandas_version": "3.0.0",
        **facts,
        "columns": list(known.values()),
    }
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"pandas": json.dumps(facts).encode()})


def _is_beyond(values: pa.ChunkedArray | pa.Array, low: int, high: int) -> bool:
    bounds = [bound.as_py() for bound in pc.min_max(values).values()]
    return any(bound is not None and not low <= bound <= high for bound in bounds)


def _is_odd(values: pa.ChunkedArray) -> bool:
    """Whether pandas' own types would change or refuse a value of a column."""
    kind = values.type
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return not pc.all(
            pc.equal(pc.multiply(pc.divide(values.cast(pa.int64()), 1000), 1000), values.cast(pa.int64()))
        ).as_py()
    if pa.types.is_date(kind):
        return _is_beyond(values.cast(pa.date32()).cast(pa.int32()), *_YEARS)
    if isinstance(kind, pa.UuidType):
        return True
    if pa.types.is_dictionary(kind):
        return (
            (pa.types.is_timestamp(kind.value_type) and kind.value_type.tz is not None)
            or pa.types.is_floating(kind.value_type)
            or any(chunk.dictionary.null_count for chunk in values.chunks)
        )
    if convert.is_list(kind) and pa.types.is_integer(kind.value_type):
        return any(pc.list_flatten(chunk).null_count for chunk in values.chunks)
    return pa.types.is_nested(kind) and _has_odd(kind)


def _has_odd(kind: pa.DataType) -> bool:
    """Whether a nested type has something inside that comes out as another: integers with nulls, moments, fixed bytes."""
    if pa.types.is_struct(kind):
        return any(_has_odd(field.type) for field in kind.fields)
    if pa.types.is_map(kind):
        return _has_odd(kind.key_type) or _has_odd(kind.item_type)
    if convert.is_list(kind):
        return _has_odd(kind.value_type)
    is_wide = pa.types.is_integer(kind) and kind.bit_width == 64
    is_moment = (
        pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind) or pa.types.is_date(kind)
    )
    if isinstance(kind, pa.BaseExtensionType):
        return _has_odd(kind.storage_type)
    is_small_decimal = pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind)
    is_view = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind) or pa.types.is_run_end_encoded(kind)
    return bool(
        is_view
        or is_wide
        or is_moment
        or is_small_decimal
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_dictionary(kind)
    )


def _odd_series(values: pa.ChunkedArray) -> "pandas.Series":
    import pandas

    kind = values.type
    if pa.types.is_dictionary(kind):
        whole = values.unify_dictionaries().combine_chunks()
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        categories = whole.dictionary.to_pandas()
        if not whole.dictionary.null_count and not categories.isna().any():
            codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            return pandas.Series(
                pandas.Categorical.from_codes(codes, categories=pandas.Index(categories), ordered=kind.ordered)
            )
        return convert.column(values, kind.value_type).to_pandas()
    if pa.types.is_floating(kind):
        return _masked(values)
    if isinstance(kind, pa.UuidType):
        return pandas.Series(values.to_pylist(), dtype=object)
    if pa.types.is_nested(kind) and "time64[ns]" not in str(kind):
        with suppress(ValueError, OverflowError):  # of moments that Python has not
            return pandas.Series(values.to_pylist(), dtype=object)
    return _arrow_series(values)


def with_labels(columns: Sequence[str], writer: pa.Schema | None) -> list[str]:
    """Columns with those behind them that are the row labels of a pandas frame."""
    facts = _account(writer) if writer is not None else {}
    labels = [label for label in facts.get("index_columns", []) if isinstance(label, str)]
    return [*columns, *(label for label in labels if label not in columns)]
