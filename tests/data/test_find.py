"""The order in which folders are searched."""

from pathlib import Path

import pytest

from fmaml.data.files.find import DataFiles, find_data, missing, search_folders
from fmaml.errors import Error
from fmaml.files.cache_folder import cache_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, and no data anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FMAML_DATA", raising=False)
    return tmp_path


def locate(folder):
    """Data is a file called data."""
    return folder / "data" if (folder / "data").is_file() else None


def put(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").touch()
    return folder / "data"


def test_the_cache_folder(home, monkeypatch):
    assert cache_folder() == home / "cache" / "fmaml"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == home / "home" / ".cache" / "fmaml"


def test_places_in_order(home, monkeypatch):
    cache = home / "cache" / "fmaml"
    assert search_folders(None, ["name"]) == [cache, cache / "name"]
    monkeypatch.setenv("FMAML_DATA", "~/env")
    env = home / "home" / "env"
    assert search_folders(None, ["name"]) == [env, env / "name", cache, cache / "name"]
    assert search_folders("~/root", ["name", "other"]) == [
        home / "home" / "root" / part for part in ("", "name", "other")
    ]


def test_the_first_place_that_has_it_wins(home, monkeypatch):
    monkeypatch.setenv("FMAML_DATA", str(home / "env"))
    assert find_data(locate, None, ["name"]) is None
    for folder in (home / "cache" / "fmaml" / "name", home / "env" / "name", home / "env"):
        expected = put(folder)  # ever earlier in the order
        assert find_data(locate, None, ["name"]) == expected


def test_a_root_that_was_asked_for_is_the_only_one(home, monkeypatch):
    monkeypatch.setenv("FMAML_DATA", str(home / "env"))
    put(home / "env")
    put(home / "cache" / "fmaml")
    assert find_data(locate, str(home / "root"), ["name"]) is None
    assert find_data(locate, str(home / "root"), ["name"]) != find_data(locate, None, ["name"])
    assert find_data(locate, str(home / "root"), ["name"]) is None
    expected = put(home / "root" / "name")
    assert find_data(locate, str(home / "root"), ["name"]) == expected


def test_the_error_names_the_places_what_was_expected_and_three_cures(home, monkeypatch):
    monkeypatch.setenv("FMAML_DATA", str(home / "env"))
    text = str(missing(DataFiles("Things", ("name",), "a file called data"), None))
    assert f"data.root is not set, FMAML_DATA is {home / 'env'}: no Things in" in text
    for part in (home / "env", home / "env" / "name", home / "cache" / "fmaml"):
        assert str(part) in text
    for part in ("a file called data", "data.root=FOLDER", "FMAML_DATA=FOLDER", "data.name=glyphs"):
        assert part in text
    given = str(missing(DataFiles("Things", (), "a file called data"), "there"))
    assert "data.root = there: no Things in there; expected" in given
    assert str(Path("cache") / "fmaml") not in given


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it is where nobody knows the user
    with pytest.raises(Error, match="no home folder to cache data in; set XDG_CACHE_HOME"):
        cache_folder()
