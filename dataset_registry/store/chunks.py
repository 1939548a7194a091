"""Content-defined chunking with FastCDC (Xia et al. 2016), for files of other formats than Parquet."""

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

_LARGE = 64 << 20


def fastcdc_chunks(stream: BinaryIO, size: int) -> Iterator[memoryview]:
    """Split a stream into content-defined chunks of 80 KB, or from 64 MB on 320 KB, on average. Each chunk is valid
    until the next one is requested."""
    from pyfastcdc import FastCDC

    average = 64 << 10 if size < _LARGE else 256 << 10
    for chunk in FastCDC(average).cut_stream(cast(Any, stream)):
        yield chunk.data
