"""llama.cpp's own HTTP server, as a provider that this project did not write.

`python -m tests.unit.llama_server MODEL PORT`: Chat Completions, Responses and Messages.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp

from tests.environment import new_folder, of_process
from tests.processes import Process, free_port
from tests.unit.generation import model_file


class LlamaServer(Process):
    """That server as a child process; `url` is its address."""

    def __init__(self) -> None:
        folder, port = new_folder("llama"), free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tests.unit.llama_server", str(model_file()), str(port)]
        super().__init__(command, env=of_process({}), cwd=folder, log_file=folder / "log", ready="serving")


def serve(model: str, port: int) -> None:
    """Serve until the process is ended."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = 4, 4 * 2048
    params.cache_ram_mib, params.verbosity, params.ui = 0, 0, False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"serving at {server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
