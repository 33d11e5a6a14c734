"""What the address of a store means, and what is refused."""

from pathlib import Path

import pytest

from mantis.errors import ConfigError
from mantis.store.opening import default_store_url, open_store
from mantis.store.store_url import bucket_of, folder_of, scheme_of


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/x/exp#2", "/x/exp#2"),
        ("/x/q?x", "/x/q?x"),
        ("/x/100%25", "/x/100%25"),
        ("/x/a:b", "/x/a:b"),
        ("/x/~y", "/x/~y"),
        ("relative#1", "relative#1"),
        ("file:///x/exp%232", "/x/exp#2"),
        ("file:///x/100%25", "/x/100%"),
        ("file:///x/~y", "/x/~y"),
        ("file://localhost/x", "/x"),
        ("file:/x", "/x"),
        ("FILE:///x/%C3%A4", "/x/ä"),
    ],
)
def test_a_folder_is_what_its_address_says(url: str, folder: str) -> None:
    assert folder_of(url) == Path(folder)


def test_a_folder_is_found_again_by_its_url(tmp_path: Path) -> None:
    for name in ("exp#2", "q?x", "100%25", "~x", "ä b"):
        assert folder_of((tmp_path / name).as_uri()) == tmp_path / name


def test_a_tilde_at_the_beginning_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MANTIS_STORE", "~/st")
    open_store(default_store_url()).put("object", b"bytes")
    assert (tmp_path / "st" / "object").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file://host/tmp/x", "names the host 'host'"),
        ("file:relative", "no absolute path"),
        ("file:///x/exp#2", "%23"),
        ("file:///x/q?x", "%3F"),
        ("file:///x/100%", "%25"),
        ("file:///x/%00y", "is no folder"),
        ("~nobody-of-this-name/x", "no such user"),
        ("", "is no folder"),
        ("/x/new\nline", "is no folder"),
        ("ftp://host/x", "scheme 'ftp'"),
        ("gs:///x", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket/x", "is no bucket's name"),
        ("s3://bucket#1/x", "is no bucket's name"),
        ("s3://Bucket/x", "is no bucket's name"),
        ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/../b", "dotted part"),
        ("s3://bucket/a\tb", "control character"),
        ("az://bucket/a//b", "empty part"),
    ],
)
def test_an_address_that_could_mean_another_place_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="store =") as caught:
        open_store(url)
    assert problem in str(caught.value)
    assert caught.value.remedy


def test_nothing_of_a_bucket_s_address_is_escaped() -> None:
    assert bucket_of("s3://bucket/exp#1") == ("bucket", "exp#1")
    assert bucket_of("s3://bucket/q?x/100%25/~y/") == ("bucket", "q?x/100%25/~y")
    assert bucket_of("s3://bucket") == bucket_of("s3://bucket/") == ("bucket", "")
    assert scheme_of("S3://bucket") == "s3"
    assert scheme_of("s3:bucket") == scheme_of("/x/s3://y") == ""
