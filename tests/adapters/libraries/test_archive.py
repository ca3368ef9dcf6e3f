"""The archive that models travel in: what goes in comes out, and nothing else gets in."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass

from nightshift.adapters.errors import ConfigurationError, SerializationFailed
from nightshift.adapters.models.archive import (
    SETTINGS,
    ArchivedModel,
    pack,
    read_folder,
    unpack,
    write_folder,
)

part = st.text(st.characters(codec="utf-8", exclude_characters="/\\:\0"), min_size=1, max_size=8)
name = st.lists(part.filter(lambda text: text not in {".", ".."}), min_size=1, max_size=3).map(
    "/".join
)


def zipped(*members: tuple[Any, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


@given(members=st.dictionaries(name, st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_unpacked(members: dict[str, bytes]) -> None:
    data = pack(members)
    assert unpack(data) == members
    assert pack(dict(reversed(members.items()))) == data


@pytest.mark.parametrize(
    "bad",
    ["../evil", "a/../../evil", "/etc/evil", "a//b", "", "folder/", "./a", "C:evil", "a\\..\\b"],
)
def test_a_name_that_leads_elsewhere_is_refused(bad: str) -> None:
    with pytest.raises(SerializationFailed) as caught:
        pack({bad: b""})
    assert repr(bad) in str(caught.value)
    with pytest.raises(SerializationFailed, match="does not stay inside"):
        unpack(zipped((zipfile.ZipInfo(bad), b"")))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(SerializationFailed, match="'a' comes twice"):
        unpack(zipped(("a", b"1"), ("a", b"2")))


def test_a_bomb_does_not_inflate() -> None:
    bomb = zipped(("a", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(SerializationFailed, match=r"more than .* bytes"):
        unpack(bomb)
    with pytest.raises(SerializationFailed, match="more than 1,000,000 bytes"):
        unpack(bomb, max_bytes=1_000_000)


def test_a_bomb_that_lies_about_its_size_does_not_inflate() -> None:
    """The true size of a member, 50 MB, is overwritten by 10 wherever it is declared."""
    size = 50_000_000
    bomb = zipped(("a", bytes(size)), compression=zipfile.ZIP_DEFLATED)
    true, false = size.to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert bomb.count(true) == 2
    with pytest.raises(SerializationFailed):
        unpack(bomb.replace(true, false))


def test_many_names_for_one_content_are_counted_each() -> None:
    """Members that overlap: 100 names in the directory for the same stored bytes."""
    data = bytearray(zipped(("a", bytes(10_000))))
    end = data.rindex(b"PK\x05\x06")
    start = data.rindex(b"PK\x01\x02")
    entries = [bytes(data[start:end]).replace(b"a", bytes([code])) for code in range(35, 90)]
    directory = b"".join(entry for entry in entries if b"/" not in entry and b":" not in entry)
    count = (len(directory) // (end - start)).to_bytes(2, "little")
    tail = bytearray(data[end:])
    tail[8:10] = tail[10:12] = count
    tail[12:16] = len(directory).to_bytes(4, "little")
    with pytest.raises(SerializationFailed):
        unpack(bytes(data[:start]) + directory + bytes(tail))


def test_content_that_was_changed_is_refused() -> None:
    data = pack({"a": b"some content"})
    with pytest.raises(SerializationFailed, match="Bad CRC-32"):
        unpack(data.replace(b"some content", b"same content"))


@pytest.mark.parametrize("data", [b"", b"what is this", pack({"a": b"b"})[:-5]])
def test_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(SerializationFailed):
        unpack(data)


def test_a_folder_is_read_and_written(tmp_path: Path) -> None:
    members = {"a": b"1", "deep/er/b": b"2"}
    write_folder(members, tmp_path / "there")
    assert read_folder(tmp_path / "there") == members


# --- a model in it ------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Echo(ArchivedModel):
    text: bytes
    times: int = 1
    names: tuple[str, ...] | None = None

    def predict_batch(self, features: Any) -> Any:
        raise AssertionError

    def files(self) -> Mapping[str, bytes]:
        return {"echo.txt": self.text}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return files["echo.txt"]


def test_settings_travel_with_the_model() -> None:
    data = Echo(b"hello", 3, ("a", "b")).serialize()
    assert json.loads(unpack(data)[SETTINGS]) == {"times": 3, "names": ["a", "b"]}
    again = Echo.deserialize(data)
    assert (again.text, again.times, again.names) == (b"hello", 3, ("a", "b"))
    assert again.serialize() == data
    assert not Echo.pickled


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"times": "many"}, "times"), ({"time": 3}, "time"), ({"names": [1]}, "names")],
)
def test_settings_that_are_not_the_adapters_are_refused(
    settings: dict[str, Any], field: str
) -> None:
    data = pack({"echo.txt": b"", SETTINGS: json.dumps(settings).encode()})
    with pytest.raises(ConfigurationError) as caught:
        Echo.deserialize(data)
    assert (caught.value.place, caught.value.field) == ("Echo", field)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"echo.txt": b""},
        {SETTINGS: b"{}"},
        {"echo.txt": b"", SETTINGS: b"{"},
        {"echo.txt": b"", SETTINGS: b"[]"},
        {"echo.txt": b"", SETTINGS: b"\xff"},
    ],
)
def test_an_archive_without_its_parts_is_no_model(members: dict[str, bytes]) -> None:
    with pytest.raises(SerializationFailed, match="Echo"):
        Echo.deserialize(pack(members))


def test_what_the_library_cannot_write_is_reported_with_its_cause() -> None:
    class Broken(Echo):
        def files(self) -> Mapping[str, bytes]:
            raise RuntimeError("not trained")

    with pytest.raises(SerializationFailed, match="RuntimeError: not trained") as caught:
        Broken(b"").serialize()
    assert isinstance(caught.value.__cause__, RuntimeError)
