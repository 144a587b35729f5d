"""The servers of the benchmark, each a child process on a loopback port that ends with the ``with`` block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from shutil import rmtree, which
from socket import create_server, socket
from typing import TYPE_CHECKING

from benchmarks.names import BOUNDARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.data import Study

MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
ORTHANC = Path("/usr/sbin/Orthanc")
ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC_USER = "bench"
ORTHANC_PASSWORD = "loopback-only"
#: Processes of the sink; its threads share one interpreter lock each.
SINKS = 2
START_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the static server. With a query of ``offset`` above 0 it answers an empty list."""

    path: str
    file: str
    content_type: str


def routes_of(studies: Sequence[Study]) -> list[Route]:
    """PS3.18 shapes: each study's and series' retrieve and instance listing; a lone instance's retrieve."""
    routes = []
    for study in studies:
        series = f"/studies/{study.uid}/series/{study.series_uid}"
        retrieves = [f"/studies/{study.uid}", series]
        retrieves += [f"{series}/instances/{uid}" for uid in study.instance_uids if study.instances == 1]
        listings = [f"/studies/{study.uid}/instances", f"{series}/instances"]
        routes += [Route(path, str(study.body), MULTIPART) for path in retrieves]
        routes += [Route(path, str(study.listing), "application/dicom+json") for path in listings]
    return routes


@contextmanager
def static_server(root: Path, routes: Sequence[Route]) -> Iterator[str]:
    """Serve files with sendfile: nginx where installed, else `benchmarks.static`. Yields the base address."""
    if not which("nginx"):
        with _sharing_socket("benchmarks.static", 1, json.dumps([asdict(route) for route in routes])) as url:
            yield url
        return
    port, prefix = free_port(), root / "nginx"
    prefix.mkdir()
    (prefix / "nginx.conf").write_text(_nginx_config(prefix, port, routes))
    command = ["nginx", "-p", str(prefix), "-c", str(prefix / "nginx.conf"), "-e", str(prefix / "error.log")]
    with _child(command) as process:
        _wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    rmtree(prefix)


def static_server_name() -> str:
    return "nginx" if which("nginx") else "a small sendfile server"


def _nginx_config(prefix: Path, port: int, routes: Sequence[Route]) -> str:
    temporary = "\n".join(
        f"  {kind}_temp_path {prefix}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
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
  types {{ }}
  server {{
    listen 127.0.0.1:{port};
{"".join(_nginx_location(route) for route in routes)}
  }}
}}
"""


def _nginx_location(route: Route) -> str:
    content_type = route.content_type.replace('"', '\\"')
    return f"""    location = {route.path} {{
      default_type "{content_type}";
      if ($past) {{ return 200 "[]"; }}
      alias {route.file};
    }}
"""


@contextmanager
def sink() -> Iterator[str]:
    """Take every upload and keep nothing. Yields its base address."""
    with _sharing_socket("benchmarks.sink", SINKS) as url:
        yield url


@contextmanager
def _sharing_socket(module: str, processes: int, stdin: str = "") -> Iterator[str]:
    with create_server(("127.0.0.1", 0), backlog=128) as listener, ExitStack() as stack:
        port, number = listener.getsockname()[1], listener.fileno()
        for _ in range(processes):
            command = [sys.executable, "-m", module, str(number)]
            stack.enter_context(_child(command, stdin=stdin, keep=(number,)))
        yield f"http://127.0.0.1:{port}"


def orthanc_installed() -> bool:
    return ORTHANC.exists() and ORTHANC_PLUGIN.exists()


@contextmanager
def orthanc(root: Path, preload: Study | None = None) -> Iterator[str]:
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
        "RegisteredUsers": {ORTHANC_USER: ORTHANC_PASSWORD},
        "DicomServerEnabled": False,
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Ssl": False},
    }


def _store_one_by_one(port: int, study: Study) -> None:
    """Put a study into Orthanc by its own REST interface, which no side uses."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    pair = b64encode(f"{ORTHANC_USER}:{ORTHANC_PASSWORD}".encode()).decode()
    for path in sorted(study.folder.iterdir()):
        connection.request("POST", "/instances", path.read_bytes(), {"Authorization": f"Basic {pair}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"Orthanc answered {answer.status}")
        answer.read()
    connection.close()


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
def _child(command: Sequence[str], *, stdin: str = "", keep: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=keep,
        env=environment,
    )
    if process.stdin:
        process.stdin.write(stdin.encode())
        process.stdin.close()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
