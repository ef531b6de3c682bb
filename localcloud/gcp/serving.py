"""The cloud as a server: its parts, put together and started, on one port of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from werkzeug.serving import make_server

import localcloud.gcp.client
from localcloud.calls import Calls
from localcloud.control import THIS_MACHINE, Control, listens_on
from localcloud.gcp.certificates import FOLDER, Certificates, certificates
from localcloud.gcp.front import Front, Plain, Quiet
from localcloud.gcp.grpc_server import Grpc
from localcloud.gcp.metadata import Metadata
from localcloud.gcp.proxy import Proxy, Servers
from localcloud.gcp.service import Cloud
from localcloud.gcp.services import Services, services
from localcloud.gcp.uploads import Sessions
from localcloud.jobs import Jobs
from localcloud.service import Delays, Image
from localcloud.state import emptied, taken


class Server:
    """Listens already; it serves once its serve_forever() is called."""

    def __init__(
        self,
        port: int,
        folder: Path,
        images: Mapping[str, Image],
        delays: Delays,
        project: str,
        region: str,
        name: str = THIS_MACHINE,
    ) -> None:
        self._held: IO[str] = taken(folder)  # the folder is ours as long as this file is open
        self._folder, self._images, self._delays = folder, images, delays
        self._project, self._region = project, region
        trusted = certificates(folder)
        listening = socket.create_server((listens_on(name), port), backlog=128)
        self.url = f"http://{name}:{listening.getsockname()[1]}"
        self.environment = _environment(self.url, trusted, project)
        self.jobs = Jobs(delays)
        self._calls = Calls()
        self._services = self._made()
        self._front = Front(self._calls, self._services.operations, self._services.environments.web)
        self._grpc = Grpc(self._calls, self._services.methods)
        # Sockets with names, which must be short, in a folder that nobody else can enter.
        self._sockets = Path(tempfile.mkdtemp(prefix="localcloud-"))
        inner = Servers(*(self._sockets / name for name in ("plain", "https", "grpc")))
        self._proxy = Proxy(listening, trusted.context(), inner)
        control = Control(
            self._calls,
            self.jobs,
            self._health,
            self._reset,
            {"environment": lambda: {"environment": self.environment}, "proxied": lambda: {"proxied": self._proxy.asked()}},
        )
        for path, application in ((inner.plain, Plain(control, Metadata(project, region), name)), (inner.https, self._front)):
            # The type that werkzeug has for an application is narrower than what it takes.
            handled: Any = application
            server = make_server(f"unix://{path}", 0, handled, threaded=True, request_handler=Quiet)
            threading.Thread(target=server.serve_forever, name=path.name, daemon=True).start()
        self._grpc_server = self._grpc.serve(inner.grpc)

    def serve_forever(self) -> None:
        try:
            self._proxy.serve_forever()
        finally:
            self._grpc_server.stop(0)
            shutil.rmtree(self._sockets, ignore_errors=True)

    def shutdown(self) -> None:
        self._proxy.shutdown()

    def close(self) -> None:
        """End all jobs, and let go of the state."""
        self.jobs.close()
        self._services.close()

    def _made(self) -> Services:
        return services(
            self._folder,
            lambda objects, tables: Cloud(
                self._project,
                self._region,
                self.url,
                self._folder,
                self.jobs,
                self._images,
                self._delays,
                self.environment,
                objects,
                tables,
            ),
        )

    def _health(self) -> dict[str, Any]:
        return {"state": "ready", "project": self._project, "region": self._region, "services": self._services.names}

    def _reset(self) -> None:
        """As if the cloud had just been started."""
        self.jobs.reset()
        self._calls.faults.clear()
        self._services.close()
        emptied(self._folder, FOLDER)
        self._services = self._made()
        self._front.offered, self._grpc.offered = self._services.operations, self._services.methods
        self._front.web = self._services.environments.web
        self._front.sessions = Sessions()
        self._proxy.forget()
        self._calls.clear()


def _environment(url: str, trusted: Certificates, project: str) -> dict[str, str]:
    """What a process needs to be a client of this cloud, and of nothing else."""
    host = url.removeprefix("http://")
    path = [str(Path(localcloud.gcp.client.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    authority = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HTTPLIB2_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CURL_CA_BUNDLE")
    return {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), url),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        **dict.fromkeys(authority, str(trusted.authority)),
        **dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"), host),
        # Nothing, rather than not there: no library then looks at what the gcloud command keeps in the home directory.
        "CLOUDSDK_CONFIG": "",
        "GOOGLE_CLOUD_PROJECT": project,
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": f"google-cloud-platform://?project={project}",
        "PYTHONPATH": os.pathsep.join(path),
    }
