"""Downloads against a local server that cuts, lies, stalls and refuses; archives that try to leave their folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings, strategies as st
from open_i_server import archive_of, etag_of, open_i, serve, serving, tgz

from cmlr_utils.course.cli import main
from cmlr_utils.data import download as module, studies as studies_module
from cmlr_utils.data.download import download_iu_rr, extract, fetch
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.reports import read_reports
from cmlr_utils.data.studies import load_iu_rr

CONTENT = module.GZIP + random.Random(1).randbytes(1_000_000)
OTHER = module.GZIP + random.Random(2).randbytes(900_000)
fetch_quickly = partial(fetch, timeout=0.3, wait=0.001)


def cut(at, **more):
    return partial(serve, cut=at, **more)


def answer(status, body=b"", **headers):
    def answering(handler):
        handler.head(status, **{"Content_Length": len(body)} | headers)
        handler.body(body)

    return answering


def silent(handler):
    time.sleep(0.6)


def stalling(handler):
    handler.head(200, Content_Length=len(CONTENT), ETag=etag_of(CONTENT))
    handler.body(CONTENT[:300_000])
    handler.wfile.flush()
    time.sleep(0.6)
    handler.close_connection = True


def chunked(handler, end=None):
    handler.head(200, Transfer_Encoding="chunked")
    for i in range(0, len(CONTENT[:end]), 100_000):
        block = CONTENT[:end][i : i + 100_000]
        handler.body(b"%x\r\n%b\r\n" % (len(block), block))
    if end is None:
        handler.body(b"0\r\n\r\n")
    else:
        handler.close_connection = True


def redirected(handler):
    handler.head(302, Location="/elsewhere.tgz", Content_Length=0)


def changed_after(at):
    def answering(handler):
        serve(handler, cut=at)
        handler.server.files["/a.tgz"] = OTHER

    return answering


def a_date(handler, **more):
    serve(handler, ETag='W/"weak"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT", **more)


@pytest.mark.parametrize(
    "answers, requests",
    [
        ([], 1),
        ([cut(0)], 2),
        ([cut(500_000), cut(100_000, reset=True), cut(1)], 4),
        ([partial(serve, cut=400_000, ranges=False)] * 2 + [partial(serve, ranges=False)], 3),  # 200 instead of 206
        ([partial(serve, Content_Length=2_000_000, cut=-1)], 3),  # too long: the rest does not come
        ([answer(503), answer(500), cut(10), answer(502)], 5),
        ([answer(429, Retry_After=0)], 2),
        ([answer(503, Retry_After="Mon, 01 Jan 2024 00:00:00 GMT")], 2),
        ([answer(503, Retry_After="soon")], 2),
        ([silent], 2),
        ([stalling], 2),
        ([redirected, cut(700_000), redirected], 4),
        ([chunked], 1),
        ([partial(chunked, end=500_000)], 3),  # without a length nothing can be resumed
        ([cut(500_000), answer(416, Content_Range="bytes */7")], 3),
        ([cut(500_000), answer(206, CONTENT[:10], Content_Range=f"bytes 0-9/{len(CONTENT)}")], 3),
        ([cut(500_000), partial(serve, ETag='"other"')], 3),  # ignores If-Range, and the file has changed
        ([partial(a_date, cut=500_000), a_date], 2),
    ],
    ids=lambda value: None if isinstance(value, int) else "",
)
def test_a_bad_server_still_ends_in_the_same_bytes(tmp_path, answers, requests):
    with serving({"/a.tgz": CONTENT, "/elsewhere.tgz": CONTENT}, *answers) as server:
        fetch_quickly(f"{server.url}/a.tgz", tmp_path / "a.tgz")
        assert len(server.requests) == requests
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "a.tgz.json"]


def test_twenty_cuts_end_in_identical_bytes_and_are_resumed(tmp_path):
    cuts = [random.Random(3).randrange(40_000) for _ in range(20)]
    with serving({"/a.tgz": CONTENT}, *map(cut, cuts)) as server:
        fetch_quickly(f"{server.url}/a.tgz", tmp_path / "a.tgz")
        assert len(server.requests) == 21 and server.sent == len(CONTENT)  # nothing was sent twice
        assert [r["Range"] for r in server.requests[1:]] == [f"bytes={sum(cuts[: i + 1])}-" for i in range(20)]
        assert all(r["If-Range"] == etag_of(CONTENT) for r in server.requests[1:])
    assert hashlib.sha256((tmp_path / "a.tgz").read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


def test_a_file_that_changes_between_attempts_is_fetched_from_its_start(tmp_path):
    with serving({"/a.tgz": CONTENT}, changed_after(500_000)) as server:
        fetch_quickly(f"{server.url}/a.tgz", tmp_path / "a.tgz")
    assert (tmp_path / "a.tgz").read_bytes() == OTHER


def test_another_address_begins_anew_and_the_same_one_is_not_asked_twice(tmp_path):
    with serving({"/a.tgz": CONTENT, "/b.tgz": OTHER}, cut(500_000), answer(404)) as server:
        with pytest.raises(CourseError):
            fetch_quickly(f"{server.url}/a.tgz", tmp_path / "x")
        for _ in range(2):
            fetch_quickly(f"{server.url}/b.tgz", tmp_path / "x")
        assert len(server.requests) == 3 and "Range" not in server.requests[2]
    assert (tmp_path / "x").read_bytes() == OTHER


LATER = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    "answers, requests, message",
    [
        ([answer(404)], 1, r"refused \(404 Not Found\): see with a browser .*--from"),
        ([answer(403)], 1, r"refused \(403 Forbidden\)"),
        ([answer(206, CONTENT[:9])], 1, r"refused \(206"),
        (
            [answer(503)] * 9,
            3,
            r"could not be fetched \(the server answers 503 Service Unavailable\): check the network",
        ),
        ([cut(10)] + [answer(503)] * 9, 8, "503"),
        ([answer(503, Retry_After=3600)], 1, r"503.*run again, which keeps what has arrived"),
        ([answer(429, Retry_After=LATER)], 1, "429"),
        ([silent] * 9, 3, r"\(Read timed out"),
        ([partial(serve, cut=99, ranges=False)] * 99, 8, "Connection broken|ended early"),  # never gets any further
        ([partial(serve, Content_Length=2_000_000, cut=-1)] * 99, 8, "changed|Connection broken"),
        ([redirected] * 99, 0, "redirects"),
        ([answer(200, b"<html>Please log in", Content_Type="text/html")], 1, "sends text/html, not a gzip archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_does_not_deliver_is_explained(tmp_path, answers, requests, message):
    with serving({"/a.tgz": CONTENT, "/elsewhere.tgz": CONTENT}, *answers) as server:
        with pytest.raises(CourseError, match=message) as caught:
            fetch_quickly(f"{server.url}/a.tgz", tmp_path / "a.tgz")
        assert len(server.requests) == requests or not requests
    assert "\n" not in str(caught.value) and server.url in str(caught.value) and not (tmp_path / "a.tgz").exists()


@pytest.mark.parametrize("url", ["nonsense", "ftp://a/b", "http://", "http://[", "https://exa mple:x/a"])
def test_an_address_that_is_none_is_explained(tmp_path, url):
    with pytest.raises(CourseError, match="is not an address to fetch from"):
        fetch_quickly(url, tmp_path / "a.tgz")


def test_a_full_disk_is_explained_before_and_during_and_the_rest_comes_later(tmp_path, monkeypatch, largest_file):
    target = tmp_path / "a.tgz"
    with serving({"/a.tgz": CONTENT}) as server:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 10**6))
            with pytest.raises(CourseError, match="needs 2 MB and its disk has 1 MB free"):
                fetch_quickly(f"{server.url}/a.tgz", target)
        with largest_file(400_000), pytest.raises(CourseError, match=r"a.tgz could not be written"):
            fetch_quickly(f"{server.url}/a.tgz", target)
        fetch_quickly(f"{server.url}/a.tgz", target)
        assert server.requests[-1]["Range"] == "bytes=400000-"
    assert target.read_bytes() == CONTENT


FETCHING = (
    "import sys; from pathlib import Path; from cmlr_utils.data.download import fetch\n"
    "fetch(sys.argv[1], Path(sys.argv[2]))"
)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kills_at_any_moment_lose_nothing(tmp_path):
    processes = []

    def killing(at):
        def answering(handler):
            serve(handler, cut=at)
            handler.wfile.flush()
            time.sleep(0.05)
            processes[-1].kill()

        return answering

    with serving({"/a.tgz": CONTENT}, *map(killing, (0, 333_333, 600_000))) as server:
        command = [sys.executable, "-c", FETCHING, f"{server.url}/a.tgz", str(tmp_path / "a.tgz")]
        while not processes or processes[-1].returncode:
            processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            processes[-1].wait(30)
        assert [process.returncode for process in processes] == [-signal.SIGKILL] * 3 + [0]
        assert server.sent == len(CONTENT)
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT


def test_a_stop_between_the_last_byte_and_the_name_costs_no_byte(tmp_path, monkeypatch):
    receive = module.receive

    def stopped(*arguments):
        receive(*arguments)
        raise KeyboardInterrupt

    with serving({"/a.tgz": CONTENT}) as server:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "receive", stopped)
            fetch_quickly(f"{server.url}/a.tgz", tmp_path / "a.tgz")
        fetch_quickly(f"{server.url}/a.tgz", tmp_path / "a.tgz")
        assert server.sent == len(CONTENT) and len(server.requests) == 2
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT


# ---- archives


WANTED = {"CXR1.png", "CXR2.png"}


def special(name, kind, linkname="", **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    for key, value in more.items():
        setattr(info, key, value)
    return info, b""


def unpacked(tmp_path, content):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.tgz").write_bytes(content)
    extract(tmp_path / "inside" / "a.tgz", tmp_path / "inside" / "new", WANTED)
    return {path.name: path.read_bytes() for path in (tmp_path / "inside" / "new").iterdir()}


@pytest.mark.parametrize(
    "evil",
    [
        ("../evil", b"x"),
        ("../../CXR2.png/../../evil", b"x"),
        ("/evil_by_cmlr_test", b"x"),
        special("CXR2.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("CXR2.png", tarfile.LNKTYPE, "../../etc/passwd"),
        special("CXR2.png", tarfile.CHRTYPE, devmajor=1, devminor=5),
        special("CXR2.png", tarfile.FIFOTYPE),
        special("CXR2.png", tarfile.DIRTYPE),
        special("CXR2.png", tarfile.GNUTYPE_SPARSE),
        ("C:\\CXR2.png", b"x"),
        ("cxr2.PNG", b"x"),
    ],
    ids=lambda value: str(getattr(value[0], "type", value[0])),
)
def test_nothing_but_the_wanted_files_is_written(tmp_path, evil):
    assert unpacked(tmp_path, tgz([("./CXR1.png", b"film"), evil])) == {"CXR1.png": b"film"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["CXR1.png", "a.tgz", "inside", "new"]
    assert not os.path.exists("/evil_by_cmlr_test")


def test_a_wanted_name_on_a_way_out_lands_inside(tmp_path):
    content = tgz([("../../CXR1.png", b"one"), ("/etc/CXR2.png", b"two")])
    assert unpacked(tmp_path, content) == {"CXR1.png": b"one", "CXR2.png": b"two"}
    assert {path.parent.name for path in tmp_path.rglob("CXR*")} == {"new"}


def test_a_link_first_and_a_file_through_it_stay_inside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = special("new", tarfile.SYMTYPE, str(outside))
    assert unpacked(tmp_path, tgz([link, ("new/CXR1.png", b"x")])) == {"CXR1.png": b"x"}
    assert list(outside.iterdir()) == []


def bomb_of(header):
    """A member that promises 100 MB of zeros and keeps the promise: half a megabyte when packed."""
    return gzip.compress(header + b"\0" * 10**8, 1)


def header_of(name, kind=tarfile.REGTYPE, size=10**8):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf()


GOOD = tgz([("CXR1.png", random.Random(5).randbytes(50_000)), ("CXR2.png", random.Random(6).randbytes(50_000))])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bomb_of(header_of("CXR1.png")), id="a wanted file of 100 MB"),
        pytest.param(bomb_of(header_of("Thumbs.db")), id="another file of 100 MB"),
        pytest.param(bomb_of(header_of("x", tarfile.XHDTYPE)), id="a header of 100 MB"),
        pytest.param(bomb_of(header_of("x", tarfile.GNUTYPE_LONGNAME)), id="a name of 100 MB"),
        pytest.param(GOOD + bomb_of(b""), id="100 MB after the end"),
        pytest.param(gzip.compress(header_of("Thumbs.db", size=0) * 10**6, 1), id="a million members"),
        pytest.param(GOOD[:60_000], id="truncated"),
        pytest.param(GOOD[:-4], id="without its last four bytes"),
        pytest.param(GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], id="wrong check sum"),
        pytest.param(GOOD[:50_000] + b"\xff" + GOOD[50_001:], id="one wrong byte"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(gzip.compress(b"<html>" * 1000), id="a packed page"),
        pytest.param(gzip.compress(b""), id="nothing, packed"),
        pytest.param(tgz([("Thumbs.db", b"x")]), id="none of the wanted"),
    ],
)
def test_a_damaged_or_wicked_archive_leaves_nothing(tmp_path, content):
    with pytest.raises(
        CourseError, match="a.tgz was damaged or another file .* and is removed: fetch it again"
    ) as caught:
        unpacked(tmp_path, content)
    assert list((tmp_path / "inside").iterdir()) == [] and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_archives_raise_nothing_undeclared(tmp_path, data):
    raw = bytearray(gzip.decompress(tgz([("CXR1.png", b"a" * 700), special("b" * 200, tarfile.SYMTYPE, "c" * 200)])))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    packed = bytearray(gzip.compress(bytes(raw), 1))
    if data.draw(st.booleans()):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    archive = tmp_path / "a.tgz"
    archive.write_bytes(packed[: data.draw(st.integers(0, len(packed) * 2))])
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    try:
        extract(archive, tmp_path / "new", WANTED)
    except CourseError:
        assert not archive.exists() and not (tmp_path / "new").exists()
    else:
        assert {path.name for path in (tmp_path / "new").iterdir()} <= WANTED


def test_a_full_disk_while_unpacking_leaves_the_archive(tmp_path, largest_file):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(GOOD)
    with largest_file(10_000), pytest.raises(CourseError, match="could not be written"):
        extract(archive, tmp_path / "new", WANTED)
    assert list(tmp_path.iterdir()) == [archive]


# ---- the whole command


@pytest.fixture(autouse=True)
def read_once(monkeypatch, request):
    """The package's reports are read once for all tests."""
    if "own_data" in request.fixturenames:
        reports = request.getfixturevalue("reports")
        monkeypatch.setattr(module, "read_reports", lambda archive=None: read_reports(archive) if archive else reports)
        monkeypatch.setattr(studies_module, "read_reports", lambda: reports)


@pytest.fixture(scope="module")
def chosen(studies):
    """Four studies, with a lateral film before the frontal one in two of them."""
    return [s for s in studies if s.views == ("lateral", "frontal")][:2] + [
        s for s in studies if s.views == ("frontal", "lateral")
    ][:2]


@pytest.fixture(scope="module")
def files(chosen, bank):
    return open_i(chosen)


def test_from_the_command_to_the_radiographs(own_data, chosen, files, capsys):
    with serving(files, cut(400_000), cut(500), serve, cut(30_000)) as server:
        assert main(["download", "iu-rr", "--from", f"{server.url}/"]) == 0
        assert server.sent == sum(map(len, files.values()))
    output = capsys.readouterr().out
    assert "CC BY-NC-ND 4.0" in output and str(own_data / "raw" / "iu-rr") in output and server.url in output
    assert "8 of the 7,470 radiographs" in output and "Missing: CXR1" in output
    films = load_iu_rr("auto", 64)
    assert films.source == "open-i" and [study.id for study in films] == sorted(
        (study.id for study in chosen), key=lambda name: int(name[3:])
    )
    for i, study in enumerate(films):
        assert (films.image(i) == render_phantom(study.id, study.mesh, 64).pixels).all()

    folder = own_data / "raw" / "iu-rr"
    assert sorted(path.name for path in folder.iterdir()) == ["NLMCXR_png", "NLMCXR_reports.tgz", "download.json"]
    record = json.loads((folder / "download.json").read_text())
    assert record["sha256"] == hashlib.sha256(files["/NLMCXR_png.tgz"]).hexdigest() and record["source"] == server.url
    assert len(record["missing"]) == 7_470 - 8 and f"{chosen[0].images[0]}.png" not in record["missing"]
    assert not (own_data / "raw" / "iu-rr.partial").exists()

    assert main(["download", "iu-rr", "--from", server.url]) == 0  # the server is gone: nobody asks it
    assert "Nothing to do" in capsys.readouterr().out


def test_all_there_by_hand_needs_only_the_reports(own_data, chosen, files, monkeypatch, capsys):
    monkeypatch.setattr(module, "read_reports", lambda: chosen)
    folder = own_data / "raw" / "iu-rr" / "unpacked by hand"
    folder.mkdir(parents=True)
    for name in [image for study in chosen for image in study.images]:
        (folder / f"{name}.png").touch()
    with serving(files) as server:
        for _ in range(2):
            download_iu_rr(server.url)
            assert len(server.requests) == 1
    assert "8 of the 8 radiographs" in capsys.readouterr().out


def test_an_unfinished_folder_of_the_reader_is_not_touched(own_data, files):
    mine = own_data / "raw" / "iu-rr" / "NLMCXR_png" / "CXR1_1_IM-0001-3001.png"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with serving(files) as server:
        with pytest.raises(CourseError, match="NLMCXR_png lacks 7,469 radiographs: move it away"):
            download_iu_rr(server.url)
        assert server.requests == [] and mine.exists()


def test_other_reports_are_counted_and_damaged_ones_are_not_kept(own_data, tmp_path, monkeypatch, files, capsys):
    with tarfile.open(fileobj=io.BytesIO(files["/NLMCXR_reports.tgz"])) as tar:
        members = {f"ecgen-radiology/{n}.xml": tar.extractfile(f"ecgen-radiology/{n}.xml").read() for n in range(1, 5)}
    (tmp_path / "ours.tgz").write_bytes(tgz(members.items()))
    ours = read_reports(tmp_path / "ours.tgz")
    monkeypatch.setattr(module, "read_reports", lambda archive=None: read_reports(archive) if archive else ours)
    films = tgz([(f"{ours[0].images[0]}.png", b"film")])
    first = members["ecgen-radiology/1.xml"]
    other = members | {"ecgen-radiology/1.xml": first.replace(b"normal", b"NORMAL")}
    assert other != members
    for contents, count in ((members, 0), (other, 1)):
        with serving({"/NLMCXR_reports.tgz": tgz(contents.items()), "/NLMCXR_png.tgz": films}) as server:
            download_iu_rr(server.url)
        assert f"has other bytes than expected, and {count} other reports" in capsys.readouterr().out
        shutil.rmtree(own_data / "raw")
    with serving({"/NLMCXR_reports.tgz": tgz(members.items())[:2000], "/NLMCXR_png.tgz": films}) as server:
        with pytest.raises(CourseError, match="damaged"):
            download_iu_rr(server.url)
        server.files["/NLMCXR_reports.tgz"] = files["/NLMCXR_reports.tgz"]
        download_iu_rr(server.url)
    assert (own_data / "raw" / "iu-rr" / "NLMCXR_reports.tgz").read_bytes() == files["/NLMCXR_reports.tgz"]


def test_offline_is_said_in_one_sentence_with_the_phantom(own_data, monkeypatch, capsys):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert main(["download", "iu-rr", "--from", f"http://127.0.0.1:{port}"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmlr:")]
    assert len(errors) == 1 and "Connection refused" in errors[0] and "--images phantom" in errors[0]


def test_a_second_download_at_once_is_refused(own_data, files):
    began, go_on = threading.Event(), threading.Event()

    def waiting(handler):
        began.set()
        go_on.wait(10)
        serve(handler)

    with serving(files, waiting) as server:
        first = threading.Thread(target=download_iu_rr, args=(server.url,))
        first.start()
        began.wait(10)
        with pytest.raises(CourseError, match="Another download into .*iu-rr is under way"):
            download_iu_rr(server.url)
        go_on.set()
        first.join()
    assert (own_data / "raw" / "iu-rr" / "NLMCXR_png").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")
@pytest.mark.parametrize("moment", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_a_cut_extraction_shows_nothing_and_is_done_again_without_fetching(own_data, files, moment, capfd):
    stopping = (
        "import os, shutil, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cmlr_utils.course.cli import main\n"
        "copy, count = shutil.copyfileobj, []\n"
        "def stop(*files):\n"
        f"    copy(*files); count.append(1); len(count) < 3 or os.kill(os.getpid(), {int(moment)})\n"
        "shutil.copyfileobj = stop; sys.exit(main(sys.argv[1:]))"
    )
    folder = own_data / "raw" / "iu-rr"
    with serving(files) as server:
        words = ["download", "iu-rr", "--from", server.url]
        process = subprocess.run([sys.executable, "-c", stopping, *words], timeout=60)
        assert process.returncode == (130 if moment == signal.SIGINT else -signal.SIGKILL)
        assert list(folder.rglob("CXR*")) == [] and len(server.requests) == 2
        assert (f"Run `cmlr {' '.join(words)}` again" in capfd.readouterr().err) == (moment == signal.SIGINT)
        assert main(words) == 0
        assert len(server.requests) == 2
    assert len(list(folder.rglob("CXR*.png"))) == 8
    assert sorted(path.name for path in folder.parent.iterdir()) == ["iu-rr", "iu-rr.lock"]


def test_the_lock_of_a_killed_download_does_not_stay(own_data, files):
    lock = own_data / "raw" / "iu-rr.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with serving(files) as server:
        download_iu_rr(server.url)
    with FileLock(lock, timeout=0):
        pass


def test_a_mirror_with_no_film_of_ours_is_refused(own_data, files):
    films = {"/NLMCXR_png.tgz": archive_of([])}
    with serving(files | films) as server, pytest.raises(CourseError, match="none of the radiographs"):
        download_iu_rr(server.url)
    assert not (own_data / "raw" / "iu-rr" / "NLMCXR_png").exists()
