"""Arrays come out of pickles of every protocol; nothing else does, and nothing is executed."""

import collections
import io
import os
import pickle

import numpy as np
import pytest

from fmaml.data.files.pickles import read_pickle
from fmaml.errors import Error

HARMLESS = {
    "image_data": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "big-endian": np.array([1, 258], ">i4"),
    "names": np.array(["ab", "c"]),
    "one": np.int64(7),
    "class_dict": {"n01": [0, 1], "n02": (2, 3.5, None, True, b"x", "é")},
}


def put(tmp_path, content):
    path = tmp_path / "some.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_of_every_protocol(tmp_path, protocol):
    content = pickle.dumps(HARMLESS, protocol)
    found, trusted = read_pickle(put(tmp_path, content)), pickle.loads(content)
    assert found.keys() == HARMLESS.keys()
    for name in ("image_data", "turned", "big-endian", "names"):
        np.testing.assert_array_equal(found[name], HARMLESS[name])
        assert found[name].dtype == trusted[name].dtype
    assert found["one"] == 7
    assert found["class_dict"] == HARMLESS["class_dict"]


def test_a_pickle_of_python_2_with_the_names_of_old_numpy(tmp_path):
    """Byte strings are text then, and NumPy's functions lived elsewhere."""
    program = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87"
        b"Rq\x04(K\x01K\x02K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\x00tb\x89U\x04\x01\x02\x80\xfftbs."
    )
    expected = np.array([[1, 2], [128, 255]], np.uint8)
    np.testing.assert_array_equal(read_pickle(put(tmp_path, program))["data"], expected)
    np.testing.assert_array_equal(pickle.loads(program, encoding="latin1")["data"], expected)  # as NumPy has it


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(trap):
    yield "a command", Calls(os.system, f"touch {trap}")
    yield "code", Calls(exec, f"open({str(trap)!r}, 'w')")
    yield "within an array", {"image_data": np.array([Calls(os.mkdir, str(trap))], dtype=object)}
    yield "a file", Calls(open, str(trap), "w")
    yield "an array from a file", Calls(np.fromfile, "/dev/zero")
    yield "a class of some library", collections.Counter("abc")
    yield "an attribute", Calls(getattr, "", "join")
    yield "references", np.array([None, 1], dtype=object)
    yield "records with references", np.zeros(2, dtype=[("a", "O")])


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_else_is_refused_and_nothing_executed(tmp_path, protocol):
    trap = tmp_path / "trap"
    for fault, content in hostile(trap):
        path = put(tmp_path, pickle.dumps(content, protocol))
        with pytest.raises(
            Error, match=r"some\.pkl: .*\(it (asks for|has an array of type) .*None of its code was run"
        ):
            read_pickle(path)
        assert not trap.exists(), fault


def test_the_trap_is_real(tmp_path):
    """What is refused above does its work where it is not."""
    _, bomb = next(hostile(tmp_path / "trap"))
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "trap").exists()


def test_arrays_are_not_built_from_flags_of_the_file(tmp_path):
    """Types whose state says that numbers are references: NumPy believes it, and crashes."""
    for code in ("O", "V8", "O8"):
        program = f"cnumpy\ndtype\n(S'{code}'\nI0\nI1\ntR.".encode()
        with pytest.raises(Error):
            read_pickle(put(tmp_path, program))


def test_a_damaged_pickle_is_one_message(tmp_path):
    whole = pickle.dumps(HARMLESS, 4)
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:-1], b"\x80\x04" + bytes(50), b"cos"):
        with pytest.raises(Error, match=r"some\.pkl: .*copy or download it again"):
            read_pickle(put(tmp_path, content))


def test_a_persistent_object_is_refused(tmp_path):
    class Outside(pickle.Pickler):
        def persistent_id(self, obj):
            return "elsewhere" if obj == 7 else None

    Outside(file := io.BytesIO(), 2).dump([7])
    with pytest.raises(Error, match="persistent id"):
        read_pickle(put(tmp_path, file.getvalue()))


@pytest.mark.parametrize("name", ["__new__", "__defaults__", "__code__"])
def test_a_pickle_does_not_change_what_the_next_one_means(tmp_path, name):
    text = b"X" + len(name).to_bytes(4, "little") + name.encode()
    with pytest.raises(Error, match="None of its code was run"):
        read_pickle(put(tmp_path, b"\x80\x02c_codecs\nencode\nN}" + text + b"cnumpy\nndarray\ns\x86b."))
    found = read_pickle(put(tmp_path, pickle.dumps(HARMLESS, 2)))
    np.testing.assert_array_equal(found["image_data"], HARMLESS["image_data"])
    assert found["class_dict"] == HARMLESS["class_dict"]


def test_of_the_state_of_a_type_only_the_order_of_its_bytes_is_taken(tmp_path):
    """NumPy itself would believe that the numbers are references, and follow them."""
    program = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n(X\x02\x00\x00\x00i8K\x00K\x01tR"
        b"(K\x03X\x01\x00\x00\x00>NNNK\x08K\x08K?tbC\x08\x00\x00\x00\x00\x00\x00\x00\x07\x86R."
    )
    assert read_pickle(put(tmp_path, program)) == 7
