"""The cache has a limit, and can be listed and cleared."""

import os
import time

import pytest
import torch

from fmaml.cli.main import main
from fmaml.data.files.cache import cached_all, write_tensors
from fmaml.data.files.cache_files import as_size, cache_files, limit
from fmaml.errors import Error

BYTES = torch.zeros(4_000_000, dtype=torch.uint8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FMAML_CACHE_LIMIT", "3 MB")
    (tmp_path / "fmaml").mkdir()
    return tmp_path / "fmaml"


def keep(cache, name, used=None, about=None, megabytes=0.9):
    path = cache / f"{name}.safetensors"
    write_tensors(path, {"x": BYTES[: int(megabytes * 1e6)]}, about)
    if used is not None and path.exists():
        os.utime(path, (used, used))
    return path


def names(cache):
    return {path.stem for path in cache.glob("*.safetensors")}


def test_what_was_used_the_longest_time_ago_makes_room(cache, capsys):
    paths = {name: keep(cache, name, used) for name, used in (("a", 100), ("b", 50), ("c", 200))}
    cached_all(paths["b"], lambda: pytest.fail("made again"))  # used now
    keep(cache, "d", time.time() + 10)
    assert names(cache) == {"b", "c", "d"}
    assert (
        "a.safetensors is deleted from the cache, which has at most 3.0 MB (FMAML_CACHE_LIMIT)"
        in capsys.readouterr().err
    )
    keep(cache, "e", megabytes=2)
    assert names(cache) == {"d", "e"}
    assert sum(file.size for file in cache_files(cache)) <= 3e6


def test_written_again_it_makes_no_other_file_go(cache):
    for name, used in (("a", 100), ("b", 50), ("c", 200)):
        keep(cache, name, used)
    keep(cache, "c")
    assert names(cache) == {"a", "b", "c"}


def test_what_is_larger_than_the_limit_is_not_kept_and_clears_nothing(cache, capsys, monkeypatch):
    keep(cache, "a", 100)
    monkeypatch.setenv("FMAML_CACHE_LIMIT", "950000")
    keep(cache, "b", megabytes=1)
    assert names(cache) == {"a"}
    assert "b.safetensors is not cached: it has 1.0 MB, the limit is 950.0 kB; raise it by FMAML_CACHE_LIMIT" in (
        capsys.readouterr().err
    )


def test_downloads_splits_and_others_files_are_never_deleted(cache):
    others = [cache / "images_background.zip", cache / "splits" / "a.json", cache / "tests" / "b.jsonl"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 10)
    for name in "abcdef":
        keep(cache, name)
    assert len(names(cache)) == 3
    assert main(["cache", "clear", "--all"]) == 0
    assert names(cache) == set()
    assert all(path.exists() for path in others)


def test_the_list_says_what_size_and_when(cache, capsys):
    keep(cache, "folder-1", 0, "/photos, 84 px, colour, crop")
    keep(cache, "omniglot-2", 86400 * 365)
    (cache / "broken.safetensors").write_bytes(b"junk")
    assert main(["cache"]) == 0
    head, broken, omniglot, photos = capsys.readouterr().out.splitlines()
    assert head == f"{cache}: 1.8 MB of at most 3.0 MB (FMAML_CACHE_LIMIT)"
    assert broken.split()[:4] == ["broken", "4", "B", "used"]
    assert "made again" in broken
    assert omniglot.startswith("  omniglot-2  900.2 kB  used 19")
    assert photos.endswith("  /photos, 84 px, colour, crop")


def test_clear_by_name(cache, capsys):
    keep(cache, "a")
    keep(cache, "b")
    assert main(["cache", "clear", "a"]) == 0
    assert capsys.readouterr().out == "cleared 1 file, 900.2 kB\n"
    assert names(cache) == {"b"}
    assert main(["cache", "clear", "b", "c"]) == 2
    assert "cache clear c: no such file in " in capsys.readouterr().err
    assert names(cache) == {"b"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clear"], "cache clear: give the names that `fmaml cache` lists, or --all"),
        (["clear", "--all", "a"], "cache clear: give the names"),
        (["list", "a"], "cache list: takes no names"),
        (["--all"], "cache list: takes no names; to delete, write `fmaml cache clear"),
        (["empty"], "invalid choice: 'empty'"),
    ],
)
def test_a_wrong_word_is_one_line_and_deletes_nothing(cache, capsys, words, message):
    keep(cache, "a")
    assert main(["cache", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert names(cache) == {"a"}


def test_no_cache_yet(cache, capsys):
    cache.rmdir()
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{cache}: 0 B of at most 3.0 MB (FMAML_CACHE_LIMIT)\n"
    assert main(["cache", "clear", "--all"]) == 0
    assert not cache.exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("5G", 5 * 10**9), ("5 gb", 5 * 10**9), ("700", 700), ("1k", 1000), ("", 10**10), ("2T", 2 * 10**12)],
)
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("FMAML_CACHE_LIMIT", text)
    assert limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "1.5.G", "5P", "5G5"])
def test_what_is_no_size_is_named(monkeypatch, text):
    monkeypatch.setenv("FMAML_CACHE_LIMIT", text)
    with pytest.raises(Error, match=r"FMAML_CACHE_LIMIT = .*: not a size; give a number of bytes, such as"):
        limit()


def test_sizes_as_people_read_them():
    assert [as_size(size) for size in (0, 999, 1000, 105_800_000, 10**10)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "105.8 MB",
        "10.0 GB",
    ]
