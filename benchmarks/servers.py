"""The servers of the benchmark, each a child process on a loopback port that ends with the ``with`` block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from shutil import rmtree, which
from socket import create_server, socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.names import MULTIPART, PASSWORD, USER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.data import Study, Written

ORTHANC = Path("/usr/sbin/Orthanc")
ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
#: Processes of the sink; its threads share one interpreter lock each.
SINKS = 2
START_SECONDS = 30.0
STOP_SECONDS = 10.0


@contextmanager
def certificates(root: Path) -> Iterator[tuple[Path, Path]]:
    """Make an authority and a server's certificate with its key; yields the PEM files of both."""
    import trustme

    authority, server = root / "authority.pem", root / "server.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(authority)
    ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(server)
    yield authority, server
    authority.unlink()
    server.unlink()


@contextmanager
def static_server(root: Path, certificate: Path | None = None) -> Iterator[str]:
    """Serve ``root/www`` with sendfile: nginx where installed, else `benchmarks.static`. Yields the base address."""
    www, scheme = root / "www", "https" if certificate else "http"
    if not which("nginx"):
        with _sharing_socket("benchmarks.static", 1, str(www), *([str(certificate)] if certificate else [])) as port:
            yield f"{scheme}://127.0.0.1:{port}"
        return
    port, prefix = free_port(), root / "nginx"
    prefix.mkdir()
    (prefix / "nginx.conf").write_text(_nginx_config(prefix, port, www, certificate))
    command = ["nginx", "-p", str(prefix), "-c", str(prefix / "nginx.conf"), "-e", str(prefix / "error.log")]
    with _child(command) as process:
        _wait_for_port(port, process)
        yield f"{scheme}://127.0.0.1:{port}"
    rmtree(prefix)


def static_server_name() -> str:
    return "nginx" if which("nginx") else "a small sendfile server"


def _nginx_config(prefix: Path, port: int, www: Path, certificate: Path | None) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"  {kind}_temp_path {prefix}/{kind};" for kind in kinds)
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if certificate else ""
    return f"""daemon off;
master_process off;
worker_processes 1;
pid {prefix}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000;
{temporary}
  map $arg_offset $past {{ default 1; "" ""; 0 ""; }}
  types {{ '{MULTIPART}' body; application/dicom+json json; }}
  server {{
    listen 127.0.0.1:{port}{" ssl" if certificate else ""};
    {tls}
    root {www};
    if ($past) {{ return 200 "[]"; }}
    location / {{ try_files $uri.body $uri.json =404; }}
    location = /studies {{ try_files /count/$arg_StudyInstanceUID.json =404; }}
    location ~ /series$ {{ try_files /count/$arg_SeriesInstanceUID.json $uri.json =404; }}
  }}
}}
"""


@contextmanager
def sink(least: int) -> Iterator[str]:
    """Take every upload and keep nothing. ``least`` bytes of pixels are in each instance. Yields its base address."""
    with _sharing_socket("benchmarks.sink", SINKS, str(least)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def generated(*studies: Study) -> Iterator[str]:
    """Serve studies that are on no disk. Yields the base address."""
    with _sharing_socket("benchmarks.generated", 1, *(json.dumps(asdict(study)) for study in studies)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def delay_line(url: str, *, round_trip: float, rate: float = 0.0) -> Iterator[str]:
    """Stand a long line in front of a server. Yields the address of its near end."""
    port = urlsplit(url).port
    with _sharing_socket("benchmarks.delay_line", 1, str(port), str(round_trip), str(rate)) as near:
        yield url.replace(f":{port}", f":{near}")


@contextmanager
def _sharing_socket(module: str, processes: int, *arguments: str) -> Iterator[int]:
    with create_server(("127.0.0.1", 0), backlog=128) as listener, ExitStack() as stack:
        port, number = listener.getsockname()[1], listener.fileno()
        for _ in range(processes):
            command = [sys.executable, "-m", module, str(number), *arguments]
            process = stack.enter_context(_child(command, keep=(number,)))
        _wait_for_port(port, process)
        yield port


def orthanc_installed() -> bool:
    return ORTHANC.exists() and ORTHANC_PLUGIN.exists()


@contextmanager
def orthanc(root: Path, preload: Written | None = None) -> Iterator[str]:
    """Start a fresh Orthanc with its DICOMweb plugin, holding `preload` alone. Yields the DICOMweb address."""
    port, folder = free_port(), root / "orthanc"
    folder.mkdir()
    config = folder / "orthanc.json"
    config.write_text(json.dumps(_orthanc_config(folder, port)))
    with _child([str(ORTHANC), str(config)]) as process:
        _wait_for_port(port, process)
        if preload:
            _store_one_by_one(port, preload)
        yield f"http://127.0.0.1:{port}/dicom-web"
    rmtree(folder)


def _orthanc_config(folder: Path, port: int) -> dict[str, object]:
    return {
        "Name": "benchmark",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "TemporaryDirectory": str(folder),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomServerEnabled": False,
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Ssl": False},
    }


def _store_one_by_one(port: int, study: Written) -> None:
    """Put a study into Orthanc by its own REST interface, which no side uses."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    for path in sorted(study.files.glob("*/*")):
        connection.request("POST", "/instances", path.read_bytes(), _authorization())
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"Orthanc answered {answer.status}")
        answer.read()
    connection.close()


def held_by_orthanc(url: str) -> dict[str, str]:
    """Return the MD5 of every file that an Orthanc holds, by SOP Instance UID."""
    base = urlsplit(url)
    connection = HTTPConnection(base.hostname or "", base.port, timeout=60)

    def fetched(path: str) -> str:
        connection.request("GET", path, headers=_authorization())
        return connection.getresponse().read().decode()

    found = json.loads(fetched("/instances?expand"))
    held = {
        one["MainDicomTags"]["SOPInstanceUID"]: fetched(f"/instances/{one['ID']}/attachments/dicom/md5")
        for one in found
    }
    connection.close()
    return held


def _authorization() -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"}


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until it answers any HTTP at all."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, HTTPException):
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise RuntimeError(f"{process.args!r} did not start")


@contextmanager
def _child(command: Sequence[str], *, keep: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=keep,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
