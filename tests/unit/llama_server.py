"""llama.cpp's own HTTP server as a provider that this project did not write."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.environment import new_folder, of_process
from tests.processes import Process, free_port
from tests.unit.generation import model_file


class LlamaServer(Process):
    """That server as a child process; `url` is its address."""

    def __init__(self) -> None:
        folder, port = new_folder("llama"), free_port()
        self.url = f"http://127.0.0.1:{port}"
        script = Path(__file__).with_name("llama_serve.py")
        command = [sys.executable, str(script), str(model_file()), str(port)]
        super().__init__(command, env=of_process({}), cwd=folder, log_file=folder / "log", ready="serving")
