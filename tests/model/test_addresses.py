"""Addresses as text: what they show, and that a secret anywhere in them is not shown."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_registry.model.addresses import has_secrets, hide, redacted


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/srv/registry", "/srv/registry"),
        ("registry@2026:1?x=1", "registry@2026:1?x=1"),
        ("sqlite:////srv/a:b@c/catalog.sqlite", "sqlite:////srv/a:b@c/catalog.sqlite"),
        ("sqlite:///c.sqlite?password=p&timeout=5", "sqlite:///c.sqlite?password=***&timeout=5"),
        ("postgresql+psycopg://ann@host/db", "postgresql+psycopg://ann@host/db"),
        ("postgresql+psycopg://ann:secret@host:5432/db", "postgresql+psycopg://ann:***@host:5432/db"),
        ("postgresql://ann:12/3?4#5@6@host/db?schema=s", "postgresql://ann:***@host/db?schema=s"),
        ("postgresql://h/db?sslmode=require&options=-cx%3Dy", "postgresql://h/db?sslmode=require&options=***"),
        ("postgresql://h/db?host=a&host=b&PASSWORD=p", "postgresql://h/db?host=a&host=b&PASSWORD=***"),
        ("postgresql://h/db?pass%77ord=p", "postgresql://h/db?pass%77ord=***"),
        ("s3://bucket/pre@fix", "s3://bucket/pre@fix"),
        ("s3://key:s/e+c@bucket/prefix", "s3://***@bucket/prefix"),
        ("s3://key:12/3@bucket/prefix", "s3://***@bucket/prefix"),
        ("s3://b?endpoint=http://10.0.0.7:9000&region=us", "s3://b?endpoint=http://10.0.0.7:9000&region=us"),
        ("s3://b?endpoint=http://u:p@host:9000", "s3://b?endpoint=http://***@host:9000"),
        ("s3://b?endpoint=http%3A%2F%2Fu%3Ap%40host", "s3://b?endpoint=http://***@host"),
        (
            "s3://b?aws_region=us&aws_secret_access_key=k&unknown=u",
            "s3://b?aws_region=us&aws_secret_access_key=***&unknown=***",
        ),
        ("s3://b?cache=/tmp/c&cache_bytes=1GiB&bare", "s3://b?cache=/tmp/c&cache_bytes=1GiB&***"),
        ("abfss://container@account.dfs.core.windows.net/p", "abfss://container@account.dfs.core.windows.net/p"),
        ("az://account/container?sas_token=sv&sig=s", "az://account/container?sas_token=***&sig=***"),
        ("https://registry.example.com:8600/x", "https://registry.example.com:8600/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://host/x#token", "https://host/x#***"),
        ("http://[::1]:8600/x@y", "http://[::1]:8600/x@y"),
    ],
)
def test_an_address_shows_where_it_is_and_hides_the_rest(address: str, shown: str) -> None:
    assert redacted(address) == shown
    assert redacted(shown) == shown
    assert has_secrets(address) == (address != shown)


SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=4, max_size=20).map(
    lambda text: f"S{text}S"
)


@given(
    SECRETS, st.sampled_from(["postgresql+psycopg", "s3", "gs", "https"]), st.sampled_from(["plain", quote, quote_plus])
)
def test_a_password_is_not_shown_whatever_characters_it_has(secret: str, scheme: str, written: object) -> None:
    text = secret if written == "plain" else written(secret, safe="")  # type: ignore[operator]
    if scheme == "https" and written == "plain":
        return  # as httpx reads it, a slash ends the host
    address = f"{scheme}://user:{text}@host/db?region=us"
    assert text not in redacted(address)
    assert secret not in redacted(address)
    assert secret not in hide(f"cannot connect with {secret} or {text}", address)
    if written != "plain":
        assert redacted(address).endswith("host/db?region=us")


@given(SECRETS, st.sampled_from(["password", "aws_secret_access_key", "sig", "options", "sas_token", "anything"]))
def test_a_parameter_that_is_not_known_to_be_harmless_is_not_shown(secret: str, name: str) -> None:
    address = f"s3://bucket/prefix?region=us&{name}={quote(secret, safe='')}&cache=x"
    assert secret not in redacted(address)
    assert redacted(address) == f"s3://bucket/prefix?region=us&{name}=***&cache=x"
    assert secret not in hide(f"unknown option {secret!s}", address)


def test_a_short_secret_is_hidden_as_a_word_only() -> None:
    assert hide("a password of alice: a", "postgresql://u:a@host/db") == "*** password of alice: ***"
