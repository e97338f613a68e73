"""`llama_serve.py MODEL PORT`: llama.cpp's HTTP server on loopback, until the process is ended."""

from __future__ import annotations

import sys
import threading

import xllamacpp


def serve(model: str, port: int) -> None:
    """Serve Chat Completions, Responses and Messages."""
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
