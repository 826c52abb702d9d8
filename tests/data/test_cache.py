"""A cached tensor is complete or made again."""

import os

import pytest
import torch
from safetensors.torch import load_file, save

from fmaml.data.files.cache import cached, cached_all, checksum, fingerprint
from fmaml.files import atomic as atomic_files

TENSOR = torch.arange(2000, dtype=torch.int64).to(torch.uint8).view(20, 100)


class Maker:
    """Makes the tensor, and counts how often."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return TENSOR.clone()


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "folder" / "some.safetensors"
    cached(path, Maker())
    return path


def test_it_is_made_once(kept):
    again = Maker()
    assert torch.equal(cached(kept, again), TENSOR)
    assert again.made == 0
    assert os.listdir(kept.parent) == [kept.name]


def damage(content):
    """Every kind of damage, each at several places."""
    n = len(content)
    for cut in (0, 1, 8, n // 2, n - 1):
        yield content[:cut]
    for at in (0, 7, 9, 30, n // 2, n - 1):
        yield content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
    yield content[: n // 2] + bytes(300) + content[n // 2 + 300 :]
    yield content + b"more"
    yield b"<html>"


def test_a_damaged_file_is_made_again_and_mended(kept):
    content = kept.read_bytes()
    for bad in damage(content):
        assert bad != content
        kept.write_bytes(bad)
        maker = Maker()
        assert torch.equal(cached(kept, maker), TENSOR)
        assert maker.made == 1
        assert kept.read_bytes() == content


def test_a_file_of_another_tensor_or_without_digest_is_made_again(kept):
    other = TENSOR + 1
    for file in (save({"tensor": other}), save({"tensor": other}, {"sha256": checksum(TENSOR)})):
        kept.write_bytes(file)
        maker = Maker()
        assert torch.equal(cached(kept, maker), TENSOR)
        assert maker.made == 1


def test_the_digest_covers_shape_type_and_values():
    variants = [
        TENSOR,
        TENSOR.flatten(),
        TENSOR.to(torch.int8),
        TENSOR.clone().index_fill_(0, torch.tensor(3), 0),
    ]
    assert len({checksum(variant) for variant in variants}) == 4
    assert checksum(TENSOR.mT) == checksum(TENSOR.mT.contiguous()) != checksum(TENSOR)


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    maker = Maker()
    assert torch.equal(cached(tmp_path / "file" / "some.safetensors", maker), TENSOR)
    assert maker.made == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "cannot write" in lines[0]


@pytest.mark.parametrize("point", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, point):
    path = tmp_path / "name"
    atomic_files.write_durably(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, point, full)
    with pytest.raises(OSError, match="No space"):
        atomic_files.write_durably(path, b"new")
    assert os.listdir(tmp_path) == ["name"]
    assert path.read_bytes() == b"old"


def test_a_write_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        done.append("folder" if os.path.isdir(f"/dev/fd/{handle}") else "file")
        fsync(handle)

    def renamed(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(atomic_files.os, "fsync", synced)
    monkeypatch.setattr(atomic_files.os, "replace", renamed)
    atomic_files.write_durably(tmp_path / "name", b"content")
    assert done == ["file", "rename", "folder"]


def test_nothing_is_pickled(kept):
    assert list(load_file(kept)) == ["tensor"]


def test_a_fingerprint_tells_facts_apart():
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("a", "1"), fingerprint(("a", 1))}) == 4


def test_several_tensors_are_kept_together_each_aligned(tmp_path):
    tensors = {"bytes": torch.arange(13, dtype=torch.uint8), "numbers": torch.tensor([3, -4])}
    cached_all(tmp_path / "some.safetensors", lambda: tensors)
    kept = cached_all(tmp_path / "some.safetensors", lambda: pytest.fail("makes them again"))
    assert {name: tensor.tolist() for name, tensor in kept.items()} == {"bytes": [*range(13)], "numbers": [3, -4]}
    assert kept["numbers"].data_ptr() % 8 == 0
    content = (tmp_path / "some.safetensors").read_bytes()
    for at in range(8, len(content), 7):
        damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        (tmp_path / "some.safetensors").write_bytes(damaged)
        again = cached_all(tmp_path / "some.safetensors", lambda: tensors)
        assert all(torch.equal(again[name], tensors[name]) for name in tensors)
        assert (tmp_path / "some.safetensors").read_bytes() == content
