"""Show MLflow's figures to Prometheus, from the files that MLflow's workers write.

MLflow's own /metrics answers to its administrator alone, and Prometheus must not be one. While MLflow does not answer,
neither does this server, so that the metric `up` says so.

Environment: MLFLOW_EXPOSE_PROMETHEUS (the folder of the files), MLFLOW_TRACKING_URI (whether MLflow speaks TLS),
MLFLOW_PORT and FIGURES_PORT.
"""

import os
import ssl
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = os.environ["MLFLOW_EXPOSE_PROMETHEUS"]
HEALTH = f"{urlsplit(os.environ['MLFLOW_TRACKING_URI']).scheme}://127.0.0.1:{os.environ['MLFLOW_PORT']}/health"
PATIENCE = 5  # seconds; Prometheus gives up after ten


def figures() -> bytes:
    """Read the figures of all workers, and of those that have ended.

    Raises:
        OSError: MLflow does not answer.
    """
    # The certificate names the Service and not loopback, where nobody can stand between.
    urllib.request.urlopen(HEALTH, timeout=PATIENCE, context=ssl._create_unverified_context()).close()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=FOLDER)
    return generate_latest(registry)


class FiguresHandler(BaseHTTPRequestHandler):
    """Answers /metrics alone."""

    def do_GET(self) -> None:
        """Answer 503 while MLflow is away."""
        if self.path != "/metrics":
            self.send_error(404)
            return
        try:
            body = figures()
        except OSError as error:
            self.send_error(503, explain=f"MLflow does not answer: {error}")
            return
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet: a line for every scrape would bury what matters."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["FIGURES_PORT"])), FiguresHandler).serve_forever()
