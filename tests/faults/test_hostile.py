"""Archives made to do harm: none writes anything, none takes over 2 s or 200 MB, each is told in one line."""

import gzip
import io
import os
import pickle
import resource
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import fork, wait
from PIL import Image

from fmaml.data.dataset_facts import class_names
from fmaml.data.images import cifar100_files, omniglot_files
from fmaml.data.preprocessing import Form
from fmaml.data.sources import mini_imagenet, udhr
from fmaml.errors import Error
from fmaml.models.user_images import Shape, to_inputs

CHARACTER = "images_background/Greek/character01"
ZEROS = bytes(10**6)


def png(side: int = 105) -> bytes:
    Image.new("1", (side, side), 1).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


def zipped(members: Mapping[str, bytes | tuple[zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(*(content if isinstance(content, tuple) else (name, content)))
    return file.getvalue()


def link(name: str, to: str) -> dict:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return {name: (info, to.encode())}


def one_character(more: dict | None = None, prefix: str = "") -> bytes:
    """All that `omniglot_files.read_drawings` wants, and then something."""
    return zipped({f"{prefix}{CHARACTER}/{i:02}.png": png() for i in range(20)} | (more or {}))


def lying(content: bytes, size: int) -> bytes:
    """The first member of the zip has so many bytes, its headers say."""
    changed = bytearray(content)
    for sign, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", changed, changed.index(sign) + offset, size)
    return bytes(changed)


def many_entries(count: int) -> bytes:
    """A directory of ``count`` names for one and the same member."""
    whole = zipped({"x": b"x"})
    start = whole.index(b"PK\x01\x02")
    entry, end = whole[start : whole.index(b"PK\x05\x06")], whole[whole.index(b"PK\x05\x06") :]
    tail = bytearray(end)
    struct.pack_into("<HHII", tail, 8, count & 0xFFFF, count & 0xFFFF, len(entry) * count, start)
    return whole[:start] + entry * count + bytes(tail)


def hostile_zips(trap: Path) -> Iterator[tuple[str, bytes]]:
    """Each has the right drawings or the right text among other things, or in their place."""
    first = f"{CHARACTER}/00.png"
    yield "names that climb", one_character({f"../../../../{trap}": b"x"})
    yield "an absolute name", one_character({str(trap): b"x"})
    yield "a drive and backslashes", one_character({"C:\\Windows\\x": b"x", "..\\..\\x": b"x"})
    yield "drawings that climb", one_character(prefix="../" * 9)
    yield "a link to a file", one_character(link(first, "/etc/passwd"))
    yield "a link out, and a file through it", one_character(link("out", str(trap.parent)) | {"out/trap": b"x"})
    yield "a name in another case", one_character({first.upper(): b"x", "IMAGES_BACKGROUND/x": b"x"})
    yield "a drawing of 250 MB", one_character({first: ZEROS * 250})
    yield "250 MB beside the drawings", one_character({"beside": ZEROS * 250})
    yield (
        "a drawing of 10^10 pixels",
        one_character({first: png().replace(b"\0\0\0i\0\0\0i", b"\0\1\x86\xa0\0\1\x86\xa0")}),
    )
    yield "a size that is a lie", lying(one_character({first: ZEROS}), 100)
    yield "100,000 names", many_entries(100_000)
    yield "a million names", many_entries(1_000_000)
    yield "a zip in the place of a drawing", one_character({first: zipped({"x": ZEROS})})
    for name, method, zeros in (("bzip2", zipfile.ZIP_BZIP2, 250), ("lzma", zipfile.ZIP_LZMA, 1)):
        content = zipped({first: ZEROS * zeros} | {f"{CHARACTER}/{i:02}.png": png() for i in range(1, 20)}, method)
        yield f"a size that is a lie, by {name}", lying(content, 400)


def hostile_texts(trap: Path) -> Iterator[tuple[str, bytes]]:
    names = {f"udhr2/{name}.txt": b"text" for name in class_names("udhr", "val")}
    first = next(iter(names))
    yield "a text of 250 MB", zipped({**names, first: ZEROS * 250})
    yield (
        "a text whose size is a lie",
        lying(zipped({first: ZEROS, **{name: b"" for name in names if name != first}}), 9),
    )
    yield "a million names", many_entries(1_000_000)
    yield "a text that climbs", zipped({f"../../{trap}/{name}": content for name, content in names.items()})


def tarred(*members: tuple[tarfile.TarInfo, bytes], level: int = 1) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=level) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "", content: bytes = b"x") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info, content if kind == tarfile.REGTYPE else b""


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def gigabytes(beginning: bytes, count: int) -> bytes:
    """Compressed: a gzip file may be several, one after the other."""
    return gzip.compress(beginning) + 1000 * count * gzip.compress(ZEROS)


def hostile_tars(trap: Path) -> Iterator[tuple[str, bytes]]:
    wanted = [f"cifar-100-python/{name}" for name in ("train", "test", "meta")]
    rest = [member(name) for name in wanted[1:]]
    yield "names that climb", tarred(member(f"../../../../{trap}"), *map(member, wanted))
    yield "an absolute name", tarred(member(str(trap)), *map(member, wanted))
    yield "a link to a file", tarred(member(wanted[0], tarfile.SYMTYPE, "/etc/passwd"), *rest)
    yield "a hard link to a file", tarred(member(wanted[0], tarfile.LNKTYPE, "/etc/passwd"), *rest)
    circle = zip(wanted, [*wanted[1:], wanted[0]], strict=True)
    yield "links in a circle", tarred(*(member(name, tarfile.LNKTYPE, to) for name, to in circle))
    yield (
        "a link out, and a file through it",
        tarred(member("out", tarfile.SYMTYPE, str(trap.parent)), member("out/trap"), *map(member, wanted)),
    )
    yield "a device", tarred(member(wanted[0], tarfile.CHRTYPE), *rest)
    yield "a pipe that nobody writes", tarred(member(wanted[0], tarfile.FIFOTYPE), *rest)
    yield "ten gigabytes", gigabytes(header(wanted[0], 10**10), 10)
    yield "ten gigabytes beside", gigabytes(header("beside", 10**10), 10)
    yield "ten gigabytes of header", gigabytes(header("pax", 10**10, tarfile.XHDTYPE), 10)
    yield "ten gigabytes of a long name", gigabytes(header("name", 10**10, tarfile.GNUTYPE_LONGNAME), 10)
    yield "less than nothing", gzip.compress(header(wanted[0], 5)[:124] + b"\xff" * 12 + header(wanted[0], 5)[136:])
    yield "a million names", gzip.compress(header("x", 0)) * 1_000_000
    yield "no tar", gzip.compress(b"\xff" * 10**5)


def hostile_pickles(trap: Path) -> Iterator[tuple[str, bytes]]:
    laughs = b"]q\x00" + b"".join(b"](h%bh%beq%b" % (bytes([i]), bytes([i]), bytes([i + 1])) for i in range(60))
    tuples = b")q\x00" + b"".join(b"h%bh%b\x86q%b" % (*[bytes([i])] * 2, bytes([i + 1])) for i in range(60))
    of_one_hash = (b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"N" for i in range(1, 60_001))
    yield "a list of lists of lists, each used twice", b"\x80\x02" + laughs + b"."
    yield "the same, tupled", b"\x80\x02" + tuples + b"."
    yield "the same as a key", b"\x80\x02}(" + tuples + b"K\x01u."
    yield "the same as a key from the beginning", b"(" + tuples + b"K\x01d."
    yield "the same in a set", b"\x80\x04\x8f(" + tuples + b"\x90."
    yield "the same in a frozen set", b"\x80\x04(" + tuples + b"\x91."
    yield "the same as a type", b"\x80\x02cnumpy\ndtype\n(" + tuples + b"tR."
    yield "the same as rows", b"\x80\x02}(X\x0a\x00\x00\x00class_dict}X\x01\x00\x00\x00a" + tuples + b"su."
    yield "a tuple 100,000 deep as a key", b"\x80\x02}()" + b"\x85" * 100_000 + b"K\x01u."
    yield "60,000 numbers of one hash", b"\x80\x02}(" + b"".join(of_one_hash) + b"u."
    yield "state for a name", b"\x80\x02c_codecs\nencode\nN}X\x07\x00\x00\x00__new__cnumpy\nndarray\ns\x86b."
    yield "numbers that are references", b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R."
    yield "a thing with the number 2^32 - 1", b"\x80\x02]r\xff\xff\xff\xff."
    yield "a thing with the number 10^18", b"]p" + b"1" + b"0" * 18 + b"\n."
    yield "text of 2^62 bytes", b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x."
    yield "bytes of 40 gigabytes", b"\x80\x05\x96" + (40 * 10**9).to_bytes(8, "little") + b"x."
    yield "a number of 2^31 bytes", b"\x80\x02\x8b\xff\xff\xff\x7fx."
    yield "nested a million deep", b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."
    yield "a list in itself", b"\x80\x02]q\x00h\x00a."
    yield (
        "an array of 10^18 numbers",
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1000000000000000000\nt"
            b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntRI00\nS''\ntb."
        ),
    )
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
    again = b"cnumpy.core.multiarray\nscalar\nq\x00cnumpy\ndtype\nX\x08\x00\x00\x00S1000000\x85R" + text + b"\x86q\x01R"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)Rh\x01b"
    state = b"(K\x01J@B\x0f\x00\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85RK\x00" + text + b"tq\x01"
    yield (
        "text encoded 3,000 times",
        b"\x80\x02](c_codecs\nencode\nq\x00" + text + b"\x85q\x01R" + b"h\x00h\x01R" * 3000 + b"e.",
    )
    yield "a scalar made 3,000 times", b"\x80\x02](" + again + b"h\x00h\x01R" * 3000 + b"e."
    yield "an array made 3,000 times", b"\x80\x02](" + state + array * 3000 + b"e."
    yield (
        "a type of a million fields",
        b"\x80\x02cnumpy\ndtype\nX" + struct.pack("<I", 3 * 10**6) + b"u1," * 10**6 + b"\x85R.",
    )
    yield "a program", pickle.dumps(Runs(trap), 0)


def tiff_with_tile(side: int) -> bytes:
    """A TIFF of 100 x 100 pixels in one tile of side² pixels."""
    content = zlib.compress(ZEROS)
    tags = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 134, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def hostile_pictures(trap: Path) -> Iterator[tuple[str, bytes]]:
    """Each is small, and larger when decoded."""

    def picture(mode: str, size: tuple[int, int], kind: str = "PNG", **options: Any) -> bytes:
        Image.new(mode, size).save(file := io.BytesIO(), kind, **options)
        return file.getvalue()

    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({trap}) (w) file closefile\n%%EOF\n".encode()
    yield "a program for Ghostscript", program
    yield "the same in a binary EPS", b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(program)) + bytes(20) + program
    yield "150 million pixels, PNG", picture("1", (15_000, 10_000))
    yield "26 million pixels with a palette, GIF", picture("P", (5_200, 5_000), "GIF")
    yield "26 million transparent pixels, WebP", picture("RGBA", (5_200, 5_000), "WEBP")
    yield "26 million pixels, TIFF", picture("L", (5_200, 5_000), "TIFF", compression="tiff_adobe_deflate")
    yield "one tile of 1.6 billion pixels", tiff_with_tile(40_000)
    yield "a strip of 2 million pixels", picture("L", (2_000_000, 1))
    yield "120 million pixels, JPEG", picture("L", (12_000, 10_000), "JPEG")
    yield "the same, progressive", picture("L", (12_000, 10_000), "JPEG", progressive=True)
    yield "more pixels than Pillow opens", picture("1", (20_000, 10_000))


class Runs:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self):
        return os.mkdir, (str(self.trap),)


def read_zip(path: Path) -> None:
    omniglot_files.read_drawings([path], [CHARACTER])


def read_texts(path: Path) -> None:
    udhr.read_udhr_files(path, class_names("udhr", "val"))


def read_picture(path: Path) -> None:
    to_inputs(path, Shape((3, 84, 84), Form(84, 3)))


READERS: dict[str, tuple[str, int, Callable[[Path], Iterator[tuple[str, bytes]]], Callable[[Path], object]]] = {
    "zip of drawings": ("images_background.zip", 16, hostile_zips, read_zip),
    "zip of texts": ("udhr2.zip", 4, hostile_texts, read_texts),
    "tar": (cifar100_files.CIFAR100_ARCHIVE, 15, hostile_tars, cifar100_files.read_cifar100_files),
    "pickle": ("some.pkl", 25, hostile_pickles, mini_imagenet.read_cache),
    "picture": ("a.png", 11, hostile_pictures, read_picture),
}
READABLE = {  # what stands beside the drawings is not looked at, and a name is no place to write to
    "names that climb",
    "an absolute name",
    "a drive and backslashes",
    "drawings that climb",
    "a link out, and a file through it",
    "a name in another case",
    "250 MB beside the drawings",
}


@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_archive_is_told_at_once_in_one_line_and_does_nothing(tmp_path, reader):
    name, count, hostile, read = READERS[reader]
    trap, log = tmp_path / "trap", tmp_path / "log"
    (tmp_path / "in").mkdir()
    path, faults = tmp_path / "in" / name, []
    for fault, content in hostile(trap):
        path.write_bytes(content)
        faults.append(fault)

        def work(fault: str = fault) -> int:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            begun = time.process_time()
            said = ""
            try:
                read(path)
            except Error as error:
                said = str(error)
            seconds = time.process_time() - begun
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux
            assert said or fault in READABLE, "it was taken"
            assert not said or reader == "zip of drawings" or said.startswith(str(path)), said
            assert said.count("\n") == 0, said
            assert len(said) < 600, said
            assert seconds < 2, seconds
            assert grown < 200 * 1024, grown
            return 0

        assert wait(fork(work, None, log)) == 0, (fault, log.read_text())
        assert {entry.name for entry in tmp_path.iterdir()} <= {"in", "log"}, fault
        assert os.listdir(path.parent) == [name], fault
    assert len(faults) == count
