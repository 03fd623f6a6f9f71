"""`cmlr download iu-rr`: Open-i's archives of the Indiana University radiographs and reports, fetched and unpacked."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Sequence, Set
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import requests
from filelock import FileLock, Timeout
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from cmlr_utils.data.files import CourseError, new_folder, read_json, require_space, write_text, writing
from cmlr_utils.data.reports import ARCHIVE_SHA256, Study, read_reports
from cmlr_utils.data.studies import open_i_folder

OPEN_I = "https://openi.nlm.nih.gov/imgs/collections"
REPORTS, IMAGES = "NLMCXR_reports.tgz", "NLMCXR_png.tgz"
UNPACKED = "NLMCXR_png"
# Open-i publishes no hash. Two public projects that fetched the archive in 2026 noted this one.
IMAGES_SHA256 = "baf3abfe19ba5d58efe69002aed1e71aa2e6d5efb3238db9adcac210ad44bdf2"
NOTICE = """\
NLMCXR_reports.tgz (1.1 MB) and NLMCXR_png.tgz (1.4 GB, twice that while unpacking)
from {source}
into {folder}
Licence: the reports CC BY-NC-ND 4.0; for the radiographs see https://openi.nlm.nih.gov/faq
Ctrl-C stops; the same command goes on."""
NOTHING_TO_DO = "Nothing to do: everything was fetched before."
GZIP = b"\x1f\x8b"
ATTEMPTS_AT_FIRST, ATTEMPTS_ONCE_SOME_CAME = 3, 8
LONGEST_PAUSE = 300  # seconds


class PassingError(Exception):
    """Something that another attempt may not meet; `pause` is how many seconds the server asks for before it."""

    def __init__(self, reason: str, pause: float = 0):
        super().__init__(reason)
        self.pause = pause


def download_iu_rr(source: str = OPEN_I, timeout: float = 30, wait: float = 1) -> None:
    """Put Open-i's radiographs under data/raw/iu-rr, as NLMCXR_png/CXR*.png, and the reports' archive beside them.

    `source` is the address that holds NLMCXR_reports.tgz and NLMCXR_png.tgz: Open-i's or a mirror's; `timeout` and
    `wait` are those of `fetch`. What has arrived waits in data/raw/iu-rr.partial for the next call; the radiographs
    appear all at once; their archive is removed, its sha256 and the names of missing images stay in download.json.

    The publisher gives no hashes, so what decides is gzip's own check sum and the names of the 7,470 images in the
    reports; other bytes than those known here, or missing images, are said and not refused: a mirror may hold a part.
    Raises CourseError if a server, the disk or an archive fails, or if another download is under way.
    """
    source, folder = source.rstrip("/"), open_i_folder()
    work, record, radiographs = folder.with_name(f"{folder.name}.partial"), folder / "download.json", folder / UNPACKED
    studies = read_reports()
    wanted = {f"{image}.png" for study in studies for image in study.images}
    with writing(folder):
        for path in (folder, work):
            path.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder.with_name(f"{folder.name}.lock")).acquire(timeout=0)
        except Timeout:
            raise CourseError(f"Another download into {folder} is under way: wait for it, or stop it first.") from None
        with lock:
            missing = missing_from(folder, wanted)
            fetched = read_json(record)
            has_reports = (folder / REPORTS).is_file()
            has_images = not missing or (fetched.get("source") == source and fetched.get("missing") == missing)
            if radiographs.exists() and not has_images:
                raise CourseError(f"{radiographs} lacks {len(missing):,} radiographs: move it away, then run again.")
            print(NOTHING_TO_DO if has_images and has_reports else NOTICE.format(source=source, folder=folder))
            if not has_reports:
                fetch(f"{source}/{REPORTS}", work / REPORTS, timeout, wait)
                compare_reports(work / REPORTS, studies)
                (work / REPORTS).replace(folder / REPORTS)
            if not has_images:
                fetch(f"{source}/{IMAGES}", work / IMAGES, timeout, wait)
                sha256 = sha256_of(work / IMAGES)
                extract(work / IMAGES, work / UNPACKED, wanted)
                (work / UNPACKED).replace(radiographs)
                missing = missing_from(folder, wanted)
                write_text(record, json.dumps({"source": source, "sha256": sha256, "missing": missing}, indent=1))
                print(
                    f"sha256 {sha256}, {'as' if sha256 == IMAGES_SHA256 else 'NOT as'} others have noted for {IMAGES}"
                )
            shutil.rmtree(work)
    print(f"{len(wanted) - len(missing):,} of the {len(wanted):,} radiographs that the reports name are in {folder}.")
    if missing:
        print(f"Missing: {', '.join(missing[:3])}{', …' * (len(missing) > 3)} (all in {record.name}).")


def missing_from(folder: Path, wanted: Set[str]) -> list[str]:
    return sorted(wanted - {path.name for path in folder.rglob("CXR*.png")})


def compare_reports(archive: Path, studies: Sequence[Study]) -> None:
    """Say in how many reports a fetched archive differs from `studies`, which the course reads; a damaged one goes."""
    if sha256_of(archive) == ARCHIVE_SHA256:
        return
    try:
        fetched = read_reports(archive)
    except CourseError:
        archive.unlink()
        raise
    different = {repr(study) for study in fetched} ^ {repr(study) for study in studies}
    print(f"{REPORTS} has other bytes than expected, and {len({d.split(',')[0] for d in different}):,} other reports.")


def fetch(url: str, target: Path, timeout: float = 30, wait: float = 1) -> None:
    """Download a gzip file to `target`, going on where an earlier call was cut, even by a kill or a crash.

    Bytes collect in `target`.partial, and beside it a note of whose they are: address, size and ETag or date (RFC 9110,
    If-Range), so that a changed file begins anew. An attempt fails after `timeout` seconds of silence; the pause until
    the next one doubles from `wait` seconds, or is what the server asks for (Retry-After). Attempts are counted from
    the last that brought something new. Raises CourseError if the server refuses or keeps failing, if what it sends is
    not gzip, or if the disk has no room for twice the file, which will be unpacked.
    """
    partial, note = (target.with_name(f"{target.name}.{kind}") for kind in ("partial", "json"))
    if target.is_file() and read_json(note).get("url") == url:
        return
    before = most = size_of(partial)
    failures = 0
    with writing(target):
        while True:
            try:
                receive(url, partial, note, timeout)
                break
            except ValueError as error:
                raise CourseError(f"{url} is not an address to fetch from ({error}): correct it.") from error
            except (PassingError, requests.RequestException, HTTPError) as error:
                failures = failures + 1 if size_of(partial) <= most else 1
                most = max(most, size_of(partial))
                pause = max(wait * 2 ** (failures - 1), getattr(error, "pause", 0))
                attempts = ATTEMPTS_ONCE_SOME_CAME if most > before else ATTEMPTS_AT_FIRST
                if failures >= attempts or pause > LONGEST_PAUSE:
                    raise CourseError(
                        f"{url} could not be fetched ({reason_of(error)}): check the network (a proxy goes into "
                        "HTTPS_PROXY) and run again, which keeps what has arrived, or take phantoms "
                        "(`cmlr course --images phantom`)."
                    ) from error
                tqdm.write(f"{target.name}: {reason_of(error)}; trying again in {pause:.0f} s")
                time.sleep(pause)
        partial.replace(target)


def receive(url: str, partial: Path, note: Path, timeout: float) -> None:
    """One request, for what `partial` lacks; returns when it is whole."""
    known = read_json(note)
    have = size_of(partial) if known.get("url") == url else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known["validator"]:
            headers["If-Range"] = known["validator"]
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status, span = response.status_code, response.headers.get("Content-Range", "")
        etag = response.headers.get("ETag", "")
        # A weak ETag does not promise equal bytes.
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        if status == 416 and have and span == f"bytes */{have}":
            return
        if status in (408, 425, 429) or status >= 500:
            pause = Retry().get_retry_after(response.raw) or 0
            raise PassingError(f"the server answers {status} {response.reason}", pause)
        if have and status in (206, 416):
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", span)
            asked = (str(have), str(known["size"]))
            if not match or match.groups() != asked or validator != known["validator"]:
                partial.unlink()
                raise PassingError("the file on the server has changed: it is fetched from its start")
        elif status == 200:
            partial.unlink(missing_ok=True)
            have, size = 0, int(response.headers.get("Content-Length", 0))
            known = {"url": url, "size": size, "validator": validator}
            write_text(note, json.dumps(known))
        else:
            raise CourseError(
                f"{url} was refused ({status} {response.reason}): see with a browser whether the archive has moved, "
                "and give its folder's address with --from."
            )
        size = known["size"]
        require_space(partial.parent, 2 * size - have)
        with open(partial, "ab") as file, progress_bar(url, size, have) as bar:
            while block := response.raw.read1(2**16, decode_content=False):
                if file.tell() == 0 and block[:2] != GZIP[: len(block)]:
                    kind = response.headers.get("Content-Type", "something")
                    raise CourseError(
                        f"{response.url} sends {kind}, not a gzip archive, perhaps a log-in page: open it in a browser."
                    )
                file.write(block)
                bar.update(len(block))
    if size_of(partial) < size:
        raise PassingError("the connection ended early")


def extract(archive: Path, folder: Path, wanted: Set[str]) -> None:
    """Unpack the members of a .tgz whose base names are in `wanted` straight into `folder`, which appears at the end.

    Nothing else is written, whatever paths, links or devices the archive holds. An archive that fails gzip's check sum,
    that unpacks to more than four times its size and 16 MB (PNGs hardly shrink), or that holds nothing wanted is
    removed, and CourseError raised; also if the disk is full.
    """
    for left_by_a_kill in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left_by_a_kill)
    size = archive.stat().st_size
    require_space(folder, size)
    with new_folder(folder) as fresh:
        try:
            with open(archive, "rb") as file, progress_bar(f"unpacking {archive.name}", size) as bar:
                content = Metered(gzip.GzipFile(fileobj=file), 4 * size + 2**24)
                with tarfile.open(fileobj=content, mode="r|") as tar:
                    for member in tar:
                        name = PurePosixPath(member.name).name
                        if name in wanted and member.isfile() and not member.issparse():
                            with open(fresh / name, "wb") as copy:
                                shutil.copyfileobj(tar.extractfile(member), copy)
                        bar.update(file.tell() - bar.n)
                while content.read(2**16):  # up to the check sum
                    pass
            if not any(fresh.iterdir()):
                raise tarfile.ReadError("it holds none of the radiographs that the reports name")
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
            archive.unlink()
            raise CourseError(
                f"{archive} was damaged or another file ({error}), and is removed: fetch it again."
            ) from error


class Metered:
    """A stream that fails after `limit` bytes, so that no small archive fills a disk or the memory."""

    def __init__(self, stream: BinaryIO, limit: int):
        self.stream, self.left = stream, limit

    def read(self, size: int) -> bytes:
        block = self.stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise tarfile.ReadError("it unpacks to many times its size")
        return block


def reason_of(error: Exception) -> str:
    """The words at the core of an error that requests and urllib3 have wrapped."""
    while isinstance(error, Exception) and error.args:
        error = getattr(error, "reason", None) or error.args[0]
    return re.sub(r"^\w+\(.*?\): ", "", str(error))


def progress_bar(name: str, total: int, initial: int = 0) -> tqdm:
    return tqdm(
        total=total or None, initial=initial, desc=name.rsplit("/", 1)[-1], unit="B", unit_scale=True, mininterval=0.5
    )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
