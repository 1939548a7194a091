"""Cutting bytes by content: FastCDC (Xia et al. 2016), for files whose format says nothing of where they repeat."""

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

_LARGE = 64 << 20


def fastcdc_chunks(stream: BinaryIO, size: int) -> Iterator[memoryview]:
    """The bytes of a stream in chunks that their content makes, of 80 KB or (from 64 MB on) 320 KB on average; each is valid
    until the next is asked for."""
    from pyfastcdc import FastCDC

    average = 64 << 10 if size < _LARGE else 256 << 10
    for chunk in FastCDC(average).cut_stream(cast(Any, stream)):
        yield chunk.data
