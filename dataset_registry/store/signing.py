"""Presigned S3 URLs: AWS Signature Version 4 in the query.

obstore also signs URLs, but no headers of the request: its URLs accept content of any size.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of an S3 account, and its region."""

    key_id: str
    secret: str = field(repr=False)
    region: str
    session_token: str | None = field(default=None, repr=False)


def signed_url(
    method: str, url: str, headers: Mapping[str, str], credentials: Credentials, now: datetime, lasts: timedelta
) -> str:
    """The URL of an object, signed for one method and these headers (lower-case names), which the request must have."""
    parts = urlsplit(url)
    day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day}/{credentials.region}/s3/aws4_request"
    signed = dict(sorted({**headers, "host": parts.netloc}.items()))
    names = ";".join(signed)
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.key_id}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(int(lasts.total_seconds())),
        **({"X-Amz-Security-Token": credentials.session_token} if credentials.session_token else {}),
        "X-Amz-SignedHeaders": names,
    }
    text = urlencode(query, quote_via=quote, safe="")
    lines = [method, parts.path, text, *(f"{name}:{value}" for name, value in signed.items()), "", names]
    request = "\n".join([*lines, "UNSIGNED-PAYLOAD"])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{credentials.secret}".encode()
    for step in (day, credentials.region, "s3", "aws4_request", to_sign):
        key = hmac.digest(key, step.encode(), "sha256")
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{text}&X-Amz-Signature={key.hex()}"
